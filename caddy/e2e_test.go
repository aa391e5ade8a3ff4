package gateway

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// sample is a recorded answer of a real Ollama.
type sample struct {
	request string
	status  int
	header  http.Header
	body    string
}

func readSample(t testing.TB, name string) sample {
	t.Helper()
	request, err := os.ReadFile("testdata/samples/" + name + ".json")
	must(t, err)
	text, err := os.ReadFile("testdata/samples/" + name + ".http")
	must(t, err)
	head, body, ok := strings.Cut(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n\n")
	if !ok {
		t.Fatalf("%s has no body", name)
	}
	s := sample{string(request), 0, http.Header{}, body}
	for i, field := range strings.Split(head, "\n") {
		if i == 0 {
			s.status = int(field[9]-'0')*100 + int(field[10]-'0')*10 + int(field[11]-'0')
			continue
		}
		name, value, _ := strings.Cut(field, ": ")
		s.header.Add(name, value)
	}
	return s
}

func (s sample) serve(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", s.header.Get("Content-Type"))
	w.WriteHeader(s.status)
	for _, piece := range strings.SplitAfter(s.body, "\n") {
		_, _ = w.Write([]byte(piece))
		if s.header.Get("Transfer-Encoding") != "" {
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// said is what a record says of an answer, - for null.
func said(e entry) string {
	number := func(n *int64) string {
		if n == nil {
			return "-"
		}
		return strconv.FormatInt(*n, 10)
	}
	return fmt.Sprintf("%s terminal=%t in=%s out=%s cached=%s deltas=%d bytes=%d", e.Outcome,
		e.Terminal, number(e.InputTokens), number(e.OutputTokens), number(e.CachedTokens),
		e.Deltas, e.OutputBytes)
}

// samplePaths are the routes that the samples were recorded on.
var samplePaths = []struct{ prefix, path string }{
	{"chat", "/api/chat"},
	{"generate", "/api/generate"},
	{"embeddings", "/api/embeddings"},
	{"embed", "/api/embed"},
	{"v1-chat", "/v1/chat/completions"},
	{"v1-completions", "/v1/completions"},
	{"v1-embeddings", "/v1/embeddings"},
	{"v1-messages", "/v1/messages"},
	{"v1-responses", "/v1/responses"},
}

func samplePath(name string) string {
	for _, p := range samplePaths {
		if name == p.prefix || strings.HasPrefix(name, p.prefix+"-") {
			return p.path
		}
	}
	return ""
}

// TestSamples: whatever a real Ollama answered, the client gets the same bytes, and the
// record says what the answer said.
func TestSamples(t *testing.T) {
	s := sharedStack(t)
	text, err := os.ReadFile("testdata/samples-said.txt")
	must(t, err)
	for row := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
		name, want, _ := strings.Cut(row, " ")
		sm := readSample(t, name)
		s.upstream.set(t, sm.serve)
		a := s.post(t, samplePath(name), sm.request)
		equal(t, sm.status, a.status, name+" status")
		equal(t, sm.body, a.body, name+" body")
		equal(t, want, said(s.record(t, a.id)), name)
	}
}

// TestHiddenUsage: who did not ask for the usage of a stream gets the bytes of a stream
// without it, and the record has the usage all the same.
func TestHiddenUsage(t *testing.T) {
	s := sharedStack(t)
	for _, name := range []string{
		"v1-chat-stream", "v1-chat-stream-think", "v1-completions-stream", "v1-completions-stream-think",
		"v1-chat-stream-crash", "v1-completions-stream-repeat",
	} {
		asked := readSample(t, strings.Replace(name, "-stream", "-stream-usage", 1))
		s.upstream.set(t, asked.serve)
		a := s.post(t, samplePath(name), readSample(t, name).request)
		equal(t, masked(readSample(t, name).body), masked(a.body), name)
		want := said(s.record(t, s.post(t, samplePath(name), asked.request).id))
		equal(t, want, said(s.record(t, a.id)), name)
		if !strings.Contains(string(s.upstream.last(t).body), `"include_usage":true`) {
			t.Errorf("%s: usage was not asked for", name)
		}
	}
}

var idOrTime = regexp.MustCompile(`(chatcmpl|cmpl)-\d+|"created":\d+`)

func masked(body string) string { return idOrTime.ReplaceAllString(body, "x") }

// TestPieces: however the bytes of a stream are cut, the client gets the same ones.
func TestPieces(t *testing.T) {
	for _, name := range []string{
		"chat-stream", "v1-chat-stream-usage", "v1-completions-stream-usage", "v1-messages-stream-tool",
		"v1-responses-stream-think", "generate-stream-garbage",
	} {
		sm := readSample(t, name)
		hidden, _ := throughTap(t, name, sm, len(sm.body))
		for _, size := range []int{1, 2, 7, 100, 1000} {
			got, outcome := throughTap(t, name, sm, size)
			equal(t, hidden, got, fmt.Sprintf("%s in pieces of %d", name, size))
			_, want := throughTap(t, name, sm, len(sm.body))
			equal(t, want, outcome, name)
		}
	}
}

// throughTap passes a recorded stream through a tap in pieces, for a client that did not
// ask for usage.
func throughTap(t *testing.T, name string, sm sample, size int) (body, outcome string) {
	t.Helper()
	kind := findRoute("POST", samplePath(name)).api
	isStream := true
	x := &exchange{route: route{api: kind}, grant: &grant{}, request: request{stream: &isStream}}
	out := httptest.NewRecorder()
	w := newTapWriter(context.Background(), out, x)
	w.Header().Set("Content-Type", sm.header.Get("Content-Type"))
	w.WriteHeader(200)
	for text := []byte(sm.body); len(text) > 0; {
		n := min(size, len(text))
		written, err := w.Write(append([]byte{}, text[:n]...))
		must(t, err)
		equal(t, n, written, "written")
		text = text[n:]
	}
	must(t, w.finish(nil, nil))
	u := x.usage
	return out.Body.String(), fmt.Sprint(u.terminal, u.input, u.output, u.deltas, u.textBytes, u.toolBytes)
}
