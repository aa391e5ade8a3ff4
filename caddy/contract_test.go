package gateway

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"
)

func golden(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/contract/" + name + ".json")
	must(t, err)
	return strings.TrimSpace(string(text))
}

// sameAfter: a golden message read and written again is the same text.
func sameAfter[T any](t *testing.T, name string) T {
	t.Helper()
	var message T
	text := golden(t, name)
	must(t, json.Unmarshal([]byte(text), &message))
	equal(t, text, marshalASCII(message), name)
	return message
}

// TestGoldenMessages: Ask, Grant and Denial are read and written as the Python side does.
func TestGoldenMessages(t *testing.T) {
	sameAfter[ask](t, "ask")
	sameAfter[ask](t, "ask-refused")
	sameAfter[ask](t, "ask-unread")
	sameAfter[ask](t, "ask-signed")
	sameAfter[ask](t, "ask-in-path")
	sameAfter[known](t, "known")
	g := sameAfter[grant](t, "grant")
	_, err := parseGrant(golden(t, "grant"), g.ID)
	must(t, err)
	d := sameAfter[denial](t, "denial")
	_, err = parseDenial(golden(t, "denial"), d.ID)
	must(t, err)
}

// journalLine is a line of the journal with its content.
type journalLine[T any] struct {
	Level   string  `json:"level"`
	TS      float64 `json:"ts"`
	Logger  string  `json:"logger"`
	Msg     string  `json:"msg"`
	Content T       `json:"gateway"`
}

// TestGoldenLines: boot and open lines are those of the contract.
func TestGoldenLines(t *testing.T) {
	sameLine[bootLine](t, "boot")
	sameLine[bootLine](t, "boot-resumed")
	sameLine[openLine](t, "open")
	sameLine[progressLine](t, "progress")
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *streamProgress) UnmarshalJSON(text []byte) error {
	return json.Unmarshal(text, &[]any{&p.id, &p.deltas, &p.textBytes, &p.toolBytes})
}

func sameLine[T any](t *testing.T, name string) {
	t.Helper()
	var want journalLine[T]
	must(t, json.Unmarshal([]byte(golden(t, name)), &want))
	j := newJournal(t, new(disk))
	owned(t, j)
	must(t, j.line(time.Unix(0, int64(want.TS*1e9)), want.Msg, want.Content))
	var got journalLine[T]
	text := written(t, j)
	must(t, json.Unmarshal([]byte(text), &got))
	want.TS, got.TS = 0, 0
	equalJSON(t, want, got, name)
	equal(t, "\n", text[len(text)-1:], name+" ends its line")
}

// TestGoldenRecord: the record has the fields of the contract, in their order.
func TestGoldenRecord(t *testing.T) {
	process, _ := replaceProcess(t)
	var want struct {
		Gateway json.RawMessage `json:"gateway"`
	}
	must(t, json.Unmarshal([]byte(golden(t, "record")), &want))
	equal(t, string(want.Gateway), encodeRecord(t, goldenExchange(t)), "record")

	must(t, json.Unmarshal([]byte(golden(t, "record-denied")), &want))
	x := &exchange{
		id: "019ab5c0-1c00-7000-8000-000000000002", start: process.clock.now().Add(-2 * time.Millisecond),
		method: "POST", path: "/api%2Fpull", ip: "2001:db8::9",
		outcome: outcomeDenied, reason: "target_invalid", status: 400,
	}
	process.seq.Store(2)
	equal(t, string(want.Gateway), encodeRecord(t, x), "record-denied")
}

func goldenExchange(t *testing.T) *exchange {
	t.Helper()
	model, isStream, trace := "llama3.2", true, "4bf92f3577b34da6a3ce929d0e0e4736"
	g, err := parseGrant(golden(t, "grant"), "019ab5c0-1c00-7000-8000-000000000001")
	must(t, err)
	x := &exchange{
		phase: phaseBackend, trace: &trace,
		id: g.ID, start: process.clock.now().Add(-1210 * time.Millisecond), method: "POST",
		path: "/v1/chat/completions", ip: "203.0.113.9", key: "nz_3bVSxmba", grant: g,
		tenant: &g.Tenant, keyID: &g.Key, outcome: outcomeCompleted, status: 200, upstreamStatus: 200,
		request: request{model: &model, stream: &isStream, endUser: "alice@example.com", prompt: prompt{
			bytes: 311, messages: 2, tools: 1, bounds: map[string]int64{strings.Repeat("ab", 32): 104, "bytes": 390},
		}},
		usage: &usage{
			terminal: true, input: count{78, true}, output: count{64, true}, cached: count{12, true},
			isStream: true, deltas: 64, textBytes: 301,
		},
	}
	x.firstContent = x.start.Add(41 * time.Millisecond)
	x.lastContent, x.blocked = x.firstContent.Add(1160*time.Millisecond), 10*time.Millisecond
	x.attempts.isSent.Store(true)
	x.attempts.outAt = x.start.Add(12 * time.Millisecond)
	process.seq.Store(1)
	return x
}

// encodeRecord writes a record as the node and boot of the golden files.
func encodeRecord(t *testing.T, x *exchange) string {
	t.Helper()
	process.node, process.boot = "7c9e6679-7425-40de-944b-e07fc1f90ae7", "019ab5bf-0000-7000-8000-0000000000b0"
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{SkipLineEnding: true})
	must(t, encoder.AddObject("gateway", newRecord(x, accessLog{})))
	line, err := encoder.EncodeEntry(zapcore.Entry{}, nil)
	must(t, err)
	return strings.TrimSuffix(strings.TrimPrefix(line.String(), `{"gateway":`), "}")
}

// TestGoldenRoutes: the guard knows the routes that authz knows, and no others.
func TestGoldenRoutes(t *testing.T) {
	var table struct {
		Routes []struct {
			Method  string `json:"method"`
			Path    string `json:"path"`
			Class   string `json:"class"`
			Dialect string `json:"dialect"`
		} `json:"routes"`
		Mutations []string `json:"mutations"`
	}
	must(t, json.Unmarshal([]byte(golden(t, "routes")), &table))
	classes := map[class]string{metered: "metered", read: "read", public: "public"}
	dialects := map[dialect]string{ollama: "ollama", openai: "openai", anthropic: "anthropic"}
	equal(t, len(table.Routes), len(routes), "number of routes")
	for _, want := range table.Routes {
		path := strings.Replace(want.Path, "{id}", "llama3.2:1b", 1)
		got := findRoute(want.Method, path)
		equal(t, want.Class, classes[got.class], want.Path)
		equal(t, want.Dialect, dialects[got.dialect], want.Path)
	}
	for _, path := range table.Mutations {
		for _, method := range []string{"GET", "POST", "DELETE", "HEAD"} {
			equal(t, unknown, findRoute(method, path).class, path)
			equal(t, unknown, findRoute(method, path+"x").class, path)
		}
	}
}

// TestTargets: a path has one spelling, and no other finds a route.
func TestTargets(t *testing.T) {
	for _, path := range []string{"/", "/api/chat", "/v1/models/llama3.2:1b", "/api/pull", "/nothing.html"} {
		equal(t, true, isTarget(path), path)
	}
	for _, path := range []string{
		"", "*", "x:http://a/healthz", "http://a/api/chat", "api/chat", "/api%2Fpull", "/api/ch%61t",
		"//api/chat", "/api//chat", "/api/./chat", "/api/x/../chat", "/..", "/api/.", "/api/chat;x=1",
		"/api\\chat", "/api/chat#x", "/api/chat ", "/api/ch\xc3\xa4t", "/v1/models/{id}", "/a@b",
	} {
		equal(t, false, isTarget(path), path)
	}
	for _, path := range []string{"/API/chat", "/api/chat/", "/v1/models/", "/v1/models/a/", "/v1/models//a", "/v1/responses/compact"} {
		equal(t, unknown, findRoute("GET", path).class, path)
		equal(t, unknown, findRoute("POST", path).class, path)
	}
}

// TestModelPaths: a model's name may have slashes, and the escapes that SDKs put into it; no
// escape leads to another path.
func TestModelPaths(t *testing.T) {
	for path, plain := range map[string]string{
		"/v1/models/hf.co/x/y:Q4_K":                     "/v1/models/hf.co/x/y:Q4_K",
		"/v1/models/hf.co%2Fx%2fy%3AQ4%3a1":             "/v1/models/hf.co/x/y:Q4:1",
		"/v1/models/" + strings.Repeat("a", maxModelID): "/v1/models/" + strings.Repeat("a", maxModelID),
	} {
		equal(t, plain, plainModelPath(path), path)
		equal(t, true, isTarget(plain), plain)
		equal(t, read, findRoute("GET", plain).class, plain)
		equal(t, unknown, findRoute("POST", plain).class, plain)
	}
	for _, path := range []string{
		"/v1/models/..%2f..%2fapi%2fpull", "/v1/models/a%2F", "/v1/models/%2Fa", "/v1/models/a%252Fb",
		"/v1/models/a%2F%2Fb", "/v1/models%2Fa", "/v1/models/" + strings.Repeat("a", maxModelID+1), "/api%2Fpull",
	} {
		plain := plainModelPath(path)
		equal(t, false, isTarget(plain) && findRoute("GET", plain).class == read, path)
	}
}

// TestASCII: a message in a header has no byte that readers could take for another.
func TestASCII(t *testing.T) {
	model := "mödel 漢 \u007f 😀\n"
	text := marshalASCII(ask{Model: &model})
	for i := range len(text) {
		if text[i] < 0x20 || text[i] > 0x7e {
			t.Errorf("byte %x in %q", text[i], text)
		}
	}
	var back ask
	must(t, json.Unmarshal([]byte(text), &back))
	equal(t, model, *back.Model, "model")
}

// TestForeignMessages: a message of another request or version is none.
func TestForeignMessages(t *testing.T) {
	for _, text := range []string{
		"", "{", `{}`, `{"v":1}`, `{"v":2,"id":"a"}`, `{"v":1,"id":"b"}`, `{"v":"1","id":"a"}`, `[]`,
		`{"v":1,"id":"a","max_output":0}`,
	} {
		if _, err := parseGrant(text, "a"); err == nil {
			t.Errorf("took the Grant %s", text)
		}
	}
	for _, text := range []string{"", "{", `{}`, `{"v":2,"id":"a"}`, `{"v":1,"id":"b"}`} {
		if _, err := parseDenial(text, "a"); err == nil {
			t.Errorf("took the Denial %s", text)
		}
	}
	if _, err := parseGrant(`{"v":1,"id":""}`, ""); err == nil {
		t.Error("took a Grant for a request without an id")
	}
}

// What Go writes into the journal metering must be able to settle: both know one greatest count.
// And for how long a Grant is valid, authz must know: it waits as long after a loss of its counters.
func TestGoldenBounds(t *testing.T) {
	t.Parallel()

	var want map[string]int64
	must(t, json.Unmarshal([]byte(golden(t, "bounds")), &want))

	have := map[string]int64{
		"greatest_count": greatestCount, "grant_age_ms": maxGrantAge.Milliseconds(),
		"ask_age_ms": 1800, // authz's own
	}
	equalJSON(t, want, have, "bounds")
}
