package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// TestProxyProtocol: a load balancer names the client that it connects for, and only a load balancer may.
func TestProxyProtocol(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.run(t, "GATEWAY_PROXY_PROTOCOL=192.0.2.0/24 127.0.0.2")
	defer s.stop()
	s.upstream.set(t, hello)
	const header = "PROXY TCP4 198.51.100.9 127.0.0.1 50000 80\r\n"
	missing, unexpected := 0, 0
	for _, c := range []struct {
		name, from, header, want string
		closed                   *int
	}{
		{"a load balancer", "127.0.0.2", header, "198.51.100.9", nil},
		{"a load balancer that says nothing", "127.0.0.2", "", "", &missing},
		{"a load balancer with half a header", "127.0.0.2", "PROXY TCP4 198.51.100.9\r\n", "", &missing},
		{"another peer", "127.0.0.3", "", "127.0.0.3", nil},
		{"another peer with a header", "127.0.0.3", header, "", &unexpected},
	} {
		t.Run(c.name, func(t *testing.T) {
			connection := dialledFrom(t, s, c.from)
			_, err := fmt.Fprint(connection, c.header+chatFor(testKey()))
			must(t, err)
			if c.closed != nil {
				*c.closed++
				equal(t, "", rest(connection), "answer")
				countsClosed(t, s, missing, unexpected)
				return
			}
			response, err := http.ReadResponse(bufio.NewReader(connection), nil)
			must(t, err)
			equal(t, 200, readAnswer(t, response).status, "status")
			equal(t, c.want, s.authz.last(t).IP, "address that authz judges")
		})
	}
	// An answer reaches a client that still sends: the server half closes, and reads on for a moment.
	for from, header := range map[string]string{"127.0.0.2": header, "127.0.0.3": ""} {
		connection := dialledFrom(t, s, from)
		_, _ = fmt.Fprint(connection, header+"GET /healthz HTTP/1.1\r\nX: "+strings.Repeat("a", 1<<20))
		equal(t, true, strings.HasPrefix(rest(connection), "HTTP/1.1 431 "), from)
	}
	for _, peers := range []string{"0.0.0.0/0", "127.0.0.1", "127.0.0.0/8", "::1", "balancer"} {
		command := sharedStack(t).command(t, "GATEWAY_PROXY_PROTOCOL="+peers)
		command.Args[1] = "validate"
		output, err := command.CombinedOutput()
		equal(t, true, err != nil && strings.Contains(string(output), "GATEWAY_PROXY_PROTOCOL) name"), string(output))
	}
}

// TestProxyHeaderUnexpected: where nobody speaks the PROXY protocol a connection that begins with it, in
// either version, in pieces and before TLS, too, is closed without a word and counted; what only looks
// like it is answered.
func TestProxyHeaderUnexpected(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.run(t)
	defer s.stop()
	secure, _ := startTLS(t)
	defer secure.stop()
	const ask = "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	for _, s := range []*stack{s, secure} {
		for i, pieces := range [][]string{
			{"PROXY TCP4 198.51.100.9 127.0.0.1 50000 80\r\n" + ask},
			{"PROXY TCP6 2001:db8::1 ::1 50000 80\r\n", ask},
			{"PROXY UNKNOWN\r\n"},
			{"PR", "OXY", " TCP4", " 198.51.100.9"},
			{"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + strings.Repeat("\x01", 12) + ask},
			{"\r\n\r\n\x00\r", "\nQUIT\n"},
		} {
			connection := dialledFrom(t, s, "127.0.0.1")
			for _, piece := range pieces {
				// A piece may come when the connection is closed already.
				_, _ = fmt.Fprint(connection, piece)
			}
			equal(t, "", rest(connection), "answer")
			countsClosed(t, s, 0, i+1)
		}
	}
	for text, want := range map[string]string{
		ask: "HTTP/1.1 200", "PROXY /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n": "HTTP/1.1 401",
		"PRO\r\nHost: a\r\nConnection: close\r\n\r\n": "HTTP/1.1 400", "PROXY TCP\r\nHost: a\r\nConnection: close\r\n\r\n": "HTTP/1.1 400",
	} {
		connection := dialledFrom(t, s, "127.0.0.1")
		_, err := fmt.Fprint(connection, text)
		must(t, err)
		equal(t, want, strings.Join(strings.SplitN(rest(connection), " ", 3)[:2], " "), text)
	}
	countsClosed(t, s, 0, 6)
}

// dialledFrom is a connection from an address of this machine, closed at the end of the test.
func dialledFrom(t *testing.T, s *stack, from string) net.Conn {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	connection, err := dialer.DialContext(t.Context(), "tcp", s.addr)
	must(t, err)
	must(t, connection.SetDeadline(time.Now().Add(soon)))
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

func chatFor(key string) string {
	const body = `{"model":"toy","stream":false}`
	return fmt.Sprintf("POST /api/chat HTTP/1.1\r\nHost: a\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
		key, len(body), body)
}

// rest is what the other side sends until it closes, or says that it does not close.
func rest(connection net.Conn) string {
	text, err := io.ReadAll(connection)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return string(text) + " and stays open"
	}
	return string(text)
}

func countsClosed(t *testing.T, s *stack, missing, unexpected int) {
	t.Helper()
	eventually(t, "they are counted", func() bool {
		metrics := s.metrics(t)
		return strings.Contains(metrics, fmt.Sprintf("gateway_proxy_protocol_closed_total{header=\"missing\"} %d\n", missing)) &&
			strings.Contains(metrics, fmt.Sprintf("gateway_proxy_protocol_closed_total{header=\"unexpected\"} %d\n", unexpected))
	})
}

// cutConn is a connection whose bytes come as its pieces.
type cutConn struct {
	net.Conn

	pieces []string
}

func (c *cutConn) Read(p []byte) (int, error) {
	if len(c.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.pieces[0])
	if c.pieces[0] = c.pieces[0][n:]; c.pieces[0] == "" {
		c.pieces = c.pieces[1:]
	}
	return n, nil
}

func (*cutConn) Close() error { return nil }

// TestProxyHeaderInPieces: however the first bytes are cut, and however little is read at a time, a
// header gives nothing to read and is counted once; everything else is read as it came.
func TestProxyHeaderInPieces(t *testing.T) {
	for text, isHeader := range map[string]bool{
		"PROXY TCP4 198.51.100.9 127.0.0.1 1 2\r\n": true, "\r\n\r\n\x00\r\nQUIT\n\x21": true, "PROXY UNKNOWN": true,
		"PROXY TCP / HTTP/1.1\r\n": false, "\r\n\r\n\x00\r\nQUI": false, "P": false, "": false, "\x16\x03\x01 hello": false,
	} {
		for cut := range len(text) + 1 {
			for _, size := range []int{1, 3, 4096} {
				before := proxyHeaderUnexpected.Load()
				c := &directConn{Conn: &cutConn{pieces: []string{text[:cut], text[cut:]}}}
				var got strings.Builder
				_, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{c}, make([]byte, size))
				must(t, err)
				want := text
				if isHeader {
					want = ""
				}
				equal(t, want, got.String(), fmt.Sprintf("%q cut at %d, read by %d", text, cut, size))
				equal(t, isHeader, proxyHeaderUnexpected.Load() == before+1, text+" counted")
			}
		}
	}
}
