package main

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"
)

// dimensions is the length of a vector, as the toy models' files have it.
const dimensions = 64

// grammar is the question for a schema's grammar that Ollama asks before a constrained answer.
const grammar = "generation_settings/grammar"

// completion answers Ollama's own templates.
func (s *server) completion(w http.ResponseWriter, r *http.Request, body object) {
	if fields := texts(body["response_fields"]); len(fields) == 1 && fields[0] == grammar {
		reply(w, http.StatusOK, object{grammar: `root ::= "{" [^}]* "}"`})
		return
	}
	prompt := s.prompt(body["prompt"])
	user := prompt[max(0, strings.LastIndex(prompt, "<|user|>")):]
	g := s.newGeneration("/completion", prompt, user, integer(body["n_predict"], -1), texts(body["stop"]))
	if s.isTooLong(w, g) {
		return
	}
	format, _ := body["grammar"].(string)
	g.answer(jsonAnswer(format, body["json_schema"]))
	g.cut()
	top := integer(body["n_probs"], 0)
	isTimed, _ := body["timings_per_token"].(bool)
	s.stream(w, r, g, dialect{event: func(text string, _, _ bool) any {
		event := object{"index": 0, "content": text, "tokens": []int{}, "stop": false, "id_slot": 0,
			"tokens_predicted": g.entry.OutputTokens, "tokens_evaluated": g.entry.InputTokens}
		if top > 0 {
			event["completion_probabilities"] = []object{probability(text, top)}
		}
		if isTimed {
			event["timings"] = g.timings()
		}
		return event
	}, ending: func() []any {
		kind := "eos"
		if g.isCut {
			kind = "limit"
		}
		return []any{object{"index": 0, "content": "", "stop": true, "stop_type": kind, "stopping_word": "",
			"truncated": false, "tokens_predicted": g.entry.OutputTokens, "tokens_evaluated": g.entry.InputTokens,
			"tokens_cached": g.entry.CachedTokens, "timings": g.timings()}}
	}})
}

// prompt is a prompt as text: it may come as tokens.
func (s *server) prompt(value any) string {
	switch p := value.(type) {
	case string:
		return p
	case []any:
		return s.vocabulary.decode(integers(p))
	case object:
		text, _ := p["prompt_string"].(string)
		return text
	}
	return ""
}

// chat answers models whose template stands in their file.
func (s *server) chat(w http.ResponseWriter, r *http.Request, body object) {
	l := lay(body)
	g := s.newGeneration("/v1/chat/completions", l.prompt, l.user, integer(body["n_predict"], -1), texts(body["stop"]))
	if s.isTooLong(w, g) {
		return
	}
	wanted := inside(body, "response_format")
	format, _ := wanted["type"].(string)
	tools, _ := body["tools"].([]any)
	isAsked := l.lastRole == "user" || g.knobs["tool"] == "1"
	if len(tools) > 0 && g.knobs["tool"] != "0" && isAsked && format == "" {
		g.tool = chooseTool(tools, l.user)
	}
	thoughts := 0
	if isOn, _ := inside(body, "chat_template_kwargs")["enable_thinking"].(bool); isOn {
		thoughts = thinkTokens
	}
	for i := range g.knobs.number("think", thoughts) {
		g.think = append(g.think, fmt.Sprintf(" step%d", i+1))
	}
	if g.tool == nil {
		g.answer(jsonAnswer(format, inside(wanted, "json_schema")["schema"]))
	}
	g.cut()
	s.stream(w, r, g, chatDialect(g, body))
}

func chatDialect(g *generation, body object) dialect {
	top := 0
	if isOn, _ := body["logprobs"].(bool); isOn {
		top = max(1, integer(body["top_logprobs"], 1))
	}
	chunk := func(delta object, reason any) object {
		return object{"choices": []object{{"index": 0, "delta": delta, "finish_reason": reason}},
			"created": time.Now().Unix(), "id": "chatcmpl-script", "model": "script", "object": "chat.completion.chunk"}
	}
	return dialect{isDone: true, event: func(text string, isThought, isFirst bool) any {
		delta := object{"content": text}
		if isThought {
			delta = object{"reasoning_content": text}
		}
		if isFirst {
			delta["role"] = "assistant"
		}
		event := chunk(delta, nil)
		if top > 0 {
			event["choices"].([]object)[0]["logprobs"] = object{"content": []object{probability(text, top)}}
		}
		return event
	}, ending: func() []any {
		out, reason := []any{}, "stop"
		if g.isCut {
			reason = "length"
		}
		if g.tool != nil {
			reason = "tool_calls"
			call := object{"index": 0, "id": g.tool.id, "type": "function",
				"function": object{"name": g.tool.name, "arguments": g.tool.arguments}}
			out = append(out, chunk(object{"tool_calls": []object{call}}, nil))
		}
		last := chunk(object{}, reason)
		last["timings"] = g.timings()
		return append(out, last)
	}}
}

// embed answers with a vector of the words and characters of a text.
func (s *server) embed(w http.ResponseWriter, r *http.Request, body object) {
	text := content(body["input"])
	g := &generation{knobs: readKnobs(text)}
	fields := strings.Fields(text)
	g.entry = entry{Tag: g.knobs["tag"], Route: "/v1/embeddings", InputTokens: g.knobs.number("ptokens", len(fields)+2)}
	switch {
	case g.knobs["mode"] == "status":
		g.entry.InputTokens = 0
		s.end(g, "status")
		fail(w, g.knobs.number("code", http.StatusInternalServerError), "scripted failure")
		return
	case g.entry.InputTokens > s.slotContext():
		s.end(g, "too-long")
		message := "input (%d tokens) is too large to process. increase the physical batch size (current batch size: %d)"
		fail(w, http.StatusInternalServerError, fmt.Sprintf(message, g.entry.InputTokens, s.slotContext()))
		return
	case !pause(r.Context(), g.knobs.number("delay_ms", 0)):
		s.end(g, "cancel")
		return
	}
	s.end(g, "stop")
	vector := object{"object": "embedding", "index": 0, "embedding": vectorOf(fields)}
	reply(w, http.StatusOK, object{"object": "list", "model": "script", "data": []object{vector},
		"usage": object{"prompt_tokens": g.entry.InputTokens, "total_tokens": g.entry.InputTokens}})
}

func vectorOf(fields []string) []float64 {
	v := make([]float64, dimensions)
	for _, word := range fields {
		word = strings.ToLower(word)
		v[hash("w:"+word)%dimensions] += 0.5
		for _, c := range word {
			v[hash("c:"+string(c))%dimensions]++
		}
	}
	sum := 1e-9
	for _, x := range v {
		sum += x * x
	}
	for i := range v {
		v[i] = math.Round(v[i]/math.Sqrt(sum)*1e7) / 1e7
	}
	return v
}

// probability is a made-up one: a quarter for the token, half a step less for each other.
func probability(text string, top int) object {
	inBytes := []int{}
	for _, b := range []byte(text) {
		inBytes = append(inBytes, int(b))
	}
	tops := []object{}
	for i := range top {
		token := text
		if i > 0 {
			token = fmt.Sprintf(" alt%d", i)
		}
		tops = append(tops, object{"id": 7 + i, "token": token, "logprob": -0.25 - 0.5*float64(i)})
	}
	return object{"id": 7, "token": text, "bytes": inBytes, "logprob": -0.25, "top_logprobs": tops}
}
