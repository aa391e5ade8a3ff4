package gateway

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"neuronetz-gateway/caddy/internal/wordtable"
)

// TestPromptCounts: text, images, messages and tools are counted in the bodies of every API.
func TestPromptCounts(t *testing.T) {
	for _, c := range []struct {
		kind                           api
		body                           string
		bytes, images, messages, tools int
	}{
		{apiChat, `{"model":"m","options":{"a":"bcd"},"keep_alive":"5m"}`, 0, 0, 0, 0},
		{apiChat, `{"messages":[{"content":"abc"},{"content":"\u00e9"}]}`, 5, 0, 2, 0},
		{apiChat, `{"messages":[{"content":"a","images":["xxxx","yyyy"]}]}`, 1, 2, 1, 0},
		{apiChat, `{"messages":[{"Im\u0061ges":["xxxx"]}]}`, 0, 1, 1, 0},
		{apiChat, `{"messages":[{"tool_calls":[{"function":{"name":"f","arguments":{"images":["x"]}}}]}]}`, 8, 0, 1, 0},
		{apiChat, `{"tools":[{"type":"function"},{"a":"<"}]}`, 14, 0, 0, 2},
		{apiChat, `{"format":"json"}`, 4, 0, 0, 0},
		{apiGenerate, `{"prompt":"abc","system":"xy","suffix":"z"}`, 6, 0, 2, 0},
		{apiGenerate, `{"prompt":"","context":[1,2,3],"images":["x"]}`, 3, 1, 1, 0},
		{apiV1Chat, `{"messages":[{"content":[{"type":"text"},{"image_url":{"url":"data:xxxxxxxx"}}]}]}`, 4, 1, 1, 0},
		{apiMessages, `{"system":[{"text":"ab"}],"messages":[{"content":[{"source":{"data":"xxxx"}}]}]}`, 2, 1, 2, 0},
		{apiEmbed, `{"input":["ab","c"]}`, 3, 0, 2, 0},
		{apiChat, `{"messages":{"content":"abc"}}`, 3, 0, 0, 0},
		{apiChat, `{"messages":null,"tools":null,"images":null,"context":null,"system":null}`, 0, 0, 1, 0},
	} {
		q, problem := readRequest([]byte(c.body), c.kind)
		equal(t, "", problem, c.body)
		p := q.prompt
		want, got := []int{c.bytes, c.images, c.messages, c.tools}, []int{p.bytes, p.images, p.messages, p.tools}
		equalJSON(t, want, got, c.body)
	}
}

// places are bodies with X in each place where a client can write text that a model may read.
var places = []string{
	`{"messages":[{"role":"X","content":"a"}]}`, `{"messages":[{"content":"X"}]}`, `{"messages":["X"]}`,
	`{"messages":[{"X":1}]}`, `{"messages":[{"a":{"X":[]}}]}`, `{"messages":[{"thinking":"X"}]}`,
	`{"messages":[{"content":[{"type":"text","text":"X"}]}]}`, `{"messages":[{"content":[{"type":"X"}]}]}`,
	`{"messages":[{"content":[{"type":"tool_result","content":[{"text":"X"}]}]}]}`,
	`{"messages":[{"tool_name":"X"}]}`, `{"messages":[{"tool_call_id":"X"}]}`, `{"messages":{"content":"X"}}`,
	`{"messages":[{"tool_calls":[{"id":"X"}]}]}`, `{"messages":[{"tool_calls":[{"function":{"name":"X"}}]}]}`,
	`{"messages":[{"tool_calls":[{"function":{"arguments":{"a":"X"}}}]}]}`,
	`{"messages":[{"tool_calls":[{"function":{"arguments":{"X":1}}}]}]}`,
	`{"messages":[{"tool_calls":[{"function":{"arguments":"X"}}]}]}`,
	`{"messages":[{"tool_calls":[{"function":{"arguments":"{\"a\":[\"X\"]}"}}]}]}`,
	`{"messages":[{"content":[{"type":"tool_use","input":{"images":["X"]}}]}]}`,
	`{"tools":[{"function":{"name":"X"}}]}`, `{"tools":[{"function":{"parameters":{"properties":{"X":{}}}}}]}`,
	`{"tools":["X"]}`, `{"tools":"X"}`, `{"tools":{"X":1}}`, `{"format":{"a":"X"}}`, `{"format":"X"}`,
	`{"response_format":{"json_schema":{"X":1}}}`, `{"a_later_field":["X"]}`, `{"a_later_field":{"X":1}}`,
	`{"system":"X"}`, `{"system":[{"text":"X"}]}`, `{"instructions":"X"}`, `{"suffix":"X"}`, `{"template":"X"}`,
	`{"prompt":"X"}`, `{"prompt":["X"]}`, `{"input":"X"}`, `{"input":[{"role":"user","content":"X"}]}`,
	`{"input":[{"type":"function_call","arguments":"X"}]}`, `{"input":[{"type":"function_call_output","output":"X"}]}`,
	`{"input":[{"type":"reasoning","summary":[{"text":"X"}]}]}`,
}

// boundsOf reads a body, for models with these tables, without the check of its kinds.
func boundsOf(t *testing.T, body string, kind api, models ...modelTable) map[string]int64 {
	t.Helper()
	q := request{body: []byte(body)}
	equal(t, "", q.scan(), body)
	return countPrompt(q.body, q.members, kind, models).bounds
}

// TestEveryByteCounts: wherever a text stands, each byte of it raises the bound by a token, and
// in the system's twice; a text of words that are known raises it by a token each.
func TestEveryByteCounts(t *testing.T) {
	const words = 500
	model := modelTable{testTable(t), "d"}
	for _, place := range places {
		for _, kind := range []api{apiChat, apiGenerate, apiV1Chat, apiResponses, apiMessages, apiEmbed} {
			short := boundsOf(t, strings.ReplaceAll(place, "X", ""), kind, model)
			long := boundsOf(t, strings.ReplaceAll(place, "X", strings.Repeat(" hello", words)), kind, model)
			if more := long["bytes"] - short["bytes"]; more < 6*words {
				t.Errorf("%s: %d bytes of words cost %d tokens", place, 6*words, more)
			}
			if more := long["d"] - short["d"]; more < words || more > 2*words+64 {
				t.Errorf("%s: %d words cost %d tokens", place, words, more)
			}
		}
	}
}

// TestSystemCountsTwice: in every spelling of its role or field.
func TestSystemCountsTwice(t *testing.T) {
	text := strings.Repeat("a", 1000)
	for _, place := range []string{
		`{"system":"X"}`, `{"instructions":"X"}`, `{"messages":[{"role":"system","content":"X"}]}`,
		`{"messages":[{"content":"X","role":"SYSTEM"}]}`, `{"messages":[{"r\u006fle":"developer","content":"X"}]}`,
		`{"input":[{"Role":"syst\u0065m","content":[{"text":"X"}]}]}`,
	} {
		if got := boundsOf(t, strings.ReplaceAll(place, "X", text), apiResponses)["bytes"]; got < 2000 {
			t.Errorf("%s: %d", place, got)
		}
	}
}

// TestExpansions: what Ollama writes with more bytes than the client counts with as many.
func TestExpansions(t *testing.T) {
	numbers := "[" + strings.Repeat("1e20,", 999) + "1e20]"
	escaped, err := json.Marshal(numbers)
	must(t, err)
	for _, c := range []struct {
		place, text string
		least       int64
	}{
		{`{"tools":[{"a":X}]}`, numbers, 21_000},
		{`{"messages":[{"tool_calls":[{"function":{"arguments":X}}]}]}`, numbers, 21_000},
		{`{"messages":[{"tool_calls":[{"function":{"arguments":X}}]}]}`, string(escaped), 21_000},
		{`{"messages":[{"tool_calls":[{"function":{"arguments":X}}]}]}`, `"` + strings.Repeat("<", 1000) + `"`, 6000},
		{`{"tools":[{"description":X}]}`, `"` + strings.Repeat("<&>", 1000) + `"`, 18_000},
		{`{"tools":[{"description":X}]}`, `"` + strings.Repeat(`\u2028`, 1000) + `"`, 6000},
		{`{"tools":[{"description":X}]}`, `"` + strings.Repeat(`\u0001`, 1000) + `"`, 6000},
		{`{"tools":X}`, "[" + strings.Repeat("{},", 999) + "{}]", 53_000},
		{`{"messages":X}`, "[" + strings.Repeat("{},", 999) + "{}]", 30_000},
		{`{"messages":[{"tool_calls":X}]}`, "[" + strings.Repeat("{},", 999) + "{}]", 30_000},
		{`{"context":X}`, "[" + strings.Repeat("1,", 999) + "1]", 1000},
		{`{"prompt":X}`, `"` + strings.Repeat("漢", 1000) + `"`, 18_000},
	} {
		if got := boundsOf(t, strings.ReplaceAll(c.place, "X", c.text), apiChat)["bytes"]; got < c.least {
			t.Errorf("%s with %.20s: want at least %d, got %d", c.place, c.text, c.least, got)
		}
	}
}

// TestModelsFraming: what a model's own template adds is part of its bound.
func TestModelsFraming(t *testing.T) {
	table := testTable(t)
	plain := boundsOf(t, `{"messages":[{},{}],"tools":[{}]}`, apiChat, modelTable{table, "d"})["d"]
	table.Framing = wordtable.Framing{Base: 100, Tools: 10, PerMessage: objectTokens + 1, SystemText: 1}
	framed := boundsOf(t, `{"messages":[{},{}],"tools":[{}]}`, apiChat, modelTable{table, "d"})["d"]
	equal(t, plain+100+10+2, framed, "framing")
}

// TestImagesBound: an image costs what the model's projector can make of it; a model of which that
// is unknown has no bound of its own.
func TestImagesBound(t *testing.T) {
	table := testTable(t)
	bound := func(images string) map[string]int64 {
		return boundsOf(t, `{"prompt":"","images":[`+images+`]}`, apiGenerate, modelTable{table, "d"})
	}
	if got, isThere := bound(`"x"`)["d"]; isThere {
		t.Errorf("an image of an unknown projector has the bound %d", got)
	}
	table.Framing.Image = 300
	equal(t, bound("")["d"]+600, bound(`"x","y"`)["d"], "two images")
}

// TestTightForWords: a chat of twenty words is near what it is.
func TestTightForWords(t *testing.T) {
	body := `{"messages":[{"role":"user","content":"` + strings.Repeat("hello ", 20) + `"}]}`
	if got := boundsOf(t, body, apiChat, modelTable{testTable(t), "d"})["d"]; got > 20+150 {
		t.Errorf("twenty words have the bound %d", got)
	}
}

// testTable is a table of all bytes and the words "hello" and " hello".
func testTable(t testing.TB) *wordtable.Table {
	t.Helper()
	table, err := wordtable.Build(testShow(t))
	must(t, err)
	return table
}

// testShow is what a backend says of a model with that vocabulary.
func testShow(t testing.TB) *wordtable.Show {
	t.Helper()
	v := wordtable.Vocabulary{Kind: "gpt2", Merges: []string{"h e", "l l", "he ll", "hell o", "Ġ hello"}}
	for _, merge := range v.Merges {
		v.Tokens = append(v.Tokens, strings.ReplaceAll(merge, " ", ""))
	}
	next := rune(256)
	for b := range rune(256) {
		if b < '!' || b > '~' && b < 0xa1 || b == 0xad {
			b, next = next, next+1
		}
		v.Tokens = append(v.Tokens, string(b))
	}
	return &wordtable.Show{Vocabulary: v}
}

// TestCanonicalModel: the names of the index are found by every spelling that Ollama takes.
func TestCanonicalModel(t *testing.T) {
	for name, want := range map[string]string{
		"toy": "toy:latest", "TOY:Latest": "toy:latest", "library/toy": "toy:latest", "a/toy:1b": "a/toy:1b",
		"registry.ollama.ai/library/toy": "toy:latest", "https://hf.co/a/b:q4": "hf.co/a/b:q4",
		"host:80/a/b": "host:80/a/b:latest", "": ":latest", "toy:": "toy:latest",
	} {
		equal(t, want, canonicalModel(name), fmt.Sprintf("%q", name))
	}
}
