package main

import (
	"math"
	"net/url"
	"strings"
	"time"
)

const (
	defaultTokens = 32
	thinkTokens   = 4
	repeats       = 5000
)

// generation is one answer: decided whole before its first word is sent.
type generation struct {
	knobs   knobs
	entry   entry // its output tokens are those produced so far
	room    int   // tokens that may be produced
	stops   []string
	think   []string
	words   []string
	tool    *toolCall
	isCut   bool // by the room
	started time.Time
	first   time.Time
}

// newGeneration counts a prompt; the answer comes later. cap is the wanted bound of the answer,
// 0 or less for none.
func (s *server) newGeneration(route, prompt, user string, cap int, stops []string) *generation {
	g := &generation{knobs: readKnobs(user), stops: stops, started: time.Now()}
	fields := strings.Fields(prompt)
	counted := 1 + len(fields)
	cached := min(s.shared(fields), counted-1)
	input := g.knobs.number("ptokens", counted)
	g.entry = entry{Tag: g.knobs["tag"], Route: route, InputTokens: input,
		CachedTokens: max(0, min(g.knobs.number("cache", cached), input))}
	g.room = math.MaxInt32
	if cap > 0 {
		g.room = cap
	}
	if !s.isShifting {
		g.room = min(g.room, max(1, s.slotContext()-input))
	}
	return g
}

// shared counts the tokens that a prompt has in common with the last one, which it replaces.
func (s *server) shared(fields []string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(fields) && n < len(s.lastPrompt) && fields[n] == s.lastPrompt[n] {
		n++
	}
	s.lastPrompt = fields
	if n == 0 {
		return 0
	}
	return n + 1 // the token before the first word
}

// answer decides the words; wanted replaces those of the cycle.
func (g *generation) answer(wanted string) {
	if said, err := url.QueryUnescape(g.knobs["say"]); err == nil && said != "" {
		wanted = said
	}
	tokens := g.knobs.number("tokens", defaultTokens)
	g.words = words(tokens)
	if wanted != "" {
		g.words = pieces(wanted)
		if g.knobs["tokens"] != "" {
			g.words = g.words[:min(tokens, len(g.words))]
		}
	}
	if g.knobs["mode"] == "repeat" {
		g.words = words(g.knobs.number("at", faultAt))
		for range repeats {
			g.words = append(g.words, " same")
		}
	}
}

// cut ends the answer at a stop text, and where there is no more room.
func (g *generation) cut() {
	whole := strings.Join(g.words, "")
	end := len(whole)
	for _, stop := range g.stops {
		if at := strings.Index(whole, stop); stop != "" && at >= 0 {
			end = min(end, at)
		}
	}
	if end < len(whole) {
		g.words = pieces(whole[:end])
	}
	if len(g.think)+len(g.words) > g.room {
		g.think = g.think[:min(len(g.think), g.room)]
		g.words = g.words[:g.room-len(g.think)]
		g.isCut = true
	}
}

// timings are what Ollama reads its counts and durations from.
func (g *generation) timings() object {
	evaluated := g.entry.InputTokens - g.entry.CachedTokens
	predicted := float64(g.entry.OutputTokens)
	promptMS := math.Max(0.5, milliseconds(g.first.Sub(g.started)))
	predictedMS := math.Max(0.01*predicted, milliseconds(time.Since(g.first)))
	return object{"cache_n": g.entry.CachedTokens, "prompt_n": evaluated, "prompt_ms": promptMS,
		"predicted_n": g.entry.OutputTokens, "predicted_ms": predictedMS,
		"predicted_per_second": 1000 * predicted / math.Max(predictedMS, 0.001)}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
