package gateway

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestProxyProtocol: a load balancer names the client that it connects for, and only a load balancer may.
func TestProxyProtocol(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.run(t, "GATEWAY_PROXY_PROTOCOL=192.0.2.0/24 127.0.0.2")
	defer s.stop()
	s.upstream.set(t, hello)
	const header = "PROXY TCP4 198.51.100.9 127.0.0.1 50000 80\r\n"
	closed := 0
	for _, c := range []struct{ name, from, header, want string }{
		{"a load balancer", "127.0.0.2", header, "198.51.100.9"},
		{"a load balancer that says nothing", "127.0.0.2", "", ""},
		{"another peer", "127.0.0.3", "", "127.0.0.3"},
		{"another peer with a header", "127.0.0.3", header, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.from)}}
			connection, err := from.DialContext(t.Context(), "tcp", s.addr)
			must(t, err)
			defer func() { _ = connection.Close() }()
			body := `{"model":"toy","stream":false}`
			_, err = fmt.Fprintf(connection,
				"%sPOST /api/chat HTTP/1.1\r\nHost: a\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
				c.header, testKey(), len(body), body)
			must(t, err)
			response, err := http.ReadResponse(bufio.NewReader(connection), nil)
			if c.want == "" {
				closed++
				equal(t, true, err != nil || response.StatusCode == http.StatusBadRequest, "it is refused")
				eventually(t, "it is counted", func() bool {
					return strings.Contains(s.metrics(t), fmt.Sprintf("gateway_proxy_protocol_closed_total %d\n", closed))
				})
				return
			}
			must(t, err)
			equal(t, 200, readAnswer(t, response).status, "status")
			equal(t, c.want, s.authz.last(t).IP, "address that authz judges")
		})
	}
	for _, peers := range []string{"0.0.0.0/0", "127.0.0.1", "127.0.0.0/8", "::1", "balancer"} {
		command := sharedStack(t).command(t, "GATEWAY_PROXY_PROTOCOL="+peers)
		command.Args[1] = "validate"
		output, err := command.CombinedOutput()
		equal(t, true, err != nil && strings.Contains(string(output), "GATEWAY_PROXY_PROTOCOL) name"), string(output))
	}
}
