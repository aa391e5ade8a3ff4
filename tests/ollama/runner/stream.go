package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

const faultAt = 5

// dialect is how a route words its events.
type dialect struct {
	event  func(text string, isThought, isFirst bool) any
	ending func() []any
	isDone bool // whether [DONE] follows
}

// events are those of one reply.
type events struct {
	w http.ResponseWriter
	*generation
	*server
	dialect
	gate *gate
}

// stream sends an answer word by word and writes the ledger.
func (s *server) stream(w http.ResponseWriter, r *http.Request, g *generation, d dialect) {
	gate, err := openGate(g.knobs["hold"])
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	defer gate.close()
	if g.knobs["mode"] == "status" {
		g.entry.InputTokens, g.entry.CachedTokens = 0, 0
		s.end(g, "status")
		fail(w, g.knobs.number("code", http.StatusInternalServerError), "scripted failure")
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	e := events{w, g, s, d, gate}
	if g.knobs["hold"] != "" {
		s.ledger.write(g.entry) // it runs
	}
	if !pause(r.Context(), g.knobs.number("first_ms", 0)) {
		s.end(g, "cancel")
		return
	}
	g.first = time.Now()
	s.end(g, e.all(r))
}

// all sends every event, and says how the answer ended.
func (e events) all(r *http.Request) string {
	mode, at, glue := e.knobs["mode"], e.knobs.number("at", faultAt), max(1, e.knobs.number("pertoken", 1))
	said := append(append([]string{}, e.think...), e.words...)
	text := ""
	for i, word := range said {
		if !pause(r.Context(), e.knobs.number("delay_ms", 0)) {
			return "cancel"
		}
		if i == at && mode != "" && mode != "repeat" {
			return e.fault(r, mode)
		}
		text += word
		isThought := i < len(e.think)
		isLast := i+1 == len(said) || isThought != (i+1 < len(e.think))
		if (i+1)%glue != 0 && !isLast {
			continue
		}
		if !e.gate.wait(r.Context()) {
			return "cancel"
		}
		isFirst := e.entry.OutputTokens == 0
		e.count(len(strings.Fields(text)))
		e.put(e.event(text, isThought, isFirst))
		text = ""
	}
	if !e.gate.wait(r.Context()) {
		return "cancel"
	}
	if e.tool != nil {
		e.count(len(strings.Fields(e.tool.arguments)) + 1)
	}
	for _, event := range e.ending() {
		e.put(event)
	}
	if e.isDone {
		e.put("[DONE]")
	}
	if e.isCut {
		return "limit"
	}
	return "stop"
}

// count notes tokens before they leave: whoever has read them finds them in the ledger.
func (e events) count(tokens int) {
	e.entry.OutputTokens += tokens
	if e.gate != nil {
		e.ledger.write(e.entry)
	}
}

// fault breaks the answer off.
func (e events) fault(r *http.Request, mode string) string {
	switch mode {
	case "crash":
		e.end(e.generation, mode)
		fmt.Fprintln(os.Stderr, "script.cpp:1: GGML_ASSERT(scripted) failed")
		os.Exit(134)
	case "hang":
		<-r.Context().Done()
	case "error":
		e.put(object{"error": object{"code": 500, "message": "scripted mid-stream failure", "type": "server_error"}})
	case "garbage":
		e.put(`{"content": broken`)
	}
	return mode
}

// put sends one event at once; a string as it is.
func (e events) put(event any) {
	text, isText := event.(string)
	if !isText {
		text = string(compact(event))
	}
	// A client that has disconnected is noticed by its context.
	_, _ = fmt.Fprintf(e.w, "data: %s\n\n", text)
	_ = http.NewResponseController(e.w).Flush()
}

// end writes how an answer ended.
func (s *server) end(g *generation, how string) {
	g.entry.End = how
	s.ledger.write(g.entry)
}
