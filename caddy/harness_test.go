package gateway

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

// asCaddy makes the test binary a Caddy, so that no second binary need be linked.
const asCaddy = "GATEWAY_TEST_AS_CADDY"

func TestMain(m *testing.M) {
	if os.Getenv(asCaddy) != "" {
		caddycmd.Main()
		return
	}
	code := m.Run()
	stopShared()
	os.Exit(code)
}

const patience = 10 * time.Second

const (
	testTenant = "5f64c1de-6a27-4a35-8f43-5f7b6f3a2c11"
	testKeyID  = "b2b1f9a0-52a5-4c2a-9f0f-1c8ad6a3b8a1"
)

// testKey is a well-formed key.
func testKey() string {
	body := "nz_3bVSxmba" + "0123456789abcdefghijklmnopqrstuv"
	return body + keyCheck(body)
}

// authz stands in for the decision: it grants everything that has no problem, unless a
// test says otherwise.
type authz struct {
	server *httptest.Server
	mu     sync.Mutex
	asks   []ask
	paths  []string
	verify func(w http.ResponseWriter, r *http.Request, a ask)
}

func newAuthz(t testing.TB, socket string) *authz {
	a := new(authz)
	listener, err := net.Listen("unix", socket)
	must(t, err)
	a.server = httptest.NewUnstartedServer(a)
	a.server.Listener = listener
	a.server.Start()
	return a
}

func (a *authz) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var got ask
	_ = json.Unmarshal([]byte(r.Header.Get(askHeader)), &got)
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
		deny(w, a, http.StatusBadRequest, *a.Problem)
	case a.Lookup == nil && r.URL.Path != "/readyz":
		deny(w, a, http.StatusUnauthorized, "key_missing")
	case r.URL.Path == "/verify" && findRoute(a.Method, a.Path).class == unknown:
		deny(w, a, http.StatusForbidden, "path_unknown")
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

// stack is a real Caddy with the real Caddyfile between the two.
type stack struct {
	dir, addr, url string
	authz          *authz
	upstream       *upstream
	cmd            *exec.Cmd
	stderr         bytes.Buffer
	exited         chan error
}

func startStack(t testing.TB, extra ...string) *stack {
	t.Helper()
	dir, err := os.MkdirTemp("", "nz")
	must(t, err)
	s := &stack{dir: dir, upstream: newUpstream()}
	s.authz = newAuthz(t, filepath.Join(dir, "authz.sock"))
	must(t, os.Mkdir(filepath.Join(dir, "backends.d"), 0o700))
	line := "import gateway_backend local " + s.upstream.server.URL + "\n"
	must(t, os.WriteFile(filepath.Join(dir, "backends.d", "local.caddy"), []byte(line), 0o600))
	s.addr = freeAddr(t)
	s.url = "http://" + s.addr
	s.run(t, extra...)
	return s
}

// run starts Caddy, or starts it again.
func (s *stack) run(t testing.TB, extra ...string) {
	t.Helper()
	executable, err := os.Executable()
	must(t, err)
	caddyfile, err := filepath.Abs("Caddyfile")
	must(t, err)
	s.cmd = exec.Command(executable, "run", "--config", caddyfile, "--adapter", "caddyfile")
	s.cmd.Env = append(os.Environ(), asCaddy+"=1", "HOME="+s.dir, "XDG_DATA_HOME="+s.dir,
		"XDG_CONFIG_HOME="+s.dir, "GATEWAY_SITE=http://:"+s.addr[strings.LastIndexByte(s.addr, ':')+1:],
		"GATEWAY_BIND=127.0.0.1", "GATEWAY_AUTHZ=unix/"+s.path("authz.sock"),
		"GATEWAY_JOURNAL="+s.path("journal/journal.log"), "GATEWAY_BACKENDS="+s.path("backends.d"),
		"GATEWAY_CONTROL="+s.path("control.sock"), "GATEWAY_GRACE=1s")
	s.cmd.Env = append(s.cmd.Env, extra...)
	s.cmd.Stderr = &s.stderr
	must(t, s.cmd.Start())
	s.exited = make(chan error, 1)
	go func() { s.exited <- s.cmd.Wait() }()
	eventually(t, "Caddy answers", func() bool {
		select {
		case err := <-s.exited:
			t.Fatalf("Caddy ended: %v\n%s", err, s.stderr.String())
		default:
		}
		response, err := http.Get(s.url + "/healthz")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

func (s *stack) path(name string) string { return filepath.Join(s.dir, name) }

func (s *stack) stop() {
	_ = s.cmd.Process.Kill()
	<-s.exited
	s.authz.server.CloseClientConnections()
	s.authz.server.Close()
	s.upstream.server.CloseClientConnections()
	s.upstream.server.Close()
	_ = os.RemoveAll(s.dir)
}

var (
	shared     *stack
	sharedOnce sync.Once
)

// sharedStack is one stack for all tests that leave it as they found it.
func sharedStack(t testing.TB) *stack {
	t.Helper()
	sharedOnce.Do(func() { shared = startStack(t) })
	if shared == nil {
		t.Fatal("the shared stack did not start")
	}
	shared.upstream.set(t, nil)
	return shared
}

func stopShared() {
	if shared != nil {
		shared.stop()
	}
}

func freeAddr(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
	id     string
}

// post sends a body with a key, as an SDK would.
func (s *stack) post(t testing.TB, path, body string, headers ...string) answer {
	t.Helper()
	return s.send(t, http.MethodPost, path, body, append([]string{"Authorization", "Bearer " + testKey()}, headers...)...)
}

func (s *stack) send(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	must(t, err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	must(t, err)
	return readAnswer(t, response)
}

// try posts on a connection of its own, which a reload may reset.
func (s *stack) try(t testing.TB, path, body string) (answer, bool) {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, s.url+path, strings.NewReader(body))
	must(t, err)
	request.Header.Set("X-Api-Key", testKey())
	request.Close = true
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return answer{}, false
	}
	return readAnswer(t, response), true
}

func readAnswer(t testing.TB, response *http.Response) answer {
	t.Helper()
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(body), response.Header.Get("X-Request-Id")}
}

// raw sends bytes and returns what comes back.
func (s *stack) raw(t testing.TB, text string) answer {
	t.Helper()
	connection, err := net.Dial("tcp", s.addr)
	must(t, err)
	defer func() { _ = connection.Close() }()
	must(t, connection.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(connection, text)
	must(t, err)
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	must(t, err)
	return readAnswer(t, response)
}

// lines are the journal's lines, in order.
func (s *stack) lines(t testing.TB) []line {
	t.Helper()
	text, err := os.ReadFile(s.path("journal/journal.log"))
	must(t, err)
	var list []line
	for _, text := range bytes.Split(text, []byte{'\n'}) {
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		l.raw = string(text)
		list = append(list, l)
	}
	return list
}

// line is one line of the journal.
type line struct {
	raw     string
	Msg     string `json:"msg"`
	Gateway entry  `json:"gateway"`
}

type entry struct {
	ID             string  `json:"id"`
	Boot           string  `json:"boot"`
	Seq            uint64  `json:"seq"`
	Lookup         *string `json:"lookup"`
	Tenant         *string `json:"tenant"`
	Path           string  `json:"path"`
	Model          *string `json:"model"`
	Backend        *string `json:"backend"`
	Stream         *bool   `json:"stream"`
	Outcome        string  `json:"outcome"`
	Reason         *string `json:"reason"`
	Status         int     `json:"status"`
	UpstreamStatus *int    `json:"upstream_status"`
	Reserved       *tokens `json:"reserved"`
	Terminal       bool    `json:"terminal"`
	InputTokens    *int64  `json:"input_tokens"`
	OutputTokens   *int64  `json:"output_tokens"`
	CachedTokens   *int64  `json:"cached_tokens"`
	Deltas         int64   `json:"deltas"`
	OutputBytes    int64   `json:"output_bytes"`
	PromptBytes    int64   `json:"prompt_bytes"`
	TTFT           *int64  `json:"ttft_ms"`
	Duration       int64   `json:"duration_ms"`
}

// record waits for the record of a request.
func (s *stack) record(t testing.TB, id string) entry {
	t.Helper()
	var found entry
	eventually(t, "the record of "+id, func() bool {
		for _, l := range s.lines(t) {
			if l.Gateway.ID == id && l.Msg == "handled request" {
				found = l.Gateway
				return true
			}
		}
		return false
	})
	return found
}

// eventually waits for something that others do.
func eventually(t testing.TB, what string, isSo func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !isSo() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t testing.TB, want, got T, what string) {
	t.Helper()
	if want != got {
		t.Errorf("%s: want %v, got %v", what, want, got)
	}
}

func equalJSON(t testing.TB, want, got any, what string) {
	t.Helper()
	equal(t, fmt.Sprint(toJSON(want)), toJSON(got), what)
}

func toJSON(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}
