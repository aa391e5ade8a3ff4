package gateway

import (
	"errors"
	"hash/maphash"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

const (
	firstReadBytes = 8 << 10 // of a body; the buffer then doubles

	// A body has bodyGrace and, beyond that, a second for each bodyRate bytes of it that have come.
	bodyGrace = time.Minute
	bodyRate  = 64_000 // bytes a second

	// knownFor is how long after its last Grant a key uses the large pool.
	knownFor = 10 * time.Minute
	// maxKnown bounds the memory of known keys, which valid keys alone can fill.
	maxKnown = 100_000
)

var (
	errTooLarge = errors.New("the body is larger than the limit") // a problem of the Ask
	errPoolFull = errors.New("no memory left for bodies")         // a refusal of our own
)

// readBody reads a whole body of at most limit bytes. Memory is taken as bytes arrive: an
// announced length holds nothing, so that a client can't reserve memory that it never fills
// (the attack of Slowloris, with bodies). A body that comes too slowly ends at its deadline;
// Caddy's read_body_idle ends the pauses between its bytes.
//
// It returns errTooLarge, errPoolFull, os.ErrDeadlineExceeded or the error of the connection.
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
	body, start := make([]byte, 0, size), process.clock.now()
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
		case process.clock.now().Sub(start) > bodyGrace+time.Duration(len(body))*time.Second/bodyRate:
			return nil, os.ErrDeadlineExceeded
		}
		if len(body) < cap(body) {
			continue
		}
		if body, err = grown(body, r.ContentLength, s); err != nil {
			return nil, err
		}
	}
}

// grown returns the body with twice the room, or with all the room it will need if its
// length was announced.
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

// knownKeys remembers which keys were granted on this node lately, by a seeded hash that
// means nothing outside this process: a memory dump has no keys in it, and a client can't
// make keys collide. The zero value is empty.
type knownKeys struct {
	mu    sync.Mutex
	seed  maphash.Seed
	until map[uint64]time.Time
}

// add remembers a key for knownFor from now.
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

// forget drops the keys that have expired, or all if none has. The caller holds the lock.
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

// has reports whether a key is known.
func (k *knownKeys) has(key string, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.until != nil && now.Before(k.until[maphash.String(k.seed, key)])
}
