package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
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

const (
	patience = 10 * time.Second
	// soon is when a kill must have ended a stream: 100 ms, and what a busy machine adds.
	soon = 400 * time.Millisecond
)

const (
	testTenant = "5f64c1de-6a27-4a35-8f43-5f7b6f3a2c11"
	testKeyID  = "b2b1f9a0-52a5-4c2a-9f0f-1c8ad6a3b8a1"
)

// testKey is a well-formed key.
func testKey() string { return keyOf("nz_3bVSxmba") }

func keyOf(lookup string) string {
	body := lookup + "0123456789abcdefghijklmnopqrstuv"
	return body + keyCheck(body)
}

// output is what a process says while others read it.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// stack is a real Caddy with the real Caddyfile between the two.
type stack struct {
	dir, addr, url string
	caddyfile      string
	client         *http.Client
	authz          *authz
	upstream       *upstream
	cmd            *exec.Cmd
	stderr         output
	exited         chan error
}

func startStack(t testing.TB) *stack {
	t.Helper()
	s := newStack(t, freeAddr(t))
	s.run(t)
	return s
}

// newStack is everything but Caddy.
func newStack(t testing.TB, addr string) *stack {
	t.Helper()
	dir, err := os.MkdirTemp("", "nz") //nolint:usetesting // the path of a socket must be short
	must(t, err)
	s := &stack{dir: dir, addr: addr, url: "http://" + addr, client: http.DefaultClient, upstream: newUpstream()}
	s.caddyfile, err = filepath.Abs("Caddyfile")
	must(t, err)
	s.authz = newAuthz(t, filepath.Join(dir, "authz.sock"))
	must(t, os.Mkdir(filepath.Join(dir, "backends.d"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "credential"), []byte("Bearer of the backend"), 0o600))
	s.snippets(t, "import gateway_backend_open local "+s.upstream.server.URL, "import gateway_backend secured "+
		s.upstream.server.URL+` Authorization "{file.`+s.path("credential")+`}"`)
	return s
}

// snippets writes the backends' file.
func (s *stack) snippets(t testing.TB, lines ...string) {
	t.Helper()
	text := strings.Join(lines, "\n") + "\n"
	must(t, os.WriteFile(s.path("backends.d/all.caddy"), []byte(text), 0o600))
}

// command is a Caddy for this stack.
func (s *stack) command(t testing.TB, extra ...string) *exec.Cmd {
	t.Helper()
	executable, err := os.Executable()
	must(t, err)
	// Its end is the stack's business: a stack may outlive the test that starts it.
	command := exec.CommandContext(context.Background(), executable, "run", "--config", s.caddyfile, "--adapter", "caddyfile")
	command.Env = append(os.Environ(), asCaddy+"=1", "HOME="+s.dir, "XDG_DATA_HOME="+s.dir,
		"XDG_CONFIG_HOME="+s.dir, "GATEWAY_SITE=http://:"+s.addr[strings.LastIndexByte(s.addr, ':')+1:],
		"GATEWAY_BIND=127.0.0.1", "GATEWAY_AUTHZ=unix/"+s.path("authz.sock"),
		"GATEWAY_JOURNAL="+s.path("journal/journal.log"), "GATEWAY_BACKENDS="+s.path("backends.d"),
		"GATEWAY_CONTROL="+s.path("control.sock"), "GATEWAY_GRACE=1s", "GATEWAY_DRAIN=0s")
	command.Env = append(command.Env, extra...)
	return command
}

// run starts Caddy, or starts it again.
func (s *stack) run(t testing.TB, extra ...string) {
	t.Helper()
	s.cmd = s.command(t, extra...)
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
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/healthz", nil)
		must(t, err)
		response, err := s.client.Do(request)
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		control, err := new(net.Dialer).DialContext(t.Context(), "unix", s.path("control.sock"))
		if err != nil { // the file is there before anything listens
			return false
		}
		_ = control.Close()
		return response.StatusCode == http.StatusOK
	})
}

func (s *stack) transport() http.RoundTripper {
	if s.client.Transport != nil {
		return s.client.Transport
	}
	return http.DefaultTransport
}

func (s *stack) path(name string) string { return filepath.Join(s.dir, name) }

// wait returns how Caddy ended.
func (s *stack) wait() error { return <-s.exited }

func (s *stack) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.wait()
	if strings.Contains(s.stderr.String(), "DATA RACE") {
		panic(s.stderr.String())
	}
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

// freeAddr is an address on which nothing listens, below the ports that the kernel lends to connections,
// any of which could take it before the server that it is for.
func freeAddr(t testing.TB) string {
	t.Helper()
	for {
		addr := "127.0.0.1:" + strconv.Itoa(10_000+rand.IntN(20_000))
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		if err == nil {
			must(t, listener.Close())
			return addr
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
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
	equal(t, toJSON(want), toJSON(got), what)
}

func toJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
