package gateway

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// TestRefusals: what the guard finds wrong goes to authz as a problem, reaches no backend,
// is recorded, and its answer waits for no body.
func TestRefusals(t *testing.T) {
	s := sharedStack(t)
	key := "Authorization: Bearer " + testKey() + "\r\n"
	other := "X-Api-Key: " + keyOf("nz_3bVSxmbb") + "\r\n"
	chat := func(headers, body string) string {
		return "POST /api/chat HTTP/1.1\r\nHost: a\r\n" + headers + "\r\n" + body
	}
	sized := func(headers, body string) string {
		return chat(fmt.Sprintf("%sContent-Length: %d\r\n", headers, len(body)), body)
	}
	for _, c := range []struct {
		name, text string
		status     int
		problem    problem
	}{
		{"no key", sized("", `{"model":"m"}`), 401, ""},
		{"no key and no body", chat("Content-Length: 500000\r\n", ""), 401, ""},
		{"no key and an endless body", chat("Transfer-Encoding: chunked\r\n", ""), 401, ""},
		{"malformed key", sized("Authorization: Bearer nz_x\r\n", `{}`), 401, ""},
		{"two keys", sized(key+other, `{}`), 400, problemCredential},
		{"two keys and no body", chat(key+other+"Content-Length: 500000\r\n", ""), 400, problemCredential},
		{"unknown path", "GET /favicon.ico HTTP/1.1\r\nHost: a\r\n" + key + "\r\n", 404, ""},
		{"mutation", "POST /api/pull HTTP/1.1\r\nHost: a\r\n" + key + "Content-Length: 9\r\n\r\n", 404, ""},
		{"encoded mutation", "POST /api%2Fpull HTTP/1.1\r\nHost: a\r\n" + key + "\r\n", 400, problemTarget},
		{"dotted", "GET /api/tags/../pull HTTP/1.1\r\nHost: a\r\n" + key + "\r\n", 400, problemTarget},
		{"doubled", "POST //api/pull HTTP/1.1\r\nHost: a\r\n" + key + "\r\n", 400, problemTarget},
		{"opaque", "GET x:http://a/healthz HTTP/1.1\r\nHost: a\r\n" + key + "\r\n", 400, problemTarget},
		{"absolute", "GET http://a/healthz HTTP/1.1\r\nHost: a\r\n" + key + "\r\n", 400, problemTarget},
		{"star", "POST * HTTP/1.1\r\nHost: a\r\n" + key + "Content-Length: 0\r\n\r\n", 400, problemTarget},
		{"connect", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n" + key + "\r\n", 400, problemTarget},
		{"wrong method", "GET /api/chat HTTP/1.1\r\nHost: a\r\n" + key + "\r\n", 404, ""},
		{"broken", sized(key, `{"model":`), 400, problemNotJSON},
		{"empty", sized(key, ``), 400, problemNotJSON},
		{"twice", sized(key, `{"model":"a","model":"b"}`), 400, problemDuplicate},
		{"cased", sized(key, `{"Model":"a"}`), 400, problemField},
		{"typed", sized(key, `{"model":7}`), 400, problemField},
		{"large", chat(key+"Content-Length: 99999999\r\n", "{"), 400, problemTooLarge},
		{"gzip", chat(key+"Content-Encoding: gzip\r\nContent-Length: 99\r\n", ""), 400, problemEncoding},
		{"zstd", chat(key+"Content-Encoding: zstd\r\nTransfer-Encoding: chunked\r\n", ""), 400, problemEncoding},
	} {
		s.upstream.set(t, nil)
		start := time.Now()
		a := s.raw(t, c.text)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s: refused after %v", c.name, took)
		}
		equal(t, c.status, a.status, c.name)
		equal(t, 0, s.upstream.count(), c.name+": hits")
		found := noProblem
		if asked := s.authz.last(t); asked.Problem != nil {
			found = *asked.Problem
		}
		equal(t, c.problem, found, c.name)
		equal(t, outcomeDenied, s.record(t, a.id).Outcome, c.name)
	}
}

// TestWhatPasses: nothing that a client sends looks like ours, and neither the client's key
// nor our messages reach the backend; what authz sees is what the guard understood,
// and the key.
func TestWhatPasses(t *testing.T) {
	s := sharedStack(t)
	s.upstream.set(t, nil)
	sent := make(chan http.Header, 1)
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		sent <- r.Header
		grantAll(w, r, a)
	})
	a := s.post(t, "/v1/messages?beta=true", `{"model":"m{env.HOME}","max_tokens":5,"messages":[]}`,
		"X-Nz-Ask", `{"id":"forged"}`, "X-Nz-Grant", "forged", "X-Api-Key", testKey(), "Cookie", "a=b",
		"Connection", "X-Nz-Ask, X-Nz-Grant, Authorization", "X-Forwarded-Uri", "/healthz",
		"X-Forwarded-For", "1.2.3.4", "Origin", "http://evil", "Accept-Encoding", "gzip", "Te", "trailers",
		"Anthropic-Version", "2023-06-01")
	equal(t, 200, a.status, "status")
	asked := s.authz.last(t)
	equal(t, a.id, asked.ID, "id")
	equal(t, "m{env.HOME}", *asked.Model, "model")
	equal(t, "127.0.0.1", asked.IP, "ip")
	equal(t, a.id, a.header.Get("Request-Id"), "Anthropic's name of the id")
	ours := slices.Sorted(maps.Keys(<-sent))
	equal(t, "Authorization User-Agent X-Forwarded-Method X-Forwarded-Uri X-Nz-Ask", strings.Join(ours, " "), "to authz")
	equal(t, "/v1/messages", asked.Path, "path")
	h := s.upstream.last(t)
	equal(t, "/v1/messages?beta=true", h.uri, "uri")
	equal(t, `{"model":"m{env.HOME}","max_tokens":5,"messages":[]}`, string(h.body), "body")
	equal(t, "2023-06-01", h.header.Get("Anthropic-Version"), "header")
	for name, values := range h.header {
		switch {
		case strings.HasPrefix(name, "X-Nz-"), strings.HasPrefix(name, "X-Forwarded-"),
			name == "Authorization", name == "X-Api-Key", name == "Cookie", name == "Origin",
			name == "Accept-Encoding", name == "Via", name == "Te", name == "Connection":
			t.Errorf("the backend sees %s: %s", name, values)
		}
	}
}

// TestSecretsStayInside: no key is in the journal or in Caddy's own log (C3).
func TestSecretsStayInside(t *testing.T) {
	s := sharedStack(t)
	for _, header := range []string{"X-Api-Key", "Api-Key"} {
		s.send(t, "POST", "/api/chat?key="+testKey(), `{"model":"m"}`, header, testKey())
		s.authz.set(t, func(http.ResponseWriter, *http.Request, ask) { panic(http.ErrAbortHandler) })
		s.send(t, "POST", "/api/chat?key="+testKey(), `{"model":"m"}`, header, testKey())
		s.authz.set(t, nil)
	}
	eventually(t, "authz is asked again", func() bool { return s.post(t, "/api/chat", `{"model":"m"}`).status == 200 })
	for _, l := range s.lines(t) {
		equal(t, false, strings.Contains(l.raw, testKey()), l.raw)
	}
	equal(t, false, strings.Contains(s.stderr.String(), testKey()), "Caddy's log")
}

// TestListedOrigins: web pages of the origins in the list are let in, each by its own name, and no other.
func TestListedOrigins(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.run(t, "GATEWAY_CORS_ORIGIN=http://page http://other:81")
	defer s.stop()
	for origin, want := range map[string]string{
		"http://page": "http://page", "http://other:81": "http://other:81", "http://other": "", "http://page:80": "",
		"http://page http://other:81": "", "null": "", "HTTP://PAGE": "", "*": "",
	} {
		for _, method := range []string{"OPTIONS", "POST"} {
			a := s.send(t, method, "/api/chat", "", "Origin", origin, "Access-Control-Request-Method", "POST")
			equal(t, want, a.header.Get("Access-Control-Allow-Origin"), method+" from "+origin)
			equal(t, "", a.header.Get("Access-Control-Allow-Credentials"), "credentials of "+origin)
			if want != "" {
				equal(t, "Origin", a.header.Get("Vary"), "what the answer depends on")
			}
		}
	}
	equal(t, "", s.send(t, "POST", "/api/chat", "").header.Get("Access-Control-Allow-Origin"), "without an origin")
}

// TestAnyHost: a strange Host gets the same verdict, never an empty 200.
func TestAnyHost(t *testing.T) {
	s := sharedStack(t)
	for _, host := range []string{"API.EXAMPLE.COM", "h:1", "api.example.com.", "127.0.0.1"} {
		a := s.raw(t, "GET /api/tags HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		equal(t, 401, a.status, host)
		equal(t, outcomeDenied, s.record(t, a.id).Outcome, host)
	}
}

// TestSlowBody: a body that stops coming is refused after the idle time, not waited for.
func TestSlowBody(t *testing.T) {
	s := sharedStack(t)
	before := s.authz.count()
	start := time.Now()
	a := s.raw(t, "POST /api/chat HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+testKey()+
		"\r\nContent-Length: 1000\r\n\r\n{")
	equal(t, 408, a.status, "status")
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("refused after %v", took)
	}
	e := s.record(t, a.id)
	equal(t, outcomeRefused, e.Outcome, "outcome")
	equal(t, "body_slow", *e.Reason, "reason")
	equal(t, before, s.authz.count(), "Asks")
}

// TestDone: what has ended is sent to authz with the next Ask, once, and again if authz
// did not take it.
func TestDone(t *testing.T) {
	s := sharedStack(t)
	first := s.post(t, "/api/chat", `{"model":"m"}`)
	s.record(t, first.id)
	s.authz.set(t, func(http.ResponseWriter, *http.Request, ask) { panic(http.ErrAbortHandler) })
	s.record(t, s.post(t, "/api/chat", `{"model":"m"}`).id)
	s.authz.set(t, nil)
	sent := 0
	eventually(t, "authz has it", func() bool {
		a := s.post(t, "/api/chat", `{"model":"m"}`)
		if a.status != 200 {
			return false
		}
		for _, e := range s.authz.last(t).Done {
			if e == (doneRequest{first.id, testTenant, testKeyID}) {
				sent++
			}
		}
		return sent > 0
	})
	s.post(t, "/api/chat", `{"model":"m"}`)
	for _, e := range s.authz.last(t).Done {
		if e.ID == first.id {
			t.Error("sent twice")
		}
	}
}

// TestClosedDoors: while the journal cannot be written nothing is asked and nothing
// forwarded; what is public goes on.
func TestClosedDoors(t *testing.T) {
	process, _ := replaceProcess(t)
	process.once.Do(func() {})
	j := newJournal(t, new(disk))
	j.isClosed.Store(true)
	process.journal.Store(j)
	for target, want := range map[string]int{"/api/chat": 503, "/api/tags": 503, "/api/pull": 503, "/readyz": 503, "/healthz": 200} {
		reached := false
		next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			reached = true
			w.WriteHeader(http.StatusOK)
			return nil
		})
		method := http.MethodPost
		if findRoute(http.MethodGet, target).class == public {
			method = http.MethodGet
		}
		out := httptest.NewRecorder()
		request := caddyhttp.PrepareRequest(httptest.NewRequestWithContext(t.Context(), method, target, nil), caddy.NewReplacer(), out, nil)
		guard := &Guard{MaxBodyBytes: defaultMaxBody}
		must(t, guard.ServeHTTP(out, request, next))
		equal(t, want, out.Code, target)
		equal(t, want == 200, reached, target)
	}
}
