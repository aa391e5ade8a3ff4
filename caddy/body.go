package gateway

import (
	"errors"
	"hash/maphash"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	firstReadBytes = 8 << 10
	knownFor       = 10 * time.Minute // after its last Grant a key uses the large pool
	maxKnown       = 100_000
)

var (
	errTooLarge = errors.New("the body is larger than the limit")
	errPoolFull = errors.New("no memory left for bodies")
)

// pool counts the memory that bodies may take.
type pool struct {
	size, used atomic.Int64
}

func (p *pool) take(n int64) bool {
	if p.used.Add(n) > p.size.Load() {
		p.used.Add(-n)
		return false
	}
	return true
}

// share is what one request holds of a pool.
type share struct {
	pool *pool
	n    int64
}

// grow makes the share at least n.
func (s *share) grow(n int64) bool {
	if n <= s.n {
		return true
	}
	if !s.pool.take(n - s.n) {
		return false
	}
	s.n = n
	return true
}

func (s *share) release() {
	if s.pool != nil {
		s.pool.used.Add(-s.n)
	}
	s.n = 0
}

// readBody reads a whole body of at most limit bytes. Memory is taken as bytes arrive: an
// announced length holds nothing. Caddy's read_body_idle sets the least rate.
func readBody(r *http.Request, limit int64, s *share) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, errTooLarge
	}
	size := int64(firstReadBytes)
	if r.ContentLength >= 0 {
		size = min(size, r.ContentLength+1)
	}
	if !s.grow(size) {
		return nil, errPoolFull
	}
	body := make([]byte, 0, size)
	for {
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case int64(len(body)) > limit:
			return nil, errTooLarge
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return nil, err
		}
		if len(body) < cap(body) {
			continue
		}
		if body, err = grown(body, r.ContentLength, s); err != nil {
			return nil, err
		}
	}
}

// grown is the body with twice the room, or with all the room it will need.
func grown(body []byte, length int64, s *share) ([]byte, error) {
	size := 2 * int64(cap(body))
	if length >= int64(len(body)) {
		size = min(size, length+1)
	}
	if !s.grow(size) {
		return nil, errPoolFull
	}
	return append(make([]byte, 0, size), body...), nil
}

// knownKeys remembers which keys were granted on this node lately, by a hash that means
// nothing outside this process.
type knownKeys struct {
	mu    sync.Mutex
	seed  maphash.Seed
	until map[uint64]time.Time
}

func (k *knownKeys) add(key string, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.until == nil {
		k.seed, k.until = maphash.MakeSeed(), map[uint64]time.Time{}
	}
	if len(k.until) >= maxKnown {
		k.forget(now)
	}
	k.until[maphash.String(k.seed, key)] = now.Add(knownFor)
}

// forget drops the keys that are over, or all if there is none.
func (k *knownKeys) forget(now time.Time) {
	for hash, until := range k.until {
		if until.Before(now) {
			delete(k.until, hash)
		}
	}
	if len(k.until) >= maxKnown {
		clear(k.until)
	}
}

func (k *knownKeys) has(key string, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.until != nil && now.Before(k.until[maphash.String(k.seed, key)])
}
