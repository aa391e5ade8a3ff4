package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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
// without the header, and anybody else with one, is closed without a word and counted: without
// peers that is anybody. Sockets in the file system have no peers. Syntax, ahead of tls:
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
	config   *configuration
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
func (p *ProxyProtocol) Provision(ctx caddy.Context) error {
	p.config = process.config(ctx)
	for _, text := range p.Peers {
		network, err := parseNetwork(text)
		if err == nil && (network.Contains(loopback4) || network.Contains(netip.IPv6Loopback()) ||
			isAddressOf(network, ownAddresses())) {
			err = errors.New("which is this machine: name the load balancer's own address")
		}
		if err != nil {
			return fmt.Errorf("the peers that speak the PROXY protocol (GATEWAY_PROXY_PROTOCOL) name %q, %w", text, err)
		}
		p.networks = append(p.networks, network)
	}
	return nil
}

// WrapListener wraps a listener of connections that have a peer.
func (p *ProxyProtocol) WrapListener(l net.Listener) net.Listener {
	if caddy.IsUnixNetwork(l.Addr().Network()) {
		return l
	}
	wrapped := &proxyListener{
		Listener: &goproxy.Listener{Listener: l, ConnPolicy: p.policy, ReadHeaderTimeout: proxyHeaderWithin},
		config:   p.config, socket: socketOf(l),
	}
	if wrapped.socket != nil {
		unsteer(wrapped.socket)
	}
	p.config.listen(wrapped)
	return wrapped
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
	return goproxy.SKIP, nil
}

// proxyListener closes and counts connections for their first bytes.
type proxyListener struct {
	net.Listener

	config *configuration
	socket syscall.RawConn // nil if it has none that is known

	mu      sync.Mutex // of everything below
	place   uint32     // of the socket to which new connections are steered: 0 is the oldest of the port
	steered time.Time  // when that was changed last
}

// Accept returns the next connection; its header is read with its first bytes.
func (l *proxyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // net/http looks for the listener's own errors
	}
	if l.config.endsConnections() {
		l.config.isReached.Store(true)
		l.steerAway(process.clock.now())
	}
	if _, isPeer := conn.(*goproxy.Conn); isPeer {
		return &peerConn{Conn: conn}, nil
	}
	return &directConn{Conn: conn}, nil
}

// peerConn is a load balancer's connection, which must begin with a header.
type peerConn struct {
	net.Conn

	begun  bool
	closed bool
}

// Read reads what follows the header. Without a header, or one that is none, there is nothing to read.
func (c *peerConn) Read(p []byte) (int, error) {
	if c.closed {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p)
	c.begun = c.begun || n > 0
	var network net.Error
	if err == nil || c.begun || errors.Is(err, io.EOF) || errors.As(err, &network) {
		return n, err //nolint:wrapcheck // net/http looks for the connection's own errors
	}
	c.closed = true
	proxyHeaderMissing.Add(1)
	_ = c.Close()
	return 0, io.EOF
}

// CloseWrite is the other connection's.
func (c *peerConn) CloseWrite() error {
	conn, isPeer := c.Conn.(*goproxy.Conn)
	if !isPeer {
		return nil
	}
	tcp, isTCP := conn.TCPConn()
	if !isTCP {
		return nil
	}
	return tcp.CloseWrite() //nolint:wrapcheck // as above
}

// signatures are how a PROXY header begins: no request, of HTTP or in TLS, does.
var signatures = [][]byte{
	[]byte("PROXY TCP4 "), []byte("PROXY TCP6 "), []byte("PROXY UNKNOWN"), []byte("\r\n\r\n\x00\r\nQUIT\n"),
}

// directConn is a connection of a peer that must not begin with a header.
type directConn struct {
	net.Conn

	held   []byte // the first bytes, until all of them were read
	begun  bool   // the first bytes are no signature
	closed bool
}

// Read reads what comes; after a signature there is nothing to read. What may still become one is held
// until more has come, so that it is seen however it is cut: TLS would refuse its first five bytes.
func (c *directConn) Read(p []byte) (int, error) {
	for !c.begun && !c.closed && len(p) > 0 {
		n, err := c.Conn.Read(p)
		c.held = append(c.held, p[:n]...)
		c.judge()
		if err != nil && !c.closed {
			var network net.Error
			if len(c.held) == 0 || errors.As(err, &network) {
				return 0, err //nolint:wrapcheck // as above
			}
			c.begun = true
		}
	}
	if c.closed {
		return 0, io.EOF
	}
	if len(c.held) > 0 {
		n := copy(p, c.held)
		c.held = c.held[n:]
		return n, nil
	}
	return c.Conn.Read(p) //nolint:wrapcheck // as above
}

// CloseWrite ends what is sent, and lets the server read on for a moment: its last answer would else be
// lost with what the peer sends meanwhile.
func (c *directConn) CloseWrite() error {
	if half, canHalf := c.Conn.(interface{ CloseWrite() error }); canHalf {
		return half.CloseWrite() //nolint:wrapcheck // as above
	}
	return nil
}

// judge closes and counts a connection that has begun with a signature, or lets it begin.
func (c *directConn) judge() {
	mayBecome := len(c.held) == 0
	for _, signature := range signatures {
		if bytes.HasPrefix(c.held, signature) {
			c.closed = true
			proxyHeaderUnexpected.Add(1)
			_ = c.Close()
			return
		}
		mayBecome = mayBecome || bytes.HasPrefix(signature, c.held)
	}
	c.begun = !mayBecome
}

// How many connections were closed for their first bytes: of load balancers, and of others.
var proxyHeaderMissing, proxyHeaderUnexpected atomic.Uint64

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
