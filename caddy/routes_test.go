package gateway

import (
	"net/http"
	"strings"
	"testing"
)

// TestRedirects: a known path with too many slashes is answered with where it is, without a look at
// key and body; of what is no known path, or differs in more, that is no way around a refusal.
func TestRedirects(t *testing.T) {
	s := sharedStack(t)
	for target, want := range map[string]string{
		"POST //api/chat": "/api/chat", "POST /api/chat/": "/api/chat", "GET /api///tags//": "/api/tags",
		"GET /v1//models": "/v1/models", "GET /v1/models/": "/v1/models", "GET //": "/", "GET /healthz/": "/healthz",
		"POST /v1/messages/?beta=true": "/v1/messages", "DELETE /api/tags/": "/api/tags",
		"POST //api/pull": "", "POST /api/pull/": "", "POST /api//blobs/x": "", "GET /v1/models/a/": "",
		"GET //a/api/tags": "", "GET /api/./tags/": "", "GET /API/tags/": "", "GET /api%2Ftags/": "",
	} {
		s.upstream.set(t, nil)
		a := s.raw(t, target+" HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n")
		equal(t, want, a.header.Get("Location"), target)
		equal(t, want != "", a.status == http.StatusTemporaryRedirect, target)
		equal(t, 0, s.upstream.count(), target+": hits")
		if record := s.record(t, a.id); want != "" {
			equal(t, outcomeRefused, record.Outcome, target)
			equal(t, string(reasonPathSlashes), *record.Reason, target)
		}
	}
}

// TestMutations: no spelling, method or header makes a mutation reach a backend, though
// authz here would grant it.
func TestMutations(t *testing.T) {
	s := sharedStack(t)
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) { giveGrant(w, r, newGrant(a)) })
	paths := []string{
		"/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/blobs/sha256:x",
		"/api%2Fpull", "/api%2fpull", "/%61pi/pull", "/api/pul%6C", "//api/pull", "/api//pull",
		"/api/./pull", "/api/tags/../pull", "/api/tags/%2e%2e/pull", "/api/pull/", "/api/pull;x", "/api/pull%00",
		"/api/pull%20", "/API/PULL", "/api/chat/../pull", "/v1/models/../../api/pull", "/api/me", "/metrics",
	}
	for _, path := range paths {
		for _, method := range []string{"GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS", "post", "PATCH"} {
			a := s.raw(t, method+" "+path+" HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+testKey()+
				"\r\nX-HTTP-Method-Override: POST\r\nX-Forwarded-Uri: /api/chat\r\nContent-Length: 2\r\n\r\n{}")
			if a.status < 400 {
				t.Errorf("%s %s: %d", method, path, a.status)
			}
		}
	}
	equal(t, 0, s.upstream.count(), "hits")
}

// TestReads: a read route is answered by authz at its own path, without body or query.
func TestReads(t *testing.T) {
	s := sharedStack(t)
	key := []string{"Authorization", "Bearer " + testKey()}
	for _, path := range []string{"/api/version", "/api/tags", "/api/ps", "/v1/models", "/v1/models/llama3.2:1b"} {
		a := s.send(t, "GET", path+"?x=1", "", key...)
		equal(t, `{"from":"authz","path":"`+path+`"}`, a.body, path)
		e := s.record(t, a.id)
		equal(t, outcomeCompleted, e.Outcome, path)
		equal(t, testTenant, *e.Tenant, path)
	}
	a := s.send(t, "GET", "/v1/models/hf.co%2Fx%2Fy%3Atag", "", key...)
	equal(t, 200, a.status, "an escaped name")
	equal(t, "/v1/models/hf.co/x/y:tag", s.authz.last(t).Path, "its path")
	a = s.send(t, "POST", "/api/show", `{"model":"toy","verbose":true}`, key...)
	equal(t, 200, a.status, "show")
	equal(t, "toy", *s.authz.last(t).Model, "model of show")
	s.send(t, "POST", "/api/show", `{"name":"old"}`, key...)
	equal(t, "old", *s.authz.last(t).Model, "name of show")
	equal(t, 200, s.send(t, "HEAD", "/api/tags", "", key...).status, "HEAD")
	equal(t, 401, s.send(t, "GET", "/api/tags", "").status, "without a key")
	s.authz.set(t, func(w http.ResponseWriter, _ *http.Request, _ ask) { _, _ = w.Write([]byte("secret")) })
	a = s.send(t, "GET", "/api/tags", "", key...)
	equal(t, 503, a.status, "2xx without a Grant")
	equal(t, false, strings.Contains(a.body, "secret"), a.body)
	equal(t, 0, s.upstream.count(), "hits")
}

// TestPublic: what anyone may ask is answered without an Ask, and recorded.
func TestPublic(t *testing.T) {
	s := sharedStack(t)
	before := s.authz.count()
	for path, want := range map[string]string{"/healthz": `{"status":"ok"}`, "/": "Ollama is running"} {
		a := s.send(t, "GET", path, "", "Host", "strange.example")
		equal(t, want, a.body, path)
		e := s.record(t, a.id)
		equal(t, outcomeCompleted, e.Outcome, path)
		equal(t, 200, e.Status, path)
	}
	equal(t, 200, s.send(t, "HEAD", "/", "").status, "HEAD /")
	equal(t, before, s.authz.count(), "Asks")
	equal(t, 200, s.send(t, "GET", "/readyz", "").status, "readyz")
	equal(t, `{"from":"authz","path":"/me"}`, s.send(t, "GET", "/me", "").body, "the page of a key's holder")
	a := s.send(t, "OPTIONS", "/api/chat", "", "Origin", "http://page", "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", "authorization,x-stainless-os")
	equal(t, 204, a.status, "preflight")
	equal(t, "*", a.header.Get("Access-Control-Allow-Origin"), "origin")
	equal(t, "authorization,x-stainless-os", a.header.Get("Access-Control-Allow-Headers"), "headers")
	a = s.send(t, "POST", "/api/chat", "{}", "Origin", "http://page")
	equal(t, 401, a.status, "status")
	equal(t, "*", a.header.Get("Access-Control-Allow-Origin"), "origin on a refusal")
}
