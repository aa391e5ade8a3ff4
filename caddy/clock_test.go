package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// manualClock stands still until a test moves it.
type manualClock struct {
	mu     sync.Mutex
	at     time.Time
	timers []*manualTimer
}

type manualTimer struct {
	at   time.Time
	fire func()
}

// newManualClock is a clock at a moment of no importance.
func newManualClock() *manualClock {
	return &manualClock{at: time.Date(2031, 5, 31, 23, 59, 59, 123_456_789, time.UTC)}
}

func (c *manualClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *manualClock) after(d time.Duration) <-chan time.Time {
	fired := make(chan time.Time, 1)
	c.afterFunc(d, func() { fired <- c.now() })
	return fired
}

func (c *manualClock) afterFunc(d time.Duration, f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	timer := &manualTimer{at: c.at.Add(d), fire: f}
	c.timers = append(c.timers, timer)
	return func() bool { return c.remove(timer) }
}

func (c *manualClock) remove(timer *manualTimer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.timers, timer)
	if i >= 0 {
		c.timers = slices.Delete(c.timers, i, i+1)
	}
	return i >= 0
}

// advance moves the clock, and runs the timers that it passes.
func (c *manualClock) advance(d time.Duration) {
	c.mu.Lock()
	c.at = c.at.Add(d)
	var due []*manualTimer
	for _, timer := range c.timers {
		if !timer.at.After(c.at) {
			due = append(due, timer)
		}
	}
	c.mu.Unlock()
	for _, timer := range due {
		if c.remove(timer) {
			timer.fire()
		}
	}
}

// replaceProcess gives the test a process of its own, with a clock that stands still.
func replaceProcess(t testing.TB) (*state, *manualClock) {
	t.Helper()
	previous, c := process, newManualClock()
	process = newState(c, rand.Reader)
	t.Cleanup(func() { process = previous })
	return process, c
}

// TestIDs: an id is a UUIDv7 of the moment it is minted in, down to a 4096th of a
// millisecond, and no two are the same.
func TestIDs(t *testing.T) {
	now := time.UnixMilli(0x0123456789ab).Add(250 * time.Microsecond)
	id, err := newID(now, bytes.NewReader(bytes.Repeat([]byte{0xff}, 16)))
	must(t, err)
	equal(t, "01234567-89ab-7400-bfff-ffffffffffff", id, "id")
	last, err := newID(now.Truncate(time.Millisecond).Add(time.Millisecond-1), rand.Reader)
	must(t, err)
	equal(t, "01234567-89ab-7fff", last[:18], "the end of a millisecond")
	parsed, err := uuid.Parse(last)
	must(t, err)
	equal(t, 7, parsed.Version(), "version")
	equal(t, uuid.RFC4122, parsed.Variant(), "variant")
	again, err := newID(now, rand.Reader)
	must(t, err)
	if again == last {
		t.Error("two ids are the same")
	}
	if _, err := newID(now, strings.NewReader("short")); err == nil {
		t.Error("minted an id without random numbers")
	}
}

// TestRunDeadline: a run is cancelled when its deadline has passed on our clock, and not
// before; one that has ended is left alone.
func TestRunDeadline(t *testing.T) {
	_, c := replaceProcess(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	var r run
	r.attach(c, http.NewResponseController(httptest.NewRecorder()), cancel, 10*time.Second)
	c.advance(10*time.Second - 1)
	equal(t, "", r.cause(), "before the deadline")
	must(t, ctx.Err())
	c.advance(1)
	equal(t, outcomeDeadline, r.cause(), "at the deadline")
	equal(t, errCancelled, context.Cause(ctx), "cause")

	var over run
	over.attach(c, http.NewResponseController(httptest.NewRecorder()), cancel, 10*time.Second)
	over.detach()
	c.advance(time.Hour)
	equal(t, "", over.cause(), "after its end")
}

// TestLastFrames: the last frame of a stream that we end carries the time of our clock.
func TestLastFrames(t *testing.T) {
	now := time.Date(2031, 5, 31, 23, 59, 59, 123_456_789, time.UTC)
	for kind, want := range map[api]string{
		apiChat: `"created_at":"2031-05-31T23:59:59.123456789Z"`, apiV1Chat: `"created":1938038399,`,
		apiV1Completions: `"created":1938038399,`, apiResponses: `"created_at":1938038399,`,
	} {
		u := newUsage(kind, true)
		if frame := string(u.shape.final(u, false, now)); !strings.Contains(frame, want) {
			t.Errorf("%s is not in %s", want, frame)
		}
	}
}
