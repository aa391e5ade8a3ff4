package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// severed closes the connection of a request without an answer.
func severed(w http.ResponseWriter, _ *http.Request) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = connection.Close()
	}
}

// busy is Ollama's answer when its queue is full.
func busy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Of-The-Busy", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, `{"error":"server busy, please try again.  maximum pending requests exceeded"}`)
}

// hello is a whole answer.
func hello(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"message":{"content":"hello"},"done":true,"prompt_eval_count":3,"eval_count":1}`)
}

// TestAnotherBackend: a backend that can't have worked for a request is left for another one of
// the Grant, once; after one that may have worked the request has failed.
func TestAnotherBackend(t *testing.T) {
	s := newStack(t, freeAddr(t))
	other := newUpstream()
	defer other.server.Close()
	s.snippets(t, "import gateway_backend_open local "+s.upstream.server.URL,
		"import gateway_backend_open other "+other.server.URL,
		"import gateway_backend_open dead http://"+freeAddr(t))
	s.run(t)
	defer s.stop()

	for name, c := range map[string]struct {
		backends     []string
		first        http.HandlerFunc // of local
		second       http.HandlerFunc // of other
		status       int
		body         string // a part of it
		hits, others int
		tried        string
		backend      string
	}{
		"dead":            {[]string{"dead", "other"}, nil, hello, 200, "hello", 0, 1, "dead", "other"},
		"without snippet": {[]string{"missing", "other"}, nil, hello, 200, "hello", 0, 1, "missing", "other"},
		"busy":            {[]string{"local", "other"}, busy, hello, 200, "hello", 1, 1, "local", "other"},
		"both busy":       {[]string{"local", "other"}, busy, busy, 503, "server busy", 1, 1, "local", "other"},
		"busy alone":      {[]string{"local"}, busy, nil, 503, "server busy", 1, 0, "", "local"},
		"busy, then dead": {[]string{"local", "dead"}, busy, nil, 502, "", 1, 0, "local", "dead"},
		"one more, not two": {
			[]string{"dead", "missing", "other"}, nil, hello, 503, "", 0, 0, "dead", "missing",
		},
		"may have worked": {[]string{"other", "local"}, hello, severed, 502, "", 0, 1, "", "other"},
	} {
		t.Run(name, func(t *testing.T) {
			s.upstream.set(t, c.first)
			other.set(t, c.second)
			s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
				g := newGrant(a)
				g.Backends = c.backends
				giveGrant(w, r, g)
			})
			a := s.post(t, "/api/chat", `{"model":"toy","stream":false}`)
			if c.backend != "dead" { // 502 or 503, as the health checks have it
				equal(t, c.status, a.status, "status")
			}
			equal(t, true, strings.Contains(a.body, c.body), a.body)
			equal(t, strings.Contains(c.body, "busy"), a.header.Get("X-Of-The-Busy") != "", "a header of the busy one")
			equal(t, c.hits, s.upstream.count(), "requests to local")
			equal(t, c.others, other.count(), "requests to other")
			e := s.record(t, a.id)
			equal(t, c.backend, *e.Backend, "backend")
			equal(t, c.tried, e.Tried, "tried")
			equal(t, c.backend == "local" || c.backend == "other", e.Sent, "the last backend was written to")
		})
	}
}

// TestSlotOfAnotherBackend: a request that goes on to another backend gives its slot back.
func TestSlotOfAnotherBackend(t *testing.T) {
	process, _ := replaceProcess(t)
	x := &exchange{grant: newTicketGrant("a", "interactive", 1, 1, 1)}
	x.enter(0)
	equal(t, true, x.isAgain(true, false), "goes on")
	equal(t, 0, process.queues.of["backend0"].running, "requests at the first")
	equal(t, 1, process.queues.of["backend1"].running, "requests at the second")
}

// TestStartIsNoted: a request that waits by its open line is noted as started, even if it got its slot
// right behind that line: without the note a crash would take it for one that has never run.
func TestStartIsNoted(t *testing.T) {
	process, _ := replaceProcess(t)
	for name, isQueued := range map[string]bool{"waited": true, "had a slot": false} {
		t.Run(name, func(t *testing.T) {
			x := &exchange{grant: newTicketGrant("a", "interactive", 1, 0)}
			x.enter(0)
			defer process.queues.leave(x.attempts.ticket)
			x.attempts.isQueued = isQueued
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/chat", nil)
			r = r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{}))
			next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
				equal(t, isQueued, x.seen.isStarted.Load(), "noted as started")
				return nil
			})
			must(t, x.serve(new(tapWriter), r, next, time.Minute))
		})
	}
}

// TestHangupBeforeBackend: a client that leaves while a backend is being reached is sent to no other one.
func TestHangupBeforeBackend(t *testing.T) {
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // no handshake
	must(t, err)
	defer func() { _ = silent.Close() }()
	s := newStack(t, freeAddr(t))
	s.snippets(t, "import gateway_backend_open local "+s.upstream.server.URL,
		"import gateway_backend_open silent https://"+silent.Addr().String())
	s.run(t)
	defer s.stop()
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		g := newGrant(a)
		g.Backends = []string{"silent", "local"}
		giveGrant(w, r, g)
	})
	connection := s.dial(t)
	body := `{"model":"toy"}`
	_, err = fmt.Fprintf(connection, "POST /api/chat HTTP/1.1\r\nHost: a\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
		testKey(), len(body), body)
	must(t, err)
	for range 2 { // the health check connects as well
		_, err = silent.Accept()
		must(t, err)
	}
	_ = connection.Close()
	e := s.record(t, s.authz.last(t).ID)
	equal(t, outcomeClientDisconnected, e.Outcome, "outcome")
	equal(t, "", e.Tried, "tried")
	equal(t, 0, s.upstream.count(), "requests to the other")
}

// TestIdleConnections: a server that closes connections which were idle for 5 s may do so when the
// next request is on its way already; no request is lost by that.
func TestIdleConnections(t *testing.T) {
	const idle = 4700 * time.Millisecond
	s := newStack(t, freeAddr(t))
	backend := httptest.NewUnstartedServer(http.HandlerFunc(hello))
	var mu sync.Mutex
	idleSince := map[net.Conn]time.Time{}
	backend.Config.ConnState = func(c net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		since, isKept := idleSince[c]
		switch {
		case state == http.StateIdle:
			idleSince[c] = time.Now()
		case state == http.StateActive && isKept && time.Since(since) >= idle:
			_ = c.Close()
		}
	}
	backend.Start()
	defer backend.Close()
	s.snippets(t, "import gateway_backend_open local "+backend.URL)
	s.run(t)
	defer s.stop()
	s.authz.set(t, grantAll)

	equal(t, 200, s.post(t, "/api/chat", `{"model":"toy","stream":false}`).status, "status")
	<-time.After(idle + 50*time.Millisecond)
	equal(t, 200, s.post(t, "/api/chat", `{"model":"toy","stream":false}`).status, "status after the pause")
}
