package gateway

import (
	"net/http/httptest"
	"testing"
)

// TestToolCallsAreNotText: a tool call counts apart from text, in the frames of every API.
func TestToolCallsAreNotText(t *testing.T) {
	for name, c := range map[string]struct {
		api   api
		frame string
	}{
		"native": {apiChat, `{"message":{"role":"assistant","content":"","tool_calls":[{"function":` +
			`{"name":"add","arguments":{"z":"four"}}}]},"done":false}`},
		"OpenAI": {apiV1Chat, `{"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"",` +
			`"tool_calls":[{"id":"call_1","index":0,"type":"function","function":` +
			`{"name":"add","arguments":"four"}}]}}]}`},
		"Responses, arguments": {apiResponses, `{"type":"response.function_call_arguments.delta","delta":"addfour"}`},
		"Responses, name": {apiResponses, `{"type":"response.output_item.added","item":` +
			`{"type":"function_call","name":"addfour","arguments":""}}`},
		"Messages, arguments": {apiMessages, `{"type":"content_block_delta","index":0,` +
			`"delta":{"type":"input_json_delta","partial_json":"addfour"}}`},
		"Messages, name": {apiMessages, `{"type":"content_block_start","index":0,` +
			`"content_block":{"type":"tool_use","id":"call_1","name":"addfour","input":{}}}`},
	} {
		u := newUsage(c.api, true)
		u.readLine([]byte(c.frame))
		equal(t, content{0, 0, int64(len("addfour"))}, content{u.deltas, u.textBytes, u.toolBytes}, name)
	}
}

// TestArguments: of a tool call its strings count; numbers, booleans and null add nothing,
// whatever name stands before them.
func TestArguments(t *testing.T) {
	u := newUsage(apiChat, true)
	u.readLine([]byte(`{"message":{"tool_calls":[{"function":{"name":"add",` +
		`"arguments":{"a_name_of_twenty_letters":1,"x":true,"y":null,"z":"four"}}}]},"done":false}`))
	equal(t, int64(len("add")+len("four")), u.toolBytes, "bytes")
}

// TestReasoningIsText: what a model thinks counts as what it says.
func TestReasoningIsText(t *testing.T) {
	for kind, frame := range map[api]string{
		apiChat:      `{"message":{"role":"assistant","content":"","thinking":"four"},"done":false}`,
		apiGenerate:  `{"response":"","thinking":"four","done":false}`,
		apiV1Chat:    `{"model":"m","choices":[{"delta":{"content":"","reasoning":"four"}}]}`,
		apiResponses: `{"type":"response.reasoning_summary_text.delta","delta":"four"}`,
		apiMessages:  `{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"four"}}`,
	} {
		u := newUsage(kind, true)
		u.readLine([]byte(frame))
		equal(t, content{1, 4, 0}, content{u.deltas, u.textBytes, u.toolBytes}, frame)
	}
}

// TestUnreadableFramesAreText: a frame that is no JSON is counted by its bytes.
func TestUnreadableFramesAreText(t *testing.T) {
	for _, frame := range []string{`{"response":"a` + "\n", "plain words", `"words"`} {
		u := newUsage(apiGenerate, true)
		u.readLine([]byte(frame))
		equal(t, content{1, int64(len(frame)), 0}, content{u.deltas, u.textBytes, u.toolBytes}, frame)
	}
	u := newUsage(apiGenerate, true)
	u.readLine([]byte("\n"))
	equal(t, content{}, content{u.deltas, u.textBytes, u.toolBytes}, "a blank line")
}

// TestEvents: every way to write a server-sent event gives the same usage, in any pieces.
func TestEvents(t *testing.T) {
	const first, second = `{"model":"m",`, `"choices":[{"delta":{"content":"four"}}]}`
	for name, stream := range map[string]string{
		"LF":               "data: " + first + second + "\n\ndata: [DONE]\n\n",
		"CR and LF":        "data: " + first + second + "\r\n\r\ndata: [DONE]\r\n\r\n",
		"CR":               "data: " + first + second + "\r\rdata: [DONE]\r\r",
		"no space":         "data:" + first + second + "\n\ndata:[DONE]\n\n",
		"named":            "event: chunk\nid: 1\ndata: " + first + second + "\n\ndata: [DONE]\n\n",
		"comments":         ": ping\n\ndata: " + first + second + "\n: ping\n\ndata: [DONE]\n\n",
		"several lines":    "data: " + first + "\ndata: " + second + "\n\ndata: [DONE]\n\n",
		"lines of CR, LF":  "data: " + first + "\r\ndata: " + second + "\r\n\r\ndata: [DONE]\r\n\r\n",
		"no end":           "data: " + first + second + "\n\ndata: [DONE]",
		"no end behind CR": "data: " + first + second + "\r\rdata: [DONE]\r",
	} {
		for size := 1; size <= len(stream); size++ {
			x := &exchange{
				route: route{api: apiV1Chat}, grant: &grant{}, request: request{stream: optional(true)},
			}
			out := httptest.NewRecorder()
			w := newTapWriter(t.Context(), out, x)
			w.Header().Set("Content-Type", "Text/Event-Stream ; charset=utf-8")
			w.WriteHeader(200)
			for rest := stream; rest != ""; {
				n := min(size, len(rest))
				_, err := w.Write([]byte(rest[:n]))
				must(t, err)
				rest = rest[n:]
			}
			must(t, w.finish(nil, nil))
			u := x.usage
			equal(t, content{1, 4, 0}, content{u.deltas, u.textBytes, u.toolBytes}, name)
			equal(t, true, u.terminal, name)
			equal(t, stream, out.Body.String(), name)
		}
	}
}

// TestErrorIsNoCompletion: a stream with an error in it has failed, whatever ends it.
func TestErrorIsNoCompletion(t *testing.T) {
	u := newUsage(apiV1Chat, true)
	u.readEvent([]byte("data: {\"error\":{\"message\":\"broken\"}}\n\n"))
	u.readEvent([]byte("data: [DONE]\n\n"))
	x := &exchange{usage: u, phase: phaseBackend, upstreamStatus: 200, status: 200}
	equal(t, outcomeUpstreamError, x.settle(true, false), "outcome")
}

// TestCacheCreationIsInput: what Anthropic's usage counts beside input_tokens is counted.
func TestCacheCreationIsInput(t *testing.T) {
	u := newUsage(apiMessages, false)
	u.feed([]byte(`{"stop_reason":"end_turn","usage":{"input_tokens":5,"cache_creation_input_tokens":30,` +
		`"cache_read_input_tokens":7,"output_tokens":2}}`))
	u.endSingle()
	equal(t, count{37, true}, u.cached, "cached")
}
