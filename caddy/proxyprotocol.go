package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	goproxy "github.com/pires/go-proxyproto"
)

func init() {
	caddy.RegisterModule(ProxyProtocol{})
}

var loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// proxyHeaderWithin is how long a peer has for its PROXY header.
const proxyHeaderWithin = 5 * time.Second

// ProxyProtocol is a listener wrapper for load balancers that pass TCP on: its peers begin each
// connection with a PROXY header (version 1 or 2), whose source is the client's address. A peer
// without the header, and anybody else with one, is closed and counted. Sockets in the file system
// have no peers. Without peers it does nothing. Syntax, ahead of tls:
//
//	listener_wrappers {
//	    gateway_proxy_protocol [<network or address>...]
//	    tls
//	}
//
// This machine can't be a peer: what runs here asks the gateway without a header.
type ProxyProtocol struct {
	// Peers are addresses, or networks like 10.0.0.0/24.
	Peers []string `json:"peers,omitempty"`

	networks []netip.Prefix
}

// CaddyModule returns the Caddy module information.
func (ProxyProtocol) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.listeners.gateway_proxy_protocol",
		New: func() caddy.Module { return new(ProxyProtocol) },
	}
}

// UnmarshalCaddyfile reads the peers.
func (p *ProxyProtocol) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	p.Peers = listed(d.RemainingArgs())
	return nil
}

// Provision parses the peers, and refuses a list that is none or names too many.
func (p *ProxyProtocol) Provision(caddy.Context) error {
	for _, text := range p.Peers {
		network, err := parseNetwork(text)
		if err == nil && (network.Contains(loopback4) || network.Contains(netip.IPv6Loopback())) {
			err = errors.New("which is this machine: name the load balancer's own address")
		}
		if err != nil {
			return fmt.Errorf("the peers that speak the PROXY protocol (GATEWAY_PROXY_PROTOCOL) name %q, %w", text, err)
		}
		p.networks = append(p.networks, network)
	}
	return nil
}

// WrapListener wraps a listener, if there are peers.
func (p *ProxyProtocol) WrapListener(l net.Listener) net.Listener {
	if len(p.networks) == 0 || caddy.IsUnixNetwork(l.Addr().Network()) {
		return l
	}
	return &proxyListener{&goproxy.Listener{
		Listener: l, ConnPolicy: p.policy, ReadHeaderTimeout: proxyHeaderWithin,
	}}
}

// policy is what a connection must begin with.
func (p *ProxyProtocol) policy(of goproxy.ConnPolicyOptions) (goproxy.Policy, error) {
	peer, err := netip.ParseAddrPort(of.Upstream.String())
	if err != nil {
		return goproxy.REJECT, goproxy.ErrInvalidUpstream
	}
	for _, network := range p.networks {
		if network.Contains(peer.Addr().Unmap()) {
			return goproxy.REQUIRE, nil
		}
	}
	return goproxy.REJECT, nil
}

// proxyListener counts the connections that are closed for their first bytes.
type proxyListener struct{ net.Listener }

// Accept returns the next connection; its header is read with its first bytes.
func (l *proxyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // net/http looks for the listener's own errors
	}
	return &proxyConn{Conn: conn}, nil
}

type proxyConn struct {
	net.Conn

	counted sync.Once
}

// Read reads, and counts a connection that began as it must not.
func (c *proxyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, goproxy.ErrNoProxyProtocol) || errors.Is(err, goproxy.ErrSuperfluousProxyHeader) {
		c.counted.Do(func() { proxyClosed.Add(1) })
	}
	return n, err //nolint:wrapcheck // as above
}

// proxyClosed is how many connections were closed for their first bytes.
var proxyClosed atomic.Uint64

// listed splits a list by its commas, too.
func listed(texts []string) []string {
	return strings.FieldsFunc(strings.Join(texts, ","), func(r rune) bool { return r == ',' })
}

// Interface guards.
var (
	_ caddy.Provisioner     = (*ProxyProtocol)(nil)
	_ caddy.ListenerWrapper = (*ProxyProtocol)(nil)
	_ caddyfile.Unmarshaler = (*ProxyProtocol)(nil)
)
