//go:debug multipathtcp=0

package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// TestDrain: a configuration that stops for another one closes no connection that its client may be about
// to use: whoever asks is answered and learns that this was the last answer, new connections come to the
// next configuration at once, and only what clients leave alone for as long as the drain lasts is closed.
func TestDrain(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.run(t, "GATEWAY_DRAIN=3s")
	defer s.stop()
	connect := func() net.Conn {
		connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.addr)
		must(t, err)
		t.Cleanup(func() { _ = connection.Close() })
		return connection
	}
	isLast := func(connection net.Conn) bool {
		_, err := fmt.Fprint(connection, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		must(t, err)
		response, err := http.ReadResponse(bufio.NewReader(connection), nil)
		must(t, err)
		equal(t, 200, readAnswer(t, response).status, "status")
		return response.Close
	}
	unused, left, kept := connect(), connect(), connect()
	equal(t, false, isLast(left) || isLast(kept), "closed before")
	must(t, s.cmd.Process.Signal(syscall.SIGUSR1))
	eventually(t, "it drains", func() bool { return isLast(kept) })
	began := time.Now()
	for range 50 {
		equal(t, false, isLast(connect()), "a new connection comes to what drains")
	}
	equal(t, true, isLast(unused), "a connection that was made before")
	_, err := left.Read(make([]byte, 1))
	equal(t, io.EOF, err, "a connection that its client leaves alone")
	if took := time.Since(began); took < 2*time.Second || took > 6*time.Second {
		t.Errorf("closed after %v", took)
	}
}

// TestDrainIsBounded: nothing that stops Caddy waits longer than the longest drain and the grace.
func TestDrainIsBounded(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	err := (&App{Drain: caddy.Duration(longestDrain + time.Second)}).Provision(ctx)
	if err == nil || err.Error() != "drain is 5m1s: write 5m0s or less" {
		t.Errorf("refused by %v", err)
	}
}

// TestDrainBeforeTheEnd: SIGTERM closes no connection that its client may be about to use, either.
func TestDrainBeforeTheEnd(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.run(t, "GATEWAY_DRAIN=10s")
	defer s.stop()
	kept := &http.Transport{}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/healthz", nil)
	must(t, err)
	ask := func() *http.Response {
		response, err := kept.RoundTrip(request)
		must(t, err)
		equal(t, 200, readAnswer(t, response).status, "status")
		return response
	}
	ask()
	must(t, s.cmd.Process.Signal(syscall.SIGTERM))
	began := time.Now()
	eventually(t, "it drains", func() bool { return ask().Close })
	err = s.wait()
	s.exited <- err // stop waits, too
	must(t, err)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("with no connection left it ends after %v", took)
	}
}
