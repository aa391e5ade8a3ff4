package gateway

import (
	"hash/maphash"
	"net/netip"
	"sync"
)

// sourceBits is the part of an IPv6 address that one subscriber usually has to choose from.
const sourceBits = 64

// pool bounds the memory that bodies take together, and the part of it that one key or one source
// may have: no more than it leaves free. One alone gets half of the pool, two get a third each, and
// however many fill it, one more finds room (dynamic thresholds, Choudhury and Hahne 1998). It is
// safe for concurrent use; the zero value has no memory.
type pool struct {
	mu   sync.Mutex
	size int64           // bytes; it changes when Caddy reloads
	used int64           // bytes
	of   map[owner]int64 // bytes, by key and by source
	seed maphash.Seed
}

// owner names a key or a source by a seeded hash, so that the names hold no secrets.
type owner uint64

// resize sets the size of the pool; what is taken stays taken.
func (p *pool) resize(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.size = bytes
}

// share begins what a request of a key and a source holds, with nothing.
func (p *pool) share(key, ip string) share {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of, p.seed = map[owner]int64{}, maphash.MakeSeed()
	}
	name := func(kind, of string) owner { return owner(maphash.String(p.seed, kind+of)) }
	return share{pool: p, owners: [2]owner{name("key ", key), name("source ", sourceOf(ip))}}
}

// sourceOf returns the source of an address: itself, or its network in IPv6.
func sourceOf(ip string) string {
	address, err := netip.ParseAddr(ip)
	if err != nil {
		return "" // all that are not valid are one
	}
	address = address.Unmap().WithZone("")
	if address.Is4() {
		return address.String()
	}
	network, _ := address.Prefix(sourceBits) // in range, and without a zone
	return network.String()
}

// take takes n bytes, or returns false if the pool or one of the owners may not have them.
func (p *pool) take(n int64, owners [2]owner) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	free := p.size - p.used - n
	for _, o := range owners {
		if p.of[o]+n > free {
			return false
		}
	}
	p.used += n
	for _, o := range owners {
		p.of[o] += n
	}
	return true
}

// put gives n bytes back.
func (p *pool) put(n int64, owners [2]owner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used -= n
	for _, o := range owners {
		if p.of[o] -= n; p.of[o] == 0 {
			delete(p.of, o)
		}
	}
}

// share is what one request holds of a pool. The zero value is that of one without a body.
type share struct {
	pool   *pool
	owners [2]owner // its key and its source
	n      int64    // bytes
}

// grow makes the share at least n bytes, or returns false if there is no room for that.
func (s *share) grow(n int64) bool {
	if n <= s.n {
		return true
	}
	if !s.pool.take(n-s.n, s.owners) {
		return false
	}
	s.n = n
	return true
}

// release gives everything back; it may be called again.
func (s *share) release() {
	if s.n > 0 {
		s.pool.put(s.n, s.owners)
	}
	s.n = 0
}
