package gateway

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"neuronetz-gateway/caddy/internal/jsonstream"
)

// TestProblems: every body that Ollama could read in another way than we do is a problem.
func TestProblems(t *testing.T) {
	deep := strings.Repeat("[", jsonstream.MaxDepth) + strings.Repeat("]", jsonstream.MaxDepth)
	for body, want := range map[string]problem{
		`{"model":"a"}`:                   "",
		` {"model" : "a" } `:              "",
		`{"model":null}`:                  "",
		``:                                problemNotJSON,
		`[]`:                              problemNotJSON,
		`"model"`:                         problemNotJSON,
		`{"model":"a"`:                    problemNotJSON,
		`{"model":"a"}{"model":"b"}`:      problemNotJSON,
		`{"model":"a"} x`:                 problemNotJSON,
		"\ufeff" + `{"model":"a"}`:        problemNotJSON,
		"{\"model\":\"\xff\"}":            problemNotJSON,
		`{"x":` + deep + `}`:              problemTooDeep,
		`{"model":"a","model":"b"}`:       problemDuplicate,
		`{"model":"a","MODEL":"b"}`:       problemDuplicate,
		`{"stream":true,"ſtream":false}`:  problemDuplicate,
		`{"x":1,"X":2}`:                   problemDuplicate,
		`{"Model":"a"}`:                   problemField,
		`{"\u006dodel":"a"}`:              problemField,
		`{"ſtream":true}`:                 problemField,
		`{"` + "\u212a" + `eep_alive":0}`: problemField,
		`{"model":1}`:                     problemField,
		`{"model":"` + strings.Repeat("m", 257) + `"}`:       problemField,
		`{"model":"` + strings.Repeat("m", 256) + `"}`:       "",
		`{"` + strings.Repeat("n", 257) + `":1}`:             problemField,
		`{"options":{"` + strings.Repeat("n", 257) + `":1}}`: problemField,
		`{"` + strings.Repeat("n", 256) + `":1}`:             "",
		`{"stream":"yes"}`:                                   problemField,
		`{"stream":null}`:                                    "",
		`{"options":[]}`:                                     problemField,
		`{"options":null}`:                                   "",
		`{"options":{"num_ctx":1,"num_ctx":2}}`:              problemDuplicate,
		`{"options":{"num_ctx":1,"NUM_CTX":2}}`:              problemDuplicate,
		`{"options":{"Num_Predict":2}}`:                      problemField,
		`{"options":{"num_predict":"5"}}`:                    problemField,
		`{"options":{"num_predict":5.5}}`:                    "",
		`{"messages":[{"role":"user","role":"tool"}]}`:       "", // not ours to judge
	} {
		_, problem := readRequest([]byte(body), apiChat)
		equal(t, want, problem, body)
	}
	members := make([]string, maxMembers+1)
	for i := range members {
		members[i] = fmt.Sprintf(`"f%d":1`, i)
	}
	_, problem := readRequest([]byte("{"+strings.Join(members, ",")+"}"), apiChat)
	equal(t, problemField, problem, "too many members")
}

// TestFoldedNames: two names fold to the same exactly where encoding/json takes them for one.
func TestFoldedNames(t *testing.T) {
	runes := []rune{'k', 'K', '\u212a', 's', 'S', 'ſ', 'σ', 'ς', 'Σ', 'ß', 'ẞ', 'i', 'İ', 'ı', '1', '_'}
	for _, one := range runes {
		for _, other := range runes {
			a, b := []byte("x"+string(one)), []byte("x"+string(other))
			equal(t, bytes.EqualFold(a, b), foldName(a) == foldName(b), string(a)+" and "+string(b))
		}
	}
}

// TestCaps: the cap of a request is the smallest that its client gave, and absurd ones are
// none, or refused as the dialect would.
func TestCaps(t *testing.T) {
	const none = -1
	for _, c := range []struct {
		kind    api
		body    string
		want    int64
		problem problem
	}{
		{apiChat, `{}`, none, ""},
		{apiChat, `{"options":{"num_predict":5}}`, 5, ""},
		{apiChat, `{"options":{"num_predict":5.9}}`, 5, ""},
		{apiChat, `{"options":{"num_predict":-1}}`, none, ""},
		{apiChat, `{"options":{"num_predict":-2}}`, none, ""},
		{apiChat, `{"options":{"num_predict":0}}`, none, ""},
		{apiChat, `{"options":{"num_predict":null}}`, none, ""},
		{apiChat, `{"options":{"num_predict":1e12}}`, 1e12, ""},
		{apiChat, `{"options":{"num_predict":1e300}}`, greatestCount, ""},
		{apiChat, `{"max_tokens":5}`, none, ""},
		{apiV1Chat, `{"max_tokens":5}`, 5, ""},
		{apiV1Chat, `{"max_completion_tokens":7}`, 7, ""},
		{apiV1Chat, `{"max_completion_tokens":7,"max_tokens":9}`, 7, ""},
		{apiV1Chat, `{"max_completion_tokens":null,"max_tokens":9}`, 9, ""},
		{apiV1Chat, `{"max_tokens":1.5}`, none, problemField},
		{apiV1Chat, `{"max_tokens":"5"}`, none, problemField},
		{apiV1Chat, `{"max_tokens":1000000000000}`, 1e12, ""},
		{apiV1Completions, `{"max_tokens":3,"max_completion_tokens":1}`, 3, ""},
		{apiResponses, `{"max_output_tokens":3,"max_tokens":1}`, 3, ""},
		{apiMessages, `{"max_tokens":-1}`, none, ""},
		{apiEmbed, `{"options":{"num_predict":5}}`, none, ""},
	} {
		q, problem := readRequest([]byte(c.body), c.kind)
		equal(t, c.problem, problem, c.body)
		got := int64(none)
		if q.maxOutput != nil {
			got = *q.maxOutput
		}
		equal(t, c.want, got, c.body)
	}
}

// TestStream: a native answer streams unless it asks not to, the others when they ask for it.
func TestStream(t *testing.T) {
	for _, c := range []struct {
		kind api
		body string
		want bool
	}{
		{apiChat, `{}`, true},
		{apiGenerate, `{"stream":null}`, true},
		{apiChat, `{"stream":false}`, false},
		{apiV1Chat, `{}`, false},
		{apiV1Chat, `{"stream":true}`, true},
		{apiMessages, `{}`, false},
		{apiEmbed, `{}`, false},
		{apiV1Embeddings, `{"stream":true}`, false},
		{apiResponses, `{"stream":null}`, false},
	} {
		q, _ := readRequest([]byte(c.body), c.kind)
		equal(t, c.want, *q.stream, c.body)
	}
}

// TestEdits: the Grant is applied, and everything else keeps its bytes.
func TestEdits(t *testing.T) {
	for _, c := range []struct {
		kind      api
		body      string
		maxOutput int64
		drop      []string
		want      string
	}{
		{apiChat, ` {"model": "m" , "x":[1, 2]} `, 0, nil, ` {"model": "m" , "x":[1, 2]} `},
		{apiChat, `{"model": "m", "keep_alive":-1, "x":1e400}`, 0, []string{"keep_alive"}, `{"model": "m","x":1e400}`},
		{apiChat, `{"keep_alive":-1}`, 0, []string{"keep_alive", "shift"}, `{}`},
		{apiChat, `{"model":"m"}`, 7, nil, `{"model":"m","options":{"num_predict":7}}`},
		{apiChat, `{"model":"m","options":null}`, 7, nil, `{"model":"m","options":{"num_predict":7}}`},
		{apiChat, `{"options":{"num_predict": 9, "seed":1}}`, 7, nil, `{"options":{"num_predict": 7,"seed":1}}`},
		{apiChat, `{"options":{"num_predict": 5, "seed":1}}`, 7, nil, `{"options":{"num_predict": 5, "seed":1}}`},
		{apiChat, `{"options":{"num_predict":-1}}`, 7, nil, `{"options":{"num_predict":7}}`},
		{apiChat, `{"options":{"num_ctx":1,"seed":2}}`, 0, []string{"options.num_ctx"}, `{"options":{"seed":2}}`},
		{apiChat, `{"options":{"NUM_CTX":1}}`, 0, []string{"options.num_ctx"}, `{"options":{}}`},
		{apiChat, `{"model":"m"}`, 0, []string{"options.num_ctx"}, `{"model":"m"}`},
		{apiChat, `{"options":{"num_predict":9}}`, 7, []string{"options.num_predict"}, `{"options":{"num_predict":7}}`},
		{apiChat, `{"Shift":1}`, 0, []string{"shift"}, `{}`},
		{apiV1Chat, `{"model":"m"}`, 7, nil, `{"model":"m","max_tokens":7}`},
		{apiV1Chat, `{"max_completion_tokens":5}`, 0, nil, `{"max_completion_tokens":5,"max_tokens":5}`},
		{apiV1Chat, `{"max_tokens":9}`, 7, nil, `{"max_tokens":7}`},
		{apiV1Chat, `{"stream":true}`, 0, nil, `{"stream":true,"stream_options":{"include_usage":true}}`},
		{apiV1Chat, `{"stream":true,"stream_options":null}`, 0, nil, `{"stream":true,"stream_options":{"include_usage":true}}`},
		{
			apiV1Chat, `{"stream":true,"stream_options":{"a":1,"include_usage": false}}`, 0, nil,
			`{"stream":true,"stream_options":{"a":1,"include_usage": true}}`,
		},
		{
			apiV1Chat, `{"stream":true, "stream_options":{"include_usage": true}}`, 0, nil,
			`{"stream":true, "stream_options":{"include_usage": true}}`,
		},
		{apiV1Chat, `{"stream":false}`, 0, nil, `{"stream":false}`},
		{apiV1Completions, `{"stream":true}`, 3, nil, `{"stream":true,"max_tokens":3,"stream_options":{"include_usage":true}}`},
		{apiResponses, `{"stream":true}`, 3, nil, `{"stream":true,"max_output_tokens":3}`},
		{apiMessages, `{"max_tokens":1}`, 3, nil, `{"max_tokens":1}`},
		{apiEmbed, `{"input":"x"}`, 3, nil, `{"input":"x"}`},
	} {
		q, problem := readRequest([]byte(c.body), c.kind)
		equal(t, "", problem, c.body)
		g := &grant{MaxOutput: optional(c.maxOutput), Drop: c.drop}
		equal(t, c.want, string(q.edited(g, c.kind)), c.body)
	}
}

// requestSeeds are valid and broken bodies, as seeds of the fuzzer.
var requestSeeds = []string{
	`{}`, `[]`, `{"a":1}`, ` { "a" : [ 1 , 2 ] , "b" : { "c" : null } } `, `{"a":1,}`, `{"a":"\u0000"}`,
	"{\"a\":\"\xff\"}", `{"a":1.0E-2,"b":-1}`, `{"a":[{"b":[{}]}]}`, `{"model":"x","Model":"y"}`,
	`{"ſtream":true}`, `{"usage":{"input_tokens":1}}`, `{"stream":true,"stream_options":{"include_usage":false}}`,
	`{"model":"x","options":{"num_predict":3.5,"num_ctx":1},"keep_alive":-1}`, `{"max_tokens":9,"prompt":["a","b"]}`,
}

func FuzzRequest(f *testing.F) {
	for _, text := range requestSeeds {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"messages":[{"role":"system","content":[{"type":"text","text":"a"}]}],"tools":[1],"input":{"a":"b"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		limit := int64(5)
		for _, kind := range []api{apiChat, apiV1Chat, apiMessages} {
			q, problem := readRequest(text, kind)
			if problem != "" {
				continue
			}
			edited := q.edited(&grant{MaxOutput: &limit, Drop: []string{"keep_alive", "options.num_ctx"}}, kind)
			if _, problem := readRequest(edited, kind); problem != "" {
				t.Errorf("%q became %q: %s", text, edited, problem)
			}
		}
	})
}
