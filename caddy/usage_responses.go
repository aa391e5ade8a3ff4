package gateway

import (
	"bytes"
	"fmt"
	"time"

	"neuronetz-gateway/caddy/internal/jsonstream"
)

// eventKind is what an event of /v1/responses or /v1/messages is.
type eventKind uint8

const (
	eventOther      eventKind = iota
	eventDelta                // text; of Messages the stop reason and the usage
	eventCallDelta            // arguments of a call (Responses)
	eventDone                 // the whole response again (Responses)
	eventFailed               // an error
	eventItemBegun            // an item of the output, whose delta events follow (Responses)
	eventBegun                // message_start (Messages)
	eventBlockBegun           // content_block_start (Messages)
	eventBlockEnded           // content_block_stop (Messages)
	eventStop                 // message_stop, the last (Messages)
)

// responsesShape reads /v1/responses: typed events, of which response.completed repeats
// the whole response with its usage, or that response alone.
//
//	response.created            {"response":{"id":"resp_1","status":"in_progress"}}
//	response.output_text.delta  {"delta":"Hi","sequence_number":4}
//	response.completed          {"response":{"status":"completed","output":[...],
//	                             "usage":{"input_tokens":6,"output_tokens":2}}}
//
// response.incomplete is the end of one that reached its cap; response.failed and error are
// the end of one that did not get there. Only deltas are counted as content of a stream: the
// whole text comes once more in the events that end its parts.
var responsesShape = shape{leaf: responsesLeaf, end: responsesEnd, final: responsesFinal}

// responsesLeaf takes a scalar of an event, or of a response alone.
func responsesLeaf(u *usage, path *jsonstream.Path, depth int, v jsonstream.Leaf) {
	f := &u.frame
	if !u.isStream {
		responseField(u, path[:], depth, v)
		return
	}
	switch {
	case path[0] == wResponse && depth > 1:
		responseField(u, path[1:], depth-1, v)
	case path[0] == wItem && depth == 2 && path[1] == wName:
		f.name = v.TextSize()
	case depth != 1:
	case path[0] == wType:
		f.kind = responsesKind(v.Text)
	case path[0] == wDelta:
		f.delta += v.TextSize()
	case path[0] == wSequence:
		u.sequence = number(v).n
	}
}

// responsesKind returns what an event is, by its type.
func responsesKind(name []byte) eventKind {
	switch string(name) {
	case "response.completed", "response.incomplete":
		return eventDone
	case "response.failed", "error":
		return eventFailed
	case "response.output_item.added":
		return eventItemBegun
	case "response.function_call_arguments.delta":
		return eventCallDelta
	}
	if bytes.HasSuffix(name, []byte(".delta")) {
		return eventDelta
	}
	return eventOther
}

// responseField reads a leaf of the response object.
func responseField(u *usage, path []jsonstream.Word, depth int, v jsonstream.Leaf) {
	f := &u.frame
	switch path[0] {
	case wUsage:
		responseUsage(f, path, depth, v)
	case wOutput:
		switch {
		case u.isStream: // it has been counted
		case depth == 5 && path[4] == wText:
			f.text += v.TextSize()
		case depth == 3 && (path[2] == wArguments || path[2] == wName):
			f.tool += v.TextSize()
		}
	case wError:
		f.isError = f.isError || v.IsPresent()
	case wStatus:
		f.isDone = string(v.Text) == "completed" || string(v.Text) == "incomplete"
	case wID:
		keepText(&u.id, v)
	case wModel:
		keepText(&u.model, v)
	}
}

// responseUsage takes a count of the usage.
func responseUsage(f *frame, path []jsonstream.Word, depth int, v jsonstream.Leaf) {
	switch {
	case depth == 2 && path[1] == wInputTokens:
		f.input, f.hasUsage = number(v), true
	case depth == 2 && path[1] == wOutputTokens:
		f.output, f.hasUsage = number(v), true
	case depth == 3 && path[1] == wInputDetails && path[2] == wCachedTokens:
		f.cached = number(v)
	}
}

// responsesEnd takes what an event or a response alone means.
func responsesEnd(u *usage) {
	f := &u.frame
	if f.kind == eventFailed {
		u.isError = true
	}
	isLast := f.kind == eventDone || !u.isStream && f.isDone
	if !isLast {
		return
	}
	if f.hasUsage {
		u.report()
	}
	u.finish()
}

// responsesFinal returns the event that ends a response early.
func responsesFinal(u *usage, isCap bool, now time.Time) []byte {
	reason := "content_filter"
	if isCap {
		reason = "max_output_tokens"
	}
	return fmt.Appendf(nil, "event: response.incomplete\n"+
		`data: {"response":{"id":"%s","object":"response","created_at":%d,"model":"%s",`+
		`"status":"incomplete","error":null,"incomplete_details":{"reason":"%s"},`+
		`"instructions":null,"metadata":{},"output":[],"parallel_tool_calls":true,`+
		`"tool_choice":"auto","tools":[]},"sequence_number":%d,"type":"response.incomplete"}`+"\n\n",
		u.id, now.Unix(), u.model, reason, u.sequence+1)
}
