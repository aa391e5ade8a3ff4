package gateway

import (
	"bytes"
	"fmt"
	"time"

	"neuronetz-gateway/caddy/internal/jsonstream"
)

// openaiShape reads /v1/chat/completions, /v1/completions and /v1/embeddings. A stream
// reports its usage in a chunk without choices; on /v1/completions every other chunk then
// reports zeros. It is whole with [DONE], a single answer with a finish reason.
//
//	data: {"id":"chatcmpl-1","model":"m","choices":[{"index":0,"delta":{"content":"Hi"}}]}
//	data: {"id":"chatcmpl-1","model":"m","choices":[{"delta":{},"finish_reason":"stop"}]}
//	data: {"id":"chatcmpl-1","model":"m","choices":[],"usage":{"prompt_tokens":6,...}}
//	data: [DONE]
var openaiShape = shape{leaf: openaiLeaf, end: openaiEnd, final: openaiFinal}

// openaiLeaf takes a scalar of a chunk or of a single answer.
func openaiLeaf(u *usage, path *jsonstream.Path, depth int, v jsonstream.Leaf) {
	f := &u.frame
	switch path[0] {
	case wChoices:
		f.hasChoice = true
		openaiChoice(u, path, depth, v)
	case wUsage:
		openaiUsage(f, path, depth, v)
	case wError:
		f.isError = f.isError || v.IsPresent()
	case wID:
		keepText(&u.id, v)
	case wModel:
		f.hasModel = v.IsPresent()
		if f.hasModel {
			keepText(&u.model, v)
		}
	}
}

// openaiChoice takes the finish reason, or counts content: text, tool calls, reasoning.
func openaiChoice(u *usage, path *jsonstream.Path, depth int, v jsonstream.Leaf) {
	f := &u.frame
	switch {
	case depth == 3 && path[2] == wFinishReason:
		f.isDone = v.IsPresent()
	case depth == 3 && path[2] == wText:
		f.text += v.TextSize()
	case depth == 4 && path[3] != wRole && (path[2] == wDelta || path[2] == wMessage):
		f.text += v.TextSize()
	case depth > 6 && path[3] == wToolCalls && path[5] == wFunction:
		f.tool += v.TextSize()
	}
}

// openaiUsage takes a count of the usage.
func openaiUsage(f *frame, path *jsonstream.Path, depth int, v jsonstream.Leaf) {
	f.hasUsage = true
	switch {
	case depth == 2 && path[1] == wPromptTokens:
		f.input = number(v)
	case depth == 2 && path[1] == wCompletionTokens:
		f.output = number(v)
	case depth == 3 && path[1] == wPromptDetails && path[2] == wCachedTokens:
		f.cached = number(v)
	}
}

// openaiEnd takes what a chunk or a single answer means. Zeros in a chunk with choices are
// no report.
func openaiEnd(u *usage) {
	f := &u.frame
	if u.api == apiV1Embeddings {
		u.terminal = !f.isError
		if f.input.known {
			u.input, u.output = f.input, count{0, true}
		}
		return
	}
	if u.isStream {
		// An error in the middle of a stream arrives as a chunk without a model.
		u.isError = u.isError || !f.hasModel
		u.hasFinishFrame = u.hasFinishFrame || f.isDone
	}
	isLast := !f.hasChoice || !u.isStream && f.isDone
	if f.hasUsage && (isLast || f.input.n+f.output.n > 0) {
		u.report()
	}
	if !u.isStream && f.isDone {
		u.finish()
	}
}

// isUsageChunk reports whether the last frame was the extra one that only carries usage: a
// client that did not ask for it must not see it.
func (u *usage) isUsageChunk() bool {
	return u.frame.hasUsage && !u.frame.hasChoice
}

// openaiFinal returns a last chunk with a finish reason, if there was none, and the end.
func openaiFinal(u *usage, isCap bool, now time.Time) []byte {
	if u.hasFinishFrame {
		return []byte("data: [DONE]\n\n")
	}
	object, choice := "chat.completion.chunk", `"delta":{}`
	if u.api == apiV1Completions {
		object, choice = "text_completion", `"text":""`
	}
	return fmt.Appendf(nil, `data: {"id":"%s","object":"%s","created":%d,"model":"%s",`+
		`"choices":[{"index":0,%s,"finish_reason":"%s"}]}`+"\n\ndata: [DONE]\n\n",
		u.id, object, now.Unix(), u.model, choice, stopReason(isCap))
}

// withoutUsage returns an event without the usage member of its data, and with every other
// byte: what a client sees is what the backend would have sent it unasked.
func withoutUsage(event []byte) []byte {
	start := bytes.IndexByte(event, '{')
	if start < 0 {
		return event
	}
	var room [16]jsonstream.Member
	members, _, err := jsonstream.AppendMembers(room[:0], event, start, 0)
	if err != nil {
		return event
	}
	for i, m := range members {
		if string(m.Name) != "usage" {
			continue
		}
		from, to := m.Start, m.End
		switch {
		case i > 0:
			from = members[i-1].End
		case len(members) > 1:
			to = members[1].Start
		}
		return append(append(make([]byte, 0, len(event)), event[:from]...), event[to:]...)
	}
	return event
}
