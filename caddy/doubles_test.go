package gateway

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
)

// authz stands in for the decision: it grants everything that has no problem, unless a
// test says otherwise.
type authz struct {
	server *httptest.Server
	mu     sync.Mutex
	asks   []ask
	paths  []string
	verify func(w http.ResponseWriter, r *http.Request, a ask)

	// Asks about a key alone are kept apart; every key is known, unless a test says otherwise.
	keyAsks []ask
	know    func(w http.ResponseWriter, r *http.Request, a ask)
}

func (a *authz) answerKey(w http.ResponseWriter, r *http.Request, got ask) {
	a.mu.Lock()
	a.keyAsks = append(a.keyAsks, got)
	know := a.know
	a.mu.Unlock()
	if know == nil {
		know = sayKnown
	}
	know(w, r, got)
}

// setKnow makes authz answer Asks about a key alone until the end of the test.
func (a *authz) setKnow(t testing.TB, know func(http.ResponseWriter, *http.Request, ask)) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.know = know
	t.Cleanup(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.know = nil
	})
}

// aboutKeys are the Asks about a key alone so far.
func (a *authz) aboutKeys() []ask {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.keyAsks)
}

func sayKnown(w http.ResponseWriter, _ *http.Request, a ask) {
	w.Header().Set(knownHeader, marshalASCII(known{V: version, ID: a.ID}))
	w.WriteHeader(http.StatusNoContent)
}

func newAuthz(t testing.TB, socket string) *authz {
	t.Helper()
	a := new(authz)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	must(t, err)
	a.server = httptest.NewUnstartedServer(a)
	a.server.Listener = listener
	a.server.Start()
	return a
}

func (a *authz) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var got ask
	_ = json.Unmarshal([]byte(r.Header.Get(askHeader)), &got)
	if got.Problem != nil && *got.Problem == problemUnread {
		a.answerKey(w, r, got)
		return
	}
	a.mu.Lock()
	a.asks = append(a.asks, got)
	a.paths = append(a.paths, r.URL.RequestURI())
	verify := a.verify
	a.mu.Unlock()
	if verify == nil {
		verify = grantAll
	}
	verify(w, r, got)
}

// set makes authz behave until the end of the test.
func (a *authz) set(t testing.TB, verify func(http.ResponseWriter, *http.Request, ask)) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.verify = verify
	t.Cleanup(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.verify = nil
	})
}

func (a *authz) last(t testing.TB) ask {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.asks) == 0 {
		t.Fatal("authz was not asked")
	}
	return a.asks[len(a.asks)-1]
}

func (a *authz) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asks)
}

func newGrant(a ask) grant {
	return grant{
		V: version, ID: a.ID, Tenant: testTenant, Key: testKeyID, Backends: []string{"local"},
		MaxOutput: a.MaxOutput, Reserved: &tokens{94, 256},
		Windows: &windows{"2026-11-25", "2026-11"}, Drop: []string{}, Headers: map[string]string{},
		DeadlineS: 1800,
	}
}

func grantAll(w http.ResponseWriter, r *http.Request, a ask) {
	switch {
	case a.Problem != nil:
		deny(w, a, http.StatusBadRequest, string(*a.Problem))
	case a.Lookup == nil && r.URL.Path != "/readyz" && r.URL.Path != "/me":
		deny(w, a, http.StatusUnauthorized, "key_missing")
	case r.URL.Path == "/verify" && findRoute(a.Method, a.Path).class == unknown:
		deny(w, a, http.StatusNotFound, "path_unknown")
	default:
		giveGrant(w, r, newGrant(a))
	}
}

func giveGrant(w http.ResponseWriter, r *http.Request, g grant) {
	w.Header().Set(grantHeader, marshalASCII(g))
	if r.URL.Path == "/verify" {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	_, _ = io.WriteString(w, `{"from":"authz","path":"`+r.URL.RequestURI()+`"}`)
}

func deny(w http.ResponseWriter, a ask, status int, reason string) {
	w.Header().Set(denialHeader, marshalASCII(denial{V: version, ID: a.ID, Reason: &reason}))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"error":"`+reason+`"}`)
}

// upstream stands in for a backend; what reached it is remembered.
type upstream struct {
	server *httptest.Server
	mu     sync.Mutex
	hits   []hit
	serve  http.HandlerFunc
}

type hit struct {
	method, uri string
	header      http.Header
	body        []byte
}

func newUpstream() *upstream {
	u := new(upstream)
	u.server = httptest.NewServer(u)
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/api/version" {
		_, _ = io.WriteString(w, `{"version":"0.34.4"}`)
		return
	}
	body, _ := io.ReadAll(r.Body)
	u.mu.Lock()
	u.hits = append(u.hits, hit{r.Method, r.RequestURI, r.Header.Clone(), body})
	serve := u.serve
	u.mu.Unlock()
	if serve != nil {
		serve(w, r)
	}
}

func (u *upstream) set(t testing.TB, serve http.HandlerFunc) {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.serve, u.hits = serve, nil
	t.Cleanup(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.serve = nil
	})
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.hits)
}

func (u *upstream) last(t testing.TB) hit {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.hits) == 0 {
		t.Fatal("nothing reached the backend")
	}
	return u.hits[len(u.hits)-1]
}
