package gateway

import (
	"fmt"
	"time"

	"neuronetz-gateway/caddy/internal/jsonstream"
)

// messagesShape reads /v1/messages: typed events, of which message_delta has the usage and
// message_stop is the last, or one message. Its input excludes what was cached; the usage
// of message_start is an estimate, and is not read.
//
//	message_start        {"message":{"id":"msg_1","model":"m","usage":{...}}}
//	content_block_start  {"index":0,"content_block":{"type":"text","text":""}}
//	content_block_delta  {"index":0,"delta":{"type":"text_delta","text":"Hi"}}
//	content_block_stop   {"index":0}
//	message_delta        {"delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}
//	message_stop         {}
//
// An error in the middle of a stream is an event of type error, and the last.
var messagesShape = shape{leaf: messagesLeaf, end: messagesEnd, final: messagesFinal}

// messagesLeaf takes a scalar of an event or of a single message.
func messagesLeaf(u *usage, path *jsonstream.Path, depth int, v jsonstream.Leaf) {
	f := &u.frame
	switch path[0] {
	case wType:
		f.kind = messagesKind(v.Text)
	case wIndex:
		f.index = number(v).n
	case wDelta:
		switch {
		case depth == 2 && (path[1] == wText || path[1] == wThinking):
			f.text += v.TextSize()
		case depth == 2 && path[1] == wPartialJSON:
			f.tool += v.TextSize()
		}
	case wContentBlock: // that begins: of a call its name
		if depth == 2 && path[1] == wName {
			f.tool += v.TextSize()
		}
	case wUsage:
		messagesUsage(f, path, depth, v)
	case wContent: // of a single message: texts, thoughts, and the input of tools
		switch {
		case depth == 3 && (path[2] == wText || path[2] == wThinking):
			f.text += v.TextSize()
		case depth == 3 && path[2] == wName || depth > 3 && path[2] == wInput:
			f.tool += v.TextSize()
		}
	case wStopReason:
		f.isDone = v.IsPresent()
	case wMessage:
		messageStart(u, path, depth, v)
	case wError:
		f.isError = f.isError || v.IsPresent()
	}
}

// messagesKind returns what an event is, by its type.
func messagesKind(name []byte) eventKind {
	switch string(name) {
	case "message_start":
		return eventBegun
	case "content_block_start":
		return eventBlockBegun
	case "content_block_stop":
		return eventBlockEnded
	case "message_delta":
		return eventDelta
	case "message_stop":
		return eventStop
	case "error":
		return eventFailed
	}
	return eventOther
}

// messagesUsage takes a count of the usage.
func messagesUsage(f *frame, path *jsonstream.Path, depth int, v jsonstream.Leaf) {
	if depth != 2 {
		return
	}
	switch path[1] {
	case wInputTokens:
		f.input, f.hasUsage = number(v), true
	case wOutputTokens:
		f.output, f.hasUsage = number(v), true
	case wCacheRead, wCacheCreation: // both are input that input_tokens leaves out
		f.cached = count{f.cached.n + number(v).n, true}
	}
}

// messageStart takes what a last frame of ours repeats.
func messageStart(u *usage, path *jsonstream.Path, depth int, v jsonstream.Leaf) {
	switch {
	case depth == 2 && path[1] == wID:
		keepText(&u.id, v)
	case depth == 2 && path[1] == wModel:
		keepText(&u.model, v)
	}
}

// messagesEnd takes what an event or a single message means. A single one is whole if it has
// a stop reason; a stream only with message_stop.
func messagesEnd(u *usage) {
	f := &u.frame
	if !u.isStream {
		if f.isDone {
			u.report()
			u.finish()
		}
		return
	}
	switch f.kind {
	case eventBegun:
		u.hasBegun = true
	case eventBlockBegun:
		u.openBlock = count{f.index, true}
	case eventBlockEnded:
		u.openBlock = count{}
	case eventDelta:
		u.hasFinishFrame = true
		if f.hasUsage {
			u.report()
		}
	case eventStop:
		u.finish()
	case eventFailed:
		u.isError = true
	case eventOther, eventDone, eventCallDelta, eventItemBegun:
	}
}

// messagesFinal ends the block that is open, and the message. The SDKs of Anthropic raise if
// message_start never came, so a stream that is cancelled before it gets an empty one.
func messagesFinal(u *usage, isCap bool, _ time.Time) []byte {
	var out []byte
	if !u.hasBegun {
		out = fmt.Appendf(out, "event: message_start\ndata: {\"type\":\"message_start\","+
			`"message":{"id":"msg_0","type":"message","role":"assistant","model":"","content":[],`+
			`"usage":{"input_tokens":0,"output_tokens":0}}}`+"\n\n")
	}
	if u.openBlock.known {
		out = fmt.Appendf(out, "event: content_block_stop\n"+
			`data: {"type":"content_block_stop","index":%d}`+"\n\n", u.openBlock.n)
	}
	if !u.hasFinishFrame {
		reason := "end_turn"
		if isCap {
			reason = "max_tokens"
		}
		out = fmt.Appendf(out, "event: message_delta\ndata: {\"type\":\"message_delta\","+
			`"delta":{"stop_reason":"%s"},"usage":{"output_tokens":%d}}`+"\n\n", reason, u.deltas)
	}
	return fmt.Appendf(out, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
}
