package gateway

import (
	"errors"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"
)

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
		p.resize(1 << 30)
		r, err := http.NewRequestWithContext(t.Context(), "POST", "/", slowBody{clock, perSecond})
		must(t, err)
		r.ContentLength = -1
		if _, err = readBody(r, 8<<20, new(p.share("key", "192.0.2.1"))); !errors.Is(err, want) {
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
