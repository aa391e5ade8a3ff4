package gateway

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestAsked: what a body wants of the GPU, in every API, and null for what Ollama could not read.
func TestAsked(t *testing.T) {
	for _, c := range []struct {
		kind api
		body string
		want string
	}{
		{apiChat, `{}`, `{}`},
		{apiChat, `{"options":null,"keep_alive":null,"format":"json"}`, `{}`},
		{apiChat, `{"options":{"num_ctx":32768,"num_gpu":0,"stop":["a","b"]}}`, `{"num_ctx":32768,"num_gpu":0,"stop":2}`},
		{apiChat, `{"options":{"num_ctx":32768.5}}`, `{"num_ctx":32769}`},
		{apiChat, `{"options":{"num_ctx":1e400}}`, `{"num_ctx":1099511627776}`},
		{apiChat, `{"options":{"num_ctx":"4096","num_gpu":[1]}}`, `{}`},
		{apiChat, `{"options":{"num_ctx":-1,"num_gpu":-1}}`, `{}`},
		{apiChat, `{"options":{"NUM_CTX":9,"nested":{"num_ctx":9}},"num_ctx":9}`, `{}`},
		{apiChat, `{"keep_alive":"5m"}`, `{"keep_alive_s":300}`},
		{apiChat, `{"keep_alive":"\u0035m1.5s"}`, `{"keep_alive_s":302}`},
		{apiChat, `{"keep_alive":"-1ns"}`, `{"keep_alive_s":1099511627776}`},
		{apiChat, `{"keep_alive":-1}`, `{"keep_alive_s":1099511627776}`},
		{apiChat, `{"keep_alive":1e300}`, `{"keep_alive_s":1099511627776}`},
		{apiChat, `{"keep_alive":0}`, `{"keep_alive_s":0}`},
		{apiChat, `{"keep_alive":"soon"}`, `{}`},
		{apiChat, `{"keep_alive":{"a":1}}`, `{}`},
		{apiGenerate, `{"format":{"type":"object"},"TOP_LOGPROBS":7,"logprobs":true}`, `{"schema_bytes":17,"logprobs":7}`},
		{apiEmbed, `{"input":["a","b",3],"options":{"num_ctx":5}}`, `{"num_ctx":5,"inputs":3}`},
		{apiV1Embeddings, `{"input":"a","options":{"num_ctx":5},"keep_alive":1}`, `{"inputs":1}`},
		{apiV1Chat, `{"stop":["a"],"top_logprobs":3,"response_format":{"type":"text"}}`, `{"stop":1,"schema_bytes":15,"logprobs":3}`},
		{apiV1Completions, `{"stop":"a","logprobs":4}`, `{"stop":1,"logprobs":4}`},
		{apiMessages, `{"Stop_sequences":["a","b"],"output_config":{}}`, `{"stop":2,"schema_bytes":2}`},
		{apiResponses, `{"text":{"format":{}},"top_logprobs":2}`, `{"schema_bytes":13,"logprobs":2}`},
	} {
		q, problem := readRequest([]byte(c.body), c.kind)
		equal(t, "", problem, c.body)
		var want asked
		must(t, json.Unmarshal([]byte(c.want), &want))
		equalJSON(t, want, q.asked, c.body)
	}
}

// TestLowered: a Grant lowers what the body has, names that and what it drops, and adds nothing.
func TestLowered(t *testing.T) {
	for _, c := range []struct {
		body, want, changed string
	}{
		{`{ "a" : 1 }`, `{ "a" : 1 }`, ``},
		{`{"options":{}}`, `{"options":{}}`, ``},
		{`{"options":null, "keep_alive":9}`, `{"options":null,"keep_alive":60}`, `keep_alive`},
		{`{"options":{"num_ctx": 9e9, "seed":1.0}}`, `{"options":{"num_ctx": 4096,"seed":1.0}}`, `options.num_ctx`},
		{
			`{"shift":true,"options":{"num_ctx":5,"NUM_GPU":1}}`, `{"options":{"num_ctx":4096}}`,
			`options.num_ctx, options.num_gpu, shift`,
		},
	} {
		q, problem := readRequest([]byte(c.body), apiChat)
		equal(t, "", problem, c.body)
		g := &grant{
			Drop: []string{"shift", "options.num_gpu"},
			Set:  map[string]int64{"options.num_ctx": 4096, "keep_alive": 60},
		}
		equal(t, c.want, string(q.edited(g, apiChat)), c.body)
		equal(t, c.changed, q.changed(g), c.body)
	}
}

// ollamaChat is what Ollama's own reader makes of a body (api.ChatRequest).
type ollamaChat struct {
	KeepAlive *ollamaDuration `json:"keep_alive"`
	Options   map[string]any  `json:"options"`
}

// ollamaDuration is read as api.Duration is.
type ollamaDuration time.Duration

// UnmarshalJSON reads as Ollama does.
func (d *ollamaDuration) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	switch v := v.(type) {
	case float64:
		*d = math.MaxInt64
		if v >= 0 {
			*d = ollamaDuration(v * float64(time.Second))
		}
	case string:
		duration, err := time.ParseDuration(v)
		if *d = ollamaDuration(duration); duration < 0 {
			*d = math.MaxInt64
		}
		return err
	default:
		return fmt.Errorf("unsupported type %s", reflect.TypeOf(v))
	}
	return nil
}

// granted is the Grant that authz makes of an Ask: each field up to its allowance, 0 is none.
func granted(a *asked, numCtx, keepAliveS int64) *grant {
	g := &grant{Drop: []string{"options.num_gpu"}, Set: map[string]int64{}}
	judge := func(path string, wanted *int64, most int64) {
		switch {
		case wanted == nil || most == 0:
			g.Drop = append(g.Drop, path)
		case *wanted > most:
			g.Set[path] = most
		}
	}
	judge("options.num_ctx", a.NumCtx, numCtx)
	judge("keep_alive", a.KeepAliveS, keepAliveS)
	return g
}

// TestHostileBodies: whatever a body looks like, what Ollama's reader finds in it afterwards is
// nothing without an allowance, and with one at most that.
func TestHostileBodies(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- a test's bodies, the same each time
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	value := func() string {
		return pick(
			`4096`, `4097`, `-1`, `0`, `0.5`, `4096.9`, `1e3`, `1e9`, `1e300`, `1e400`, `-1e400`, `9223372036854775807`,
			`18446744073709551616`, `-0`, `"4096"`, `"99999"`, `"5m"`, `"9999h"`, `"-1s"`, `"\u0039h"`, `"1e9"`, `null`, `true`,
			`[4097]`, `{"num_ctx":4097}`, `""`, `" 5m"`, `"2562047h47m17s"`,
		)
	}
	name := func() string {
		return pick(
			"num_ctx", "NUM_CTX", "Num_Ctx", `\u006eum_ctx`, "num_gpu", "num_ctx ", "options.num_ctx", "keep_alive", "seed",
			"KEEP_ALIVE", "\u212aeep_alive", `keep\u005falive`, "options", "OPTIONS", "option\u017f",
		)
	}
	object := func(inner func() string) string {
		members := make([]string, random.IntN(4))
		for i := range members {
			members[i] = `"` + name() + `"` + pick(":", " : ") + inner()
		}
		return "{" + strings.Join(members, pick(",", " ,\n")) + "}"
	}
	options := func() string { return pick(object(value), object(value), `[`+object(value)+`]`, value()) }
	served := 0
	for range 20_000 {
		body := []byte(object(func() string { return pick(value(), options(), options()) }))
		q, problem := readRequest(body, apiChat)
		if problem != noProblem {
			continue
		}
		served++
		for _, most := range [][2]int64{{0, 0}, {4096, 0}, {0, 300}, {4096, 300}} {
			edited := q.edited(granted(q.asked, most[0], most[1]), apiChat)
			checkEdited(t, body, edited, most)
		}
	}
	equal(t, true, served > 2000, fmt.Sprintf("only %d bodies were no problem", served))
}

// checkEdited reads a body as Ollama would, and compares what it finds with the allowances.
func checkEdited(t *testing.T, body, edited []byte, most [2]int64) {
	t.Helper()
	var read ollamaChat
	if json.Unmarshal(edited, &read) != nil {
		return // Ollama refuses it with 400
	}
	for name, found := range read.Options {
		n, isNumber := found.(float64)
		switch {
		case name == "num_gpu":
			t.Errorf("%s became %s, with num_gpu", body, edited)
		case name == "num_ctx" && found != nil && (!isNumber || most[0] == 0 || n > float64(most[0]) || n <= 0):
			t.Errorf("%s became %s, with num_ctx", body, edited)
		}
	}
	if d := read.KeepAlive; d != nil && (most[1] == 0 || time.Duration(*d) > time.Duration(most[1])*time.Second || *d < 0) {
		t.Errorf("%s became %s, with keep_alive", body, edited)
	}
}

// TestChangedIsNamed: the client reads which of its fields were dropped or lowered, the backend
// gets the others, and what is not changed is not named.
func TestChangedIsNamed(t *testing.T) {
	s := sharedStack(t)
	s.upstream.set(t, nil)
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		g := newGrant(a)
		g.Drop, g.Set = []string{"keep_alive", "shift"}, map[string]int64{"options.num_ctx": 4096}
		giveGrant(w, r, g)
	})
	a := s.post(t, "/api/chat", `{"model":"toy","keep_alive":-1,"options":{"num_ctx":9000}}`)
	equal(t, "keep_alive, options.num_ctx", a.header.Get("X-Gateway-Changed"), "changed")
	equal(t, `{"model":"toy","options":{"num_ctx":4096}}`, string(s.upstream.last(t).body), "body")
	equal(t, int64(9000), *s.authz.last(t).Asked.NumCtx, "asked")
	a = s.post(t, "/api/chat", `{"model":"toy"}`)
	equal(t, "", a.header.Get("X-Gateway-Changed"), "nothing changed")
}
