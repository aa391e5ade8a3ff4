package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// controlTransport leads to the control socket.
func (s *stack) controlTransport() http.RoundTripper {
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.path("control.sock"))
		},
	}
}

// control asks the control socket.
func (s *stack) control(t testing.TB, method, target string, into any) int {
	t.Helper()
	client := http.Client{Transport: s.controlTransport()}
	request, err := http.NewRequestWithContext(t.Context(), method, "http://control"+target, nil)
	must(t, err)
	response, err := client.Do(request)
	must(t, err)
	defer func() { _ = response.Body.Close() }()
	must(t, json.NewDecoder(response.Body).Decode(into))
	return response.StatusCode
}

func (s *stack) kill(t testing.TB, query string) int {
	t.Helper()
	var got struct {
		Killed int `json:"killed"`
	}
	equal(t, 200, s.control(t, "POST", "/kill?"+query, &got), "kill")
	return got.Killed
}

// running starts a chat that streams the backend's frames, and reads the first k.
func (s *stack) running(t testing.TB, b *scripted, k int) (*http.Response, *bufio.Reader) {
	t.Helper()
	s.upstream.set(t, b.serve)
	b.allow(k)
	response := s.open(t, "/api/chat", `{"model":"toy"}`)
	reader := bufio.NewReader(response.Body)
	if response.StatusCode != http.StatusOK {
		t.Fatal(readAnswer(t, response))
	}
	for i := range k {
		_, err := io.ReadFull(reader, make([]byte, len(b.frame(i))))
		must(t, err)
	}
	return response, reader
}

// TestKill: a kill ends a stream at once with a valid last frame, the backend is cancelled, and
// the bill is what came.
func TestKill(t *testing.T) {
	s := sharedStack(t)
	for _, by := range []string{"id", "key", "tenant"} {
		b := newScripted(100, chatFrame)
		response, reader := s.running(t, b, 3)
		id := response.Header.Get("X-Request-Id")
		var list []stream
		equal(t, 200, s.control(t, "GET", "/streams", &list), "streams")
		equal(t, 1, len(list), "streams")
		equal(t, stream{
			ID: id, Tenant: testTenant, Key: testKeyID, Model: list[0].Model, Backend: "local",
			Path: "/api/chat", AgeMS: list[0].AgeMS, OutputTokens: 3,
		}, list[0], "stream")
		start := time.Now()
		equal(t, 1, s.kill(t, by+"="+map[string]string{"id": id, "key": testKeyID, "tenant": testTenant}[by]), by)
		rest, err := io.ReadAll(reader)
		must(t, err)
		if took := time.Since(start); took > soon {
			t.Errorf("killed by %s in %v", by, took)
		}
		var last struct {
			Done   bool   `json:"done"`
			Reason string `json:"done_reason"`
		}
		must(t, json.Unmarshal(rest, &last))
		equal(t, true, last.Done, "done")
		<-b.gone
		e := s.record(t, id)
		equal(t, outcomeKilled, e.Outcome, by)
		equal(t, int64(3), e.Deltas, by)
		equal(t, 200, e.Status, by)
		equal(t, 0, s.kill(t, "id="+id), "killed again")
	}
	var fault struct{ Error string }
	equal(t, 400, s.control(t, "POST", "/kill", &fault), "kill nothing")
	equal(t, 400, s.control(t, "POST", "/kill?id=a&key=b", &fault), "kill two things")
	equal(t, 404, s.control(t, "GET", "/kill?id=a", &fault), "kill by GET")
	var health struct{ Status string }
	equal(t, 200, s.control(t, "GET", "/healthz", &health), "healthz")
}

// TestKillUnread: a client that does not read delays the end of its stream by less than
// 100 ms, and pays for no more than it was sent.
func TestKillUnread(t *testing.T) {
	s := sharedStack(t)
	long := strings.Repeat("x", 30_000)
	b := newScripted(10_000, func(int) string {
		return `{"model":"toy","message":{"content":"` + long + `"},"done":false}` + "\n"
	})
	s.upstream.set(t, b.serve)
	b.allow(10_000)
	response := s.open(t, "/api/chat", `{"model":"toy"}`)
	defer func() { _ = response.Body.Close() }()
	id := response.Header.Get("X-Request-Id")
	s.stalls(t, id)
	seen, start := s.seen(t, id), time.Now()
	equal(t, 1, s.kill(t, "id="+id), "killed")
	eventually(t, "the stream is over", func() bool { return s.seen(t, id) < 0 })
	if took := time.Since(start); took > soon {
		t.Errorf("ended after %v", took)
	}
	e := s.record(t, id)
	equal(t, outcomeKilled, e.Outcome, "outcome")
	equal(t, seen, e.Deltas, "deltas")
}

// stalls waits until nothing moves any more: the buffers on the way to the client are full.
func (s *stack) stalls(t testing.TB, id string) {
	t.Helper()
	before := int64(-1)
	eventually(t, "the stream stalls", func() bool {
		seen := before
		before = s.seen(t, id)
		time.Sleep(30 * time.Millisecond) // how long nothing may move
		return before > 0 && before == seen
	})
}

func (s *stack) seen(t testing.TB, id string) int64 {
	t.Helper()
	var list []stream
	s.control(t, "GET", "/streams", &list)
	for _, x := range list {
		if x.ID == id {
			return x.OutputTokens
		}
	}
	return -1
}

// TestKillEarly: what is killed before the first byte gets a 503 in its dialect.
func TestKillEarly(t *testing.T) {
	s := sharedStack(t)
	b := newScripted(1, sseFrame)
	s.upstream.set(t, b.serve)
	got := make(chan answer, 1)
	go func() { got <- s.post(t, "/v1/chat/completions", `{"model":"toy","stream":true}`) }()
	eventually(t, "the backend is reached", func() bool { return s.upstream.count() == 1 })
	equal(t, 1, s.kill(t, "key="+testKeyID), "killed")
	a := <-got
	equal(t, 503, a.status, "status")
	equal(t, "false", a.header.Get("X-Should-Retry"), "X-Should-Retry")
	equal(t, true, strings.HasPrefix(a.body, `{"error":{"message":"`), a.body)
	e := s.record(t, a.id)
	equal(t, outcomeKilled, e.Outcome, "outcome")
	equal(t, 503, e.Status, "status")
}

// TestCap: a backend that ignores its cap is cut at max_output and a margin, and the client
// reads that the answer ended for its length.
func TestCap(t *testing.T) {
	s := sharedStack(t)
	limit := int64(20)
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		g := newGrant(a)
		g.MaxOutput = &limit
		giveGrant(w, r, g)
	})
	for path, end := range map[string]string{
		"/api/chat":            `"done_reason":"length"`,
		"/api/generate":        `"done_reason":"length"`,
		"/v1/chat/completions": `"finish_reason":"length"}]}` + "\n\ndata: [DONE]\n\n",
		"/v1/completions":      `"finish_reason":"length"}]}` + "\n\ndata: [DONE]\n\n",
		"/v1/messages":         `{"type":"message_stop"}` + "\n\n",
		"/v1/responses":        `"type":"response.incomplete"}` + "\n\n",
	} {
		b := newScripted(100, capFrame(path))
		if strings.HasPrefix(path, "/v1") {
			b.headers["Content-Type"] = "text/event-stream"
		}
		b.allow(100)
		s.upstream.set(t, b.serve)
		a := s.post(t, path, `{"model":"toy","stream":true}`)
		equal(t, 29, strings.Count(a.body, "word"), path)
		if !strings.Contains(a.body, end) {
			t.Errorf("%s ends with %s", path, a.body[max(0, len(a.body)-300):])
		}
		e := s.record(t, a.id)
		equal(t, outcomeCap, e.Outcome, path)
		equal(t, int64(29), e.Deltas, path)
	}
}

// capFrame is an endless stream of each API.
func capFrame(path string) func(int) string {
	frames := map[string]string{
		"/api/generate":   `{"model":"toy","response":"word","done":false}` + "\n",
		"/v1/completions": `data: {"id":"cmpl-1","choices":[{"text":"word","index":0,"finish_reason":null}],"model":"toy"}` + "\n\n",
		"/v1/messages": "event: content_block_delta\n" +
			`data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word"}}` + "\n\n",
		"/v1/responses": "event: response.output_text.delta\n" +
			`data: {"delta":"word","sequence_number":4,"type":"response.output_text.delta"}` + "\n\n",
	}
	if frame, ok := frames[path]; ok {
		return func(int) string { return frame }
	}
	if path == "/api/chat" {
		return chatFrame
	}
	return sseFrame
}

// TestDeadline: a stream that takes longer than it may ends with a last frame.
func TestDeadline(t *testing.T) {
	s := sharedStack(t)
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		g := newGrant(a)
		g.DeadlineS = 1
		giveGrant(w, r, g)
	})
	response, reader := s.running(t, newScripted(100, chatFrame), 2)
	rest, err := io.ReadAll(reader)
	must(t, err)
	equal(t, true, strings.Contains(string(rest), `"done_reason":"length"`), string(rest))
	e := s.record(t, response.Header.Get("X-Request-Id"))
	equal(t, outcomeDeadline, e.Outcome, "outcome")
	equal(t, int64(2), e.Deltas, "deltas")
}

// TestDeadlineEarly: a single answer that takes longer than it may is a 504, and no SDK runs it
// again: it would take as long, and be billed again.
func TestDeadlineEarly(t *testing.T) {
	s := sharedStack(t)
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		g := newGrant(a)
		g.DeadlineS = 1
		giveGrant(w, r, g)
	})
	b := newScripted(1, sseFrame)
	s.upstream.set(t, b.serve)
	a := s.post(t, "/v1/chat/completions", `{"model":"toy"}`)
	equal(t, 504, a.status, "status")
	equal(t, "false", a.header.Get("X-Should-Retry"), "X-Should-Retry")
	equal(t, "", a.header.Get("Retry-After"), "Retry-After")
	equal(t, outcomeDeadline, s.record(t, a.id).Outcome, "outcome")
	equal(t, 1, s.upstream.count(), "runs")
}

// TestOverflow: a frame that never ends is not held without end.
func TestOverflow(t *testing.T) {
	s := sharedStack(t)
	piece := strings.Repeat("x", 1<<16)
	b := newScripted(200, func(i int) string {
		if i == 0 {
			return chatFrame(0)
		}
		return piece
	})
	b.allow(200)
	s.upstream.set(t, b.serve)
	a := s.post(t, "/api/chat", `{"model":"toy"}`)
	lines := strings.Split(strings.TrimSpace(a.body), "\n")
	equal(t, 2, len(lines), "lines")
	equal(t, true, strings.Contains(lines[1], `"done":true`), lines[1])
	equal(t, outcomeOverflow, s.record(t, a.id).Outcome, "outcome")
}
