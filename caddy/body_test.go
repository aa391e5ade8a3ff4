package gateway

import (
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestPools: a body takes memory as it arrives, and a full pool refuses.
func TestPools(t *testing.T) {
	p := new(pool)
	p.size.Store(20 << 10)
	request := func(n int) *http.Request {
		r, _ := http.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(strings.Repeat("x", n)))
		return r
	}
	one := share{pool: p}
	body, err := readBody(request(100), 1<<20, &one)
	must(t, err)
	equal(t, 100, len(body), "read")
	equal(t, 101, p.used.Load(), "taken")
	two := share{pool: p}
	if _, err := readBody(request(30<<10), 1<<20, &two); !errors.Is(err, errPoolFull) {
		t.Errorf("a full pool says %v", err)
	}
	two.release()
	if _, err := readBody(request(30<<10), 10<<10, &two); !errors.Is(err, errTooLarge) {
		t.Errorf("a large body says %v", err)
	}
	chunked := request(30 << 10)
	chunked.ContentLength = -1
	if _, err := readBody(chunked, 10<<10, &share{pool: p}); !errors.Is(err, errTooLarge) {
		t.Errorf("a large chunked body says %v", err)
	}
	one.release()
	two.release()
}

// slowBody gives so many bytes at each read, every second of a clock that stands still otherwise.
type slowBody struct {
	clock *manualClock
	bytes int
}

func (b slowBody) Read(p []byte) (int, error) {
	b.clock.advance(time.Second)
	return min(len(p), b.bytes), nil
}

// TestBodyDeadline: a body that keeps coming, but slowly, ends after a minute and a second for each
// 64 kB of it; one that comes faster is read to its limit.
func TestBodyDeadline(t *testing.T) {
	_, clock := replaceProcess(t)
	for perSecond, want := range map[int]error{1000: os.ErrDeadlineExceeded, 64_000: errTooLarge} {
		start, p := clock.now(), new(pool)
		p.size.Store(1 << 30)
		r, err := http.NewRequestWithContext(t.Context(), "POST", "/", slowBody{clock, perSecond})
		must(t, err)
		r.ContentLength = -1
		if _, err = readBody(r, 8<<20, &share{pool: p}); !errors.Is(err, want) {
			t.Errorf("%d bytes a second: %v", perSecond, err)
		}
		if took := clock.now().Sub(start); errors.Is(want, os.ErrDeadlineExceeded) && took > bodyGrace+3*time.Second {
			t.Errorf("ended after %v", took)
		}
	}
}

// TestKnownKeys: a key is known for ten minutes after its Grant, and memory is bounded.
func TestKnownKeys(t *testing.T) {
	k, now := new(knownKeys), time.Unix(1e9, 0)
	equal(t, false, k.has("a", now), "stranger")
	k.add("a", now)
	equal(t, true, k.has("a", now.Add(knownFor-1)), "known")
	equal(t, false, k.has("a", now.Add(knownFor)), "forgotten")
	for i := range maxKnown + 10 {
		k.add(strconv.Itoa(i), now)
	}
	if len(k.until) > maxKnown {
		t.Errorf("remembers %d keys", len(k.until))
	}
}
