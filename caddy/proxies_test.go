package gateway

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestNetworks: a list of proxies is one of networks or addresses, and trusts no more than a proxy's own.
func TestNetworks(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/24": "10.0.0.0/24", "10.0.0.9/24": "10.0.0.0/24", "192.0.2.1": "192.0.2.1/32", "10.0.0.0/8": "10.0.0.0/8",
		"2001:db8::/32": "2001:db8::/32", "::1": "::1/128", "fc00::/7": "fc00::/7",
		"0.0.0.0/0": "", "::/0": "", "0.0.0.0/1": "", "2000::/3": "", "::ffff:10.0.0.0/104": "", "::ffff:10.0.0.1": "",
		"0.0.0.0": "", "0.0.0.0/8": "", "::": "", "::/32": "", "224.0.0.1": "", "ff02::1": "",
		"fe80::1%eth0": "", "10.0.0.0/33": "", "10.0.0": "", "proxy.example": "", "private_ranges": "", "*": "",
	} {
		network, err := parseNetwork(text)
		if want == "" {
			equal(t, true, err != nil, text)
			continue
		}
		must(t, err)
		equal(t, want, network.String(), text)
	}
}

// TestOwnAddress: an address of this machine's own is no proxy's. Its loopback is, where a proxy runs here, and so
// is a network that this machine has an address in.
func TestOwnAddress(t *testing.T) {
	ours := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}
	for text, isOwn := range map[string]bool{
		"192.0.2.7": true, "192.0.2.7/32": true, "2001:db8::7": true, "2001:db8:0::7/128": true,
		"192.0.2.8": false, "192.0.2.0/24": false, "2001:db8::/64": false, "127.0.0.1": false, "::1": false,
	} {
		network, err := parseNetwork(text)
		must(t, err)
		equal(t, isOwn, isAddressOf(network, ours), text)
	}
	for _, own := range ownAddresses() {
		for _, setting := range []string{"GATEWAY_TRUSTED_PROXIES", "GATEWAY_PROXY_PROTOCOL"} {
			command := sharedStack(t).command(t, setting+"="+own.String())
			command.Args[1] = "validate"
			output, err := command.CombinedOutput()
			want := "(" + setting + `) name "` + own.String() + `", which is this machine`
			equal(t, true, err != nil && strings.Contains(strings.ReplaceAll(string(output), `\"`, `"`), want), string(output))
		}
	}
}

// TestProxyList: a list that trusts everybody, or is none, is refused in one sentence before Caddy starts.
func TestProxyList(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/24, 198.51.100.7 2001:db8::1": "", "": "", "127.0.0.1 ::1": "",
		"0.0.0.0/0": `name "0.0.0.0/0", by which anybody could choose an address`,
		"the-proxy": `name "the-proxy", which is no network`,
	} {
		command := sharedStack(t).command(t, "GATEWAY_TRUSTED_PROXIES="+text)
		command.Args[1] = "validate"
		output, err := command.CombinedOutput()
		equal(t, want == "", err == nil, text+string(output))
		equal(t, true, strings.Contains(strings.ReplaceAll(string(output), `\"`, `"`), want), string(output))
	}
}

// TestAddressOfTheClient: what a trusted proxy says is the client's address is taken for it, the last
// one that is no proxy's; what anybody else says, the client itself behind a proxy too, is not.
func TestAddressOfTheClient(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.run(t, "GATEWAY_TRUSTED_PROXIES=127.0.0.1 203.0.113.0/24")
	defer s.stop()
	s.upstream.set(t, hello)
	front := frontOf(t, s)
	for name, c := range map[string]struct{ url, from, says, want string }{
		"nothing is said":            {s.url, "127.0.0.1", "", "127.0.0.1"},
		"a proxy says":               {s.url, "127.0.0.1", "198.51.100.7", "198.51.100.7"},
		"a client forged, too":       {s.url, "127.0.0.1", "192.0.2.66, 198.51.100.7", "198.51.100.7"},
		"two proxies":                {s.url, "127.0.0.1", "198.51.100.7, 203.0.113.5", "198.51.100.7"},
		"it comes from elsewhere":    {s.url, "127.0.0.2", "198.51.100.7", "127.0.0.2"},
		"Caddy in front":             {front, "127.0.0.3", "", "127.0.0.3"},
		"Caddy in front of a forger": {front, "127.0.0.3", "198.51.100.7", "127.0.0.3"},
	} {
		t.Run(name, func(t *testing.T) {
			from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.from)}}
			transport := &http.Transport{DialContext: from.DialContext}
			defer transport.CloseIdleConnections()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+"/api/chat",
				strings.NewReader(`{"model":"toy","stream":false}`))
			must(t, err)
			r.Header.Set("X-Api-Key", testKey())
			if c.says != "" {
				r.Header.Set("X-Forwarded-For", c.says)
			}
			response, err := transport.RoundTrip(r)
			must(t, err)
			a := readAnswer(t, response)
			equal(t, 200, a.status, a.body)
			equal(t, c.want, s.authz.last(t).IP, "address that authz judges")
			equal(t, c.want, s.record(t, a.id).IP, "address in the record")
		})
	}
}

// frontOf runs a stock Caddy in front of the gateway until the end of the test, and returns its URL.
func frontOf(t *testing.T, s *stack) string {
	t.Helper()
	addr := freeAddr(t)
	file := s.path("front")
	text := "{\n admin off\n}\nhttp://" + addr + " {\n reverse_proxy " + s.addr + "\n}\n"
	must(t, os.WriteFile(file, []byte(text), 0o600))
	like := s.command(t)
	command := exec.CommandContext(context.Background(), like.Path, "run", "--config", file, "--adapter", "caddyfile")
	command.Env = like.Env
	must(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	eventually(t, "the Caddy in front answers", func() bool {
		connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			_ = connection.Close()
		}
		return err == nil
	})
	return "http://" + addr
}
