package gateway

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestGoldenKinds: the contract lists the kinds that we let through, and no others.
func TestGoldenKinds(t *testing.T) {
	t.Parallel()

	var want struct {
		Allowed map[string]map[string][]string `json:"allowed"`
	}
	must(t, json.Unmarshal([]byte(golden(t, "kinds")), &want))
	have := map[string]map[string][]string{}
	names := map[api]string{
		apiChat: "chat", apiV1Chat: "v1_chat", apiResponses: "responses", apiMessages: "messages",
	}
	for kind, allowed := range allowedKinds {
		lists := map[string][]string{
			"items": allowed.items, "parts": allowed.parts, "tools": allowed.tools,
			"roles": allowed.roles, "formats": allowed.formats,
		}
		maps.DeleteFunc(lists, func(_ string, list []string) bool { return list == nil })
		have[names[kind]] = lists
		for name, list := range lists {
			equal(t, true, slices.IsSorted(list), name)
		}
	}
	equalJSON(t, want.Allowed, have, "kinds")
}

// TestKinds: a kind that is not in the table is a problem, wherever and however it is written.
func TestKinds(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		kind api
		body string
		want string
	}{
		{apiResponses, `{"input":"hello"}`, ""},
		{apiResponses, `{"input":[{"role":"user","content":"x"}]}`, ""},
		{apiResponses, `{"input":[{"type":null,"role":"USER","content":[{"type":"input_text"}]}]}`, ""},
		{apiResponses, `{"input":[{"type":"message"},{"type":"compaction_trigger"}]}`, placeItem},
		{apiResponses, `{"input":[{"type":"compaction","encrypted_content":"x"}]}`, placeItem},
		{apiResponses, `{"input":[{"type":"web_search_call"}]}`, placeItem},
		{apiResponses, `{"input":[{"type":"message","Type":"compaction_trigger"}]}`, placeItem},
		{apiResponses, `{"input":[{"\u0074ype":"compaction_trigger"}]}`, placeItem},
		{apiResponses, `{"input":[{"type":"compaction\u005ftrigger"}]}`, placeItem},
		{apiResponses, `{"input":[{"type":7}]}`, placeItem},
		{apiResponses, `{"input":[{"type":"function_call_output","output":[{"type":"video"}]}]}`, placePart},
		{apiResponses, `{"input":[{"type":"tool_search_output","tools":[{"type":"web_search"}]}]}`, placeTool},
		{apiResponses, `{"tools":[{"type":"namespace","tools":[{"type":"web_search"}]}]}`, placeTool},
		{apiResponses, `{"tools":[{"type":"function","parameters":{"type":"object"}}]}`, ""},
		{apiResponses, `{"text":{"format":{"type":"grammar"}}}`, placeFormat},
		{apiResponses, `{"Text":{"FORMAT":{"type":"grammar"}}}`, placeFormat},
		{apiMessages, `{"tools":[{"type":"web_search_20250305","name":"web_search"}]}`, placeTool},
		{apiMessages, `{"tools":[{"name":"f","input_schema":{"type":"object"}}]}`, ""},
		{apiMessages, `{"system":[{"type":"text","text":"s"}]}`, ""},
		{apiMessages, `{"messages":[{"role":"user","content":[{"type":"server_tool_use"}]}]}`, placePart},
		{
			apiMessages,
			`{"messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"x"}]}]}]}`,
			placePart,
		},
		{apiV1Chat, `{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, ""},
		{apiV1Chat, `{"response_format":{"type":"json_schema","json_schema":{"type":"x"}}}`, ""},
		{apiV1Chat, `{"response_format":{"type":"regex"}}`, placeFormat},
		{apiChat, `{"messages":[{"role":"System","content":"x"}],"format":"json"}`, ""},
		{apiChat, `{"messages":[{"role":"` + strings.Repeat("word ", 2000) + `"}]}`, placeRole},
		{apiChat, `{"messages":[{"role":"user","ROLE":"narrator"}]}`, placeRole},
		{apiGenerate, `{"prompt":"x","messages":[{"role":"anything"}]}`, ""},
	} {
		q, found := readRequest([]byte(c.body), c.kind)
		equal(t, c.want, q.field, c.body)
		equal(t, c.want != "", found == problemKind, c.body)
	}
}
