package gateway

import (
	"net/http"
	"testing"
	"time"
)

// strangerKey is a well-formed key that is granted nowhere, so that this node does not know it.
func strangerKey() string {
	body := "nz_5tRaNgEr" + "0123456789abcdefghijklmnopqrstuv"
	return body + keyCheck(body)
}

// unfinished is a request whose body never comes.
func unfinished(path string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + strangerKey() +
		"\r\nContent-Length: 500000\r\n\r\n{"
}

// TestUnknownKeyUnread: a key that authz does not know is refused while its body is unread; the
// request has one record, with the id that authz was asked with, and reaches no backend.
func TestUnknownKeyUnread(t *testing.T) {
	s := sharedStack(t)
	s.authz.setKnow(t, func(w http.ResponseWriter, _ *http.Request, a ask) {
		deny(w, a, http.StatusUnauthorized, "key_unknown")
	})
	for _, path := range []string{"/api/chat", "/v1/messages", "/api/show"} {
		asked, decided := len(s.authz.aboutKeys()), s.authz.count()
		start := time.Now()
		a := s.raw(t, unfinished(path))
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s: refused after %v", path, took)
		}
		equal(t, http.StatusUnauthorized, a.status, path)
		equal(t, `{"error":"key_unknown"}`, a.body, path)
		asks := s.authz.aboutKeys()[asked:]
		equal(t, 1, len(asks), path+": Asks about the key")
		equal(t, decided, s.authz.count(), path+": other Asks")
		equal(t, a.id, asks[0].ID, path)
		equal(t, 0, len(asks[0].Done), path+": ended requests named")
		r := s.record(t, a.id)
		equal(t, outcomeDenied, r.Outcome, path)
		equal(t, 0, s.upstream.count(), path+": hits")
	}
}

// TestKnownKeyRead: a key that authz knows is asked for again with its body, under an id of its
// own, which alone is recorded; once granted here it is asked for once.
func TestKnownKeyRead(t *testing.T) {
	s := startStack(t)
	t.Cleanup(s.stop)
	for i, want := range []int{1, 1} {
		a := s.post(t, "/api/chat", `{"model":"m","messages":[]}`)
		equal(t, want, len(s.authz.aboutKeys()), "Asks about the key")
		equal(t, i+1, s.authz.count(), "Asks")
		equal(t, s.authz.last(t).ID, a.id, "the id of the answer")
		equal(t, true, s.authz.aboutKeys()[0].ID != a.id, "an id of its own")
	}
}

// TestForeignKnown: whatever else authz answers to an Ask about a key, the body is not read and
// nothing reaches a backend.
func TestForeignKnown(t *testing.T) {
	s := sharedStack(t)
	for name, know := range map[string]func(http.ResponseWriter, *http.Request, ask){
		"nothing": func(w http.ResponseWriter, _ *http.Request, _ ask) { w.WriteHeader(http.StatusNoContent) },
		"another id": func(w http.ResponseWriter, r *http.Request, _ ask) {
			sayKnown(w, r, ask{ID: "019ab5c0-1c00-7000-8000-000000000003"})
		},
		"a Grant": func(w http.ResponseWriter, r *http.Request, a ask) { giveGrant(w, r, newGrant(a)) },
		"a page":  func(w http.ResponseWriter, _ *http.Request, _ ask) { _, _ = w.Write([]byte("welcome")) },
		"another Denial": func(w http.ResponseWriter, _ *http.Request, _ ask) {
			deny(w, ask{ID: "019ab5c0-1c00-7000-8000-000000000003"}, http.StatusUnauthorized, "key_unknown")
		},
		"a refusal without end": func(w http.ResponseWriter, _ *http.Request, a ask) {
			deny(w, a, http.StatusUnauthorized, string(make([]byte, maxRefusalBytes)))
		},
	} {
		s.authz.setKnow(t, know)
		for _, path := range []string{"/api/chat", "/api/show"} {
			a := s.raw(t, unfinished(path))
			equal(t, true, a.status == http.StatusServiceUnavailable || a.status == http.StatusBadGateway, name+path)
			equal(t, outcomeAuthzFailed, s.record(t, a.id).Outcome, name+path)
			equal(t, 0, s.upstream.count(), name+path+": hits")
		}
	}
	s.authz.setKnow(t, nil)
	eventually(t, "authz is asked again", func() bool { return s.post(t, "/api/chat", `{"model":"m"}`).status == 200 })
}
