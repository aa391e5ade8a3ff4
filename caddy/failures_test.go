package gateway

import (
	"net/http"
	"strings"
	"testing"
)

// TestGrants: only a Grant of this very request, in time, reaches a backend (G1, G2).
func TestGrants(t *testing.T) {
	s := sharedStack(t)
	var earlier grant
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		earlier = newGrant(a)
		giveGrant(w, r, earlier)
	})
	equal(t, 200, s.post(t, "/api/chat", `{"model":"m"}`).status, "granted")
	for _, c := range []struct {
		name   string
		verify func(w http.ResponseWriter, r *http.Request, a ask)
		reason string
	}{
		{"no Grant", func(w http.ResponseWriter, _ *http.Request, _ ask) { w.WriteHeader(204) }, "grant_missing"},
		{"a page", func(w http.ResponseWriter, _ *http.Request, _ ask) { _, _ = w.Write([]byte("hi")) }, "grant_missing"},
		{"garbage", func(w http.ResponseWriter, _ *http.Request, _ ask) {
			w.Header().Set(grantHeader, "{")
			w.WriteHeader(204)
		}, "grant_invalid"},
		{"replayed", func(w http.ResponseWriter, r *http.Request, _ ask) { giveGrant(w, r, earlier) }, "grant_invalid"},
		{"another version", func(w http.ResponseWriter, r *http.Request, a ask) {
			g := newGrant(a)
			g.V = 2
			giveGrant(w, r, g)
		}, "grant_invalid"},
		{"no backend", func(w http.ResponseWriter, r *http.Request, a ask) {
			g := newGrant(a)
			g.Backends = nil
			giveGrant(w, r, g)
		}, "grant_invalid"},
		{"unknown backend", func(w http.ResponseWriter, r *http.Request, a ask) {
			g := newGrant(a)
			g.Backends = []string{"nowhere"}
			giveGrant(w, r, g)
		}, "backend_unknown"},
	} {
		s.upstream.set(t, nil)
		s.authz.set(t, c.verify)
		a := s.post(t, "/api/chat", `{"model":"m"}`)
		equal(t, 503, a.status, c.name)
		equal(t, !reason(c.reason).isFinal(), a.header.Get("Retry-After") == "1", c.name)
		equal(t, 0, s.upstream.count(), c.name+": hits")
		e := s.record(t, a.id)
		equal(t, outcomeRefused, e.Outcome, c.name)
		equal(t, c.reason, *e.Reason, c.name)
	}
}

// hijacked is an authz that writes bytes of its own and hangs up.
func hijacked(text string) func(http.ResponseWriter, *http.Request, ask) {
	return func(w http.ResponseWriter, _ *http.Request, _ ask) {
		connection, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = connection.Write([]byte(text))
			_ = connection.Close()
		}
	}
}

// TestAuthzFails: however authz fails, the client gets JSON in its dialect that says
// nothing of what is inside, and no backend is reached (G2).
func TestAuthzFails(t *testing.T) {
	s := sharedStack(t)
	status := func(code int) func(http.ResponseWriter, *http.Request, ask) {
		return func(w http.ResponseWriter, _ *http.Request, _ ask) { w.WriteHeader(code) }
	}
	release := make(chan struct{})
	defer close(release)
	for _, c := range []struct {
		name   string
		verify func(http.ResponseWriter, *http.Request, ask)
		status int
		reason string
	}{
		{"no answer", hijacked(""), 502, "authz_unreachable"},
		{"garbage", hijacked("what?\r\n\r\n"), 502, "authz_unreachable"},
		{"half a head", hijacked("HTTP/1.1 204 No"), 502, "authz_unreachable"},
		{"hangs", func(_ http.ResponseWriter, r *http.Request, _ ask) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}, 504, "authz_timeout"},
		{"403 without a Denial", status(403), 503, "denial_invalid"},
		{"500 without a Denial", status(500), 503, "denial_invalid"},
		{"a redirect", status(302), 503, "denial_invalid"},
		{"not modified", status(304), 503, "denial_invalid"},
		{"a Denial of another", func(w http.ResponseWriter, _ *http.Request, _ ask) {
			deny(w, ask{ID: "another"}, 401, "key_unknown")
		}, 503, "denial_invalid"},
		{"a Denial that redirects", func(w http.ResponseWriter, _ *http.Request, a ask) {
			deny(w, a, 307, "key_unknown")
		}, 503, "denial_invalid"},
	} {
		for path, mark := range map[string]string{
			"/api/chat": `{"error":"`, "/v1/chat/completions": `{"error":{"message":"`, "/v1/messages": `{"type":"error","error":{"type":"`,
		} {
			if c.status == 504 && path != "/api/chat" {
				continue // two seconds once are enough
			}
			s.upstream.set(t, nil)
			s.authz.set(t, c.verify)
			a := s.post(t, path, `{"model":"m"}`)
			equal(t, c.status, a.status, c.name)
			equal(t, "1", a.header.Get("Retry-After"), c.name)
			equal(t, "application/json", a.header.Get("Content-Type"), c.name)
			equal(t, true, strings.HasPrefix(a.body, mark), c.name+": "+a.body)
			equal(t, false, strings.Contains(a.body, "sock"), c.name+": "+a.body)
			equal(t, 0, s.upstream.count(), c.name+": hits")
			e := s.record(t, a.id)
			equal(t, outcomeAuthzFailed, e.Outcome, c.name)
			equal(t, c.reason, *e.Reason, c.name)
			s.authz.set(t, nil)
			eventually(t, "authz is asked again", func() bool {
				return s.post(t, "/api/chat", `{"model":"m"}`).status == 200
			})
		}
	}
}

// TestProbesWithoutAuthz: while authz is away a probe is answered that nothing is ready, which is no refusal,
// and a client is refused.
func TestProbesWithoutAuthz(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.run(t, "GATEWAY_AUTHZ=unix/"+s.path("away.sock"))
	defer s.stop()
	for _, path := range []string{"/readyz", "/me"} {
		a := s.send(t, "GET", path, "")
		equal(t, 503, a.status, path)
		e := s.record(t, a.id)
		equal(t, outcomeCompleted, e.Outcome, path)
		equal(t, string(reasonAuthzUnreachable), *e.Reason, path)
	}
	equal(t, outcomeAuthzFailed, s.record(t, s.post(t, "/api/chat", `{"model":"m"}`).id).Outcome, "a client")
}

// TestDenials: a Denial of this request is the client's answer as authz worded it.
func TestDenials(t *testing.T) {
	s := sharedStack(t)
	s.authz.set(t, func(w http.ResponseWriter, _ *http.Request, a ask) {
		tenant := testTenant
		w.Header().Set("Retry-After", "7")
		w.Header().Set("X-Nz-Other", "secret")
		w.Header().Set(denialHeader, marshalASCII(denial{V: 1, ID: a.ID, Tenant: &tenant, Reason: &tenant}))
		w.WriteHeader(429)
		_, _ = w.Write([]byte("slow down"))
	})
	a := s.post(t, "/api/chat", `{"model":"m"}`)
	equal(t, 429, a.status, "status")
	equal(t, "slow down", a.body, "body")
	equal(t, "7", a.header.Get("Retry-After"), "Retry-After")
	for name := range a.header {
		if strings.HasPrefix(name, "X-Nz-") || name == "Via" || name == "Server" {
			t.Errorf("the client sees %s", name)
		}
	}
	e := s.record(t, a.id)
	equal(t, outcomeDenied, e.Outcome, "outcome")
	equal(t, testTenant, *e.Tenant, "tenant")
	equal(t, 0, s.upstream.count(), "hits")
}
