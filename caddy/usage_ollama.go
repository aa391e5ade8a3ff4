package gateway

import (
	"fmt"
	"time"

	"neuronetz-gateway/caddy/internal/jsonstream"
)

// ollamaShape reads /api/chat, /api/generate, /api/embed and /api/embeddings: one object
// per line or in all, and the counts in the one that is done. Counts of 0 are left out.
//
//	{"model":"m","message":{"role":"assistant","content":"Hi"},"done":false}
//	{"model":"m","message":{"content":""},"done":true,"done_reason":"stop",
//	 "prompt_eval_count":6,"eval_count":2,"load_duration":1,"eval_duration":2}
//
// An error in the middle of a stream is {"error":"..."}, and the last line. Answers of the
// two embedding routes have no done; prompt_eval_count is the only count that they report, if any.
var ollamaShape = shape{leaf: ollamaLeaf, end: ollamaEnd, final: ollamaFinal}

// ollamaLeaf takes a scalar: at the top, or of the message of /api/chat.
func ollamaLeaf(u *usage, path *jsonstream.Path, depth int, v jsonstream.Leaf) {
	if depth == 1 {
		ollamaField(u, path[0], v)
		return
	}
	f := &u.frame
	switch path[0] {
	case wMessage:
		switch {
		case depth == 2 && (path[1] == wContent || path[1] == wThinking):
			f.text += v.TextSize()
		case path[1] == wToolCalls && path[3] == wFunction:
			f.tool += v.TextSize()
		}
	case wError:
		f.isError = true
	}
}

// ollamaField takes a scalar at the top.
func ollamaField(u *usage, name jsonstream.Word, v jsonstream.Leaf) {
	f := &u.frame
	switch name {
	case wResponse, wThinking:
		f.text += v.TextSize()
	case wDone:
		f.isDone = string(v.Text) == "true"
	case wPromptEvalCount:
		f.input = number(v)
	case wEvalCount:
		f.output = number(v)
	case wPromptCached:
		f.cached = number(v)
	case wLoadDuration:
		u.load = number(v)
	case wPromptEvalDuration:
		u.promptEval = number(v)
	case wEvalDuration:
		u.eval = number(v)
	case wError:
		f.isError = v.IsPresent()
	case wModel:
		keepText(&u.model, v)
	}
}

// ollamaEnd takes what a line or a single answer means. One that is done and leaves a count
// out reports 0.
func ollamaEnd(u *usage) {
	f := &u.frame
	if u.api == apiEmbed || u.api == apiEmbeddings {
		u.terminal = !f.isError
		if f.input.known {
			u.input, u.output = f.input, count{0, true}
		}
		return
	}
	if !f.isDone {
		return
	}
	f.input.known, f.output.known = true, true
	u.report()
	u.finish()
}

// ollamaFinal returns the line that ends a stream of /api/chat or /api/generate.
func ollamaFinal(u *usage, isCap bool, now time.Time) []byte {
	content := `"response":""`
	if u.api == apiChat {
		content = `"message":{"role":"assistant","content":""}`
	}
	return fmt.Appendf(nil,
		`{"model":"%s","created_at":"%s",%s,"done":true,"done_reason":"%s","eval_count":%d}`+"\n",
		u.model, now.UTC().Format(time.RFC3339Nano), content, stopReason(isCap), u.deltas)
}

// stopReason returns why a stream that we cancel has ended, as Ollama and OpenAI spell it.
func stopReason(isCap bool) string {
	if isCap {
		return "length"
	}
	return "stop"
}
