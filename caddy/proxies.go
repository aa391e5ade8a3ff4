package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(Proxies{})
}

// A network with fewer bits is no proxy's: it would let anybody choose an address of their own.
const (
	leastBits4 = 8 // as in 10.0.0.0/8
	leastBits6 = 7 // as in fc00::/7, which private networks are taken from
)

// Proxies is the source of Caddy's trusted_proxies: the proxies in front of this one. What they say
// in X-Forwarded-For is the client's address in limits, rules and records; said by anybody else it
// is ignored. None are trusted by default. Syntax:
//
//	trusted_proxies gateway [<network or address>...]
//
// Unlike Caddy's own source it refuses what would trust everybody, and takes commas between them. It
// refuses an address of this machine, too: what comes from there is a program that runs here. A proxy
// that runs here connects over the loopback, and 127.0.0.1 trusts every program on this machine.
type Proxies struct {
	// Networks are addresses, or networks like 10.0.0.0/24.
	Networks []string `json:"networks,omitempty"`

	trusted []netip.Prefix
}

// CaddyModule returns the Caddy module information.
func (Proxies) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.ip_sources.gateway", New: func() caddy.Module { return new(Proxies) }}
}

// UnmarshalCaddyfile reads the networks.
func (p *Proxies) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	p.Networks = listed(d.RemainingArgs())
	return nil
}

// Provision parses the networks, and refuses a list that is none or trusts too many.
func (p *Proxies) Provision(caddy.Context) error {
	for _, text := range p.Networks {
		network, err := parseNetwork(text)
		if err == nil && isAddressOf(network, ownAddresses()) {
			err = errors.New("which is this machine: name the proxy's own address, or 127.0.0.1 for one that runs here")
		}
		if err != nil {
			return fmt.Errorf("the trusted proxies (GATEWAY_TRUSTED_PROXIES) name %q, %w", text, err)
		}
		p.trusted = append(p.trusted, network)
	}
	return nil
}

// parseNetwork reads a network, or an address as the network of it alone.
func parseNetwork(text string) (netip.Prefix, error) {
	network, err := netip.ParsePrefix(text)
	if address, isAddress := netip.ParseAddr(text); isAddress == nil {
		network, err = netip.PrefixFrom(address, address.BitLen()), nil
	}
	least := leastBits6
	if network.Addr().Is4() {
		least = leastBits4
	}
	switch {
	case err != nil || strings.Contains(text, "%"):
		return network, errors.New("which is no network: write it like 10.0.0.0/24, or an address")
	case network.Addr().Is4In6():
		return network, errors.New("which no client comes from: write it as one of IPv4")
	case network.Masked().Addr().IsUnspecified() && network.Bits() >= least, network.Addr().IsMulticast():
		return network, errors.New("which no proxy comes from: name the proxy's own address")
	case network.Bits() < least:
		return network, errors.New("by which anybody could choose an address: name the proxies' own network")
	}
	return network.Masked(), nil
}

// isAddressOf reports whether a network is one address, and one of these.
func isAddressOf(network netip.Prefix, addresses []netip.Addr) bool {
	return network.IsSingleIP() && slices.Contains(addresses, network.Addr())
}

// ownAddresses are those of this machine by which others reach it.
func ownAddresses() []netip.Addr {
	var own []netip.Addr
	of, _ := net.InterfaceAddrs() // none, where they can't be listed
	for _, each := range of {
		if network, err := netip.ParsePrefix(each.String()); err == nil && !network.Addr().IsLoopback() {
			own = append(own, network.Addr())
		}
	}
	return own
}

// GetIPRanges returns the networks.
func (p *Proxies) GetIPRanges(*http.Request) []netip.Prefix { return p.trusted }

// Interface guards.
var (
	_ caddy.Provisioner       = (*Proxies)(nil)
	_ caddyfile.Unmarshaler   = (*Proxies)(nil)
	_ caddyhttp.IPRangeSource = (*Proxies)(nil)
)
