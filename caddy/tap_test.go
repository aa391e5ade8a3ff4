package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scripted streams frames, one each time the test asks for it.
type scripted struct {
	next    chan struct{} // a frame may go
	gone    chan struct{} // the client of the backend has hung up
	frame   func(i int) string
	headers map[string]string
	n       int
}

func newScripted(n int, frame func(i int) string) *scripted {
	return &scripted{
		next: make(chan struct{}, 10_000), gone: make(chan struct{}), frame: frame, n: n,
		headers: map[string]string{"Content-Type": "application/x-ndjson"},
	}
}

func (s *scripted) serve(w http.ResponseWriter, r *http.Request) {
	for name, value := range s.headers {
		w.Header().Set(name, value)
	}
	for i := range s.n {
		select {
		case <-s.next:
		case <-r.Context().Done():
			close(s.gone)
			return
		}
		if _, err := io.WriteString(w, s.frame(i)); err != nil {
			close(s.gone)
			return
		}
		_ = http.NewResponseController(w).Flush()
	}
}

func (s *scripted) allow(n int) {
	for range n {
		s.next <- struct{}{}
	}
}

func chatFrame(i int) string {
	return fmt.Sprintf(`{"model":"toy","message":{"role":"assistant","content":"word%d "},"done":false}`+"\n", i)
}

func sseFrame(i int) string {
	return fmt.Sprintf(`data: {"id":"chatcmpl-1","model":"toy","choices":[{"index":0,"delta":{"content":"word%d "},"finish_reason":null}]}`+"\n\n", i)
}

// open starts a streaming request and returns the response, whose body is still to come.
func (s *stack) open(t testing.TB, path, body string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "POST", s.url+path, strings.NewReader(body))
	must(t, err)
	request.Header.Set("X-Api-Key", testKey())
	response, err := s.transport().RoundTrip(request)
	must(t, err)
	return response
}

// TestPacing: chunk n reaches the client while the backend still withholds chunk n+1 (C2).
func TestPacing(t *testing.T) {
	s := sharedStack(t)
	for path, frame := range map[string]func(int) string{"/api/chat": chatFrame, "/v1/chat/completions": sseFrame} {
		b := newScripted(20, frame)
		if path != "/api/chat" {
			b.headers["Content-Type"] = "text/event-stream"
		}
		s.upstream.set(t, b.serve)
		b.allow(1)
		response := s.open(t, path, `{"model":"toy","stream":true}`)
		reader := bufio.NewReader(response.Body)
		for i := range 20 {
			want := frame(i)
			got := make([]byte, len(want))
			_, err := io.ReadFull(reader, got)
			must(t, err)
			equal(t, want, string(got), path)
			b.allow(1)
		}
		_ = response.Body.Close()
		s.record(t, response.Header.Get("X-Request-Id"))
	}
}

// TestHangup: a client that leaves after k chunks is recorded as disconnected, with what it got,
// and the backend is cancelled at once.
func TestHangup(t *testing.T) {
	s := sharedStack(t)
	b := newScripted(100, chatFrame)
	s.upstream.set(t, b.serve)
	b.allow(7)
	response := s.open(t, "/api/chat", `{"model":"toy"}`)
	reader := bufio.NewReader(response.Body)
	for range 7 {
		_, err := reader.ReadString('\n')
		must(t, err)
	}
	_ = response.Body.Close()
	select {
	case <-b.gone:
	case <-time.After(patience):
		t.Fatal("the backend was not cancelled")
	}
	e := s.record(t, response.Header.Get("X-Request-Id"))
	equal(t, outcomeClientDisconnected, e.Outcome, "outcome")
	equal(t, int64(7), e.Deltas, "deltas")
	equal(t, int64(7*6), e.OutputBytes, "bytes")
	equal(t, 200, e.Status, "status")
}

// TestHangupEarly: a client that leaves before the first byte is recorded as disconnected.
func TestHangupEarly(t *testing.T) {
	s := sharedStack(t)
	b := newScripted(1, chatFrame)
	s.upstream.set(t, b.serve)
	connection := s.dial(t)
	body := `{"model":"toy"}`
	_, err := fmt.Fprintf(connection, "POST /api/chat HTTP/1.1\r\nHost: a\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
		testKey(), len(body), body)
	must(t, err)
	eventually(t, "the backend is reached", func() bool { return s.upstream.count() == 1 })
	_ = connection.Close()
	e := s.record(t, s.authz.last(t).ID)
	equal(t, outcomeClientDisconnected, e.Outcome, "outcome")
	equal(t, statusClientDisconnected, e.Status, "status")
	equal(t, true, e.Reserved != nil, "reserved")
}

// TestHangupInAuthz: a client that leaves while authz thinks is recorded as disconnected.
func TestHangupInAuthz(t *testing.T) {
	s := sharedStack(t)
	reached := make(chan ask, 1)
	s.authz.set(t, func(_ http.ResponseWriter, r *http.Request, a ask) {
		reached <- a
		<-r.Context().Done()
	})
	connection := s.dial(t)
	body := `{"model":"toy"}`
	_, err := fmt.Fprintf(connection, "POST /api/chat HTTP/1.1\r\nHost: a\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
		testKey(), len(body), body)
	must(t, err)
	a := <-reached
	_ = connection.Close()
	equal(t, outcomeClientDisconnected, s.record(t, a.ID).Outcome, "outcome")
	equal(t, 0, s.upstream.count(), "hits")
}

// TestUpstreamCut: a backend that dies in the middle leaves the client a cut stream, and
// the record what came.
func TestUpstreamCut(t *testing.T) {
	s := sharedStack(t)
	s.upstream.set(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		_, _ = io.WriteString(w, chatFrame(0)+chatFrame(1)+`{"model":"toy","mess`)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	response := s.open(t, "/api/chat", `{"model":"toy"}`)
	body, err := io.ReadAll(response.Body)
	if err == nil {
		t.Error("the client read that the answer is whole")
	}
	equal(t, chatFrame(0)+chatFrame(1)+`{"model":"toy","mess`, string(body), "body")
	e := s.record(t, response.Header.Get("X-Request-Id"))
	equal(t, outcomeUpstreamLost, e.Outcome, "outcome")
	equal(t, int64(2), e.Deltas, "deltas")
}

// TestUpstreamFails: a backend that cannot be reached or understood is an error in the
// dialect of the client that names nothing inside.
func TestUpstreamFails(t *testing.T) {
	s := sharedStack(t)
	hijack := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			connection, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(connection, text)
				_ = connection.Close()
			}
		}
	}
	for _, c := range []struct {
		name   string
		serve  http.HandlerFunc
		reason string
	}{
		{"no answer", hijack(""), "backend_unreachable"},
		{"garbage", hijack("what?\r\n\r\n"), "backend_unreachable"},
		{"101", hijack("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), "backend_invalid"},
		{"gzip", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "xxxx")
		}, "backend_encoded"},
	} {
		s.upstream.set(t, c.serve)
		a := s.post(t, "/v1/messages", `{"model":"toy"}`)
		equal(t, 502, a.status, c.name)
		equal(t, true, strings.HasPrefix(a.body, `{"type":"error"`), c.name+": "+a.body)
		equal(t, false, strings.Contains(a.body, "127.0.0.1"), c.name+": "+a.body)
		e := s.record(t, a.id)
		equal(t, outcomeUpstreamError, e.Outcome, c.name)
		equal(t, c.reason, *e.Reason, c.name)
	}
}

// TestNeverTwice: a backend that dies is not asked again, whatever the client says of its
// request: one Grant runs once (B1).
func TestNeverTwice(t *testing.T) {
	s := sharedStack(t)
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		s.upstream.set(t, readSample(t, "chat-stream-length").serve)
		s.post(t, "/api/chat", `{"model":"toy"}`) // only a connection that is kept is tried again
		s.upstream.set(t, func(w http.ResponseWriter, _ *http.Request) {
			if connection, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = connection.Close()
			}
		})
		equal(t, 502, s.post(t, "/api/chat", `{"model":"toy"}`, name, "1").status, name)
		equal(t, 1, s.upstream.count(), name+": hits")
	}
}

// TestBackendStatus: a backend's own refusal keeps its status and words, 499 too.
func TestBackendStatus(t *testing.T) {
	s := sharedStack(t)
	for _, status := range []int{400, 404, 499, 500, 503} {
		s.upstream.set(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"error":"no"}`)
		})
		a := s.post(t, "/api/chat", `{"model":"toy"}`)
		equal(t, status, a.status, "status")
		equal(t, `{"error":"no"}`, a.body, "body")
		e := s.record(t, a.id)
		equal(t, outcomeUpstreamError, e.Outcome, strconv.Itoa(status))
		equal(t, status, *e.UpstreamStatus, "upstream status")
	}
}

// TestGrantApplied: the client sees the Grant's headers on a 2xx, the backend the edited
// body, and the record the terms.
func TestGrantApplied(t *testing.T) {
	s := sharedStack(t)
	limit := int64(3)
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		g := newGrant(a)
		g.MaxOutput, g.Drop = &limit, []string{"keep_alive"}
		g.Headers = map[string]string{"x-ratelimit-limit-requests": "60"}
		giveGrant(w, r, g)
	})
	sm := readSample(t, "chat-stream-length")
	s.upstream.set(t, sm.serve)
	a := s.post(t, "/api/chat", `{"model":"toy","keep_alive":-1}`)
	equal(t, `{"model":"toy","options":{"num_predict":3}}`, string(s.upstream.last(t).body), "body")
	equal(t, "60", a.header.Get("X-Ratelimit-Limit-Requests"), "header")
	equal(t, outcomeCompleted, s.record(t, a.id).Outcome, "outcome")
	s.upstream.set(t, readSample(t, "chat-crash").serve)
	a = s.post(t, "/api/chat", `{"model":"toy"}`)
	equal(t, "", a.header.Get("X-Ratelimit-Limit-Requests"), "header on a 500")
}

// TestStaleGrant: a Grant that is two seconds old is one of another time.
func TestStaleGrant(t *testing.T) {
	process, c := replaceProcess(t)
	x := &exchange{id: "a", route: route{class: metered}, asked: c.now()}
	x.request.body = []byte(`{}`)
	d := new(disk)
	j := newJournal(t, d)
	owned(t, j)
	process.journal.Store(j)
	g := newGrant(ask{ID: "a"})
	c.advance(maxGrantAge + 1)
	equal(t, "grant_stale", x.takeGrant(marshalASCII(g), c.now()), "reason")
	equal(t, true, strings.Contains(written(t, j), `"msg":"open"`), "it is journaled all the same")
	x.asked = c.now().Add(-maxGrantAge)
	equal(t, "", x.takeGrant(marshalASCII(g), c.now()), "reason in time")
	d.fill(0)
	equal(t, "journal_unwritable", x.takeGrant(marshalASCII(g), c.now()), "reason on a full disk")
}
