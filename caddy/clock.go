package gateway

import (
	"io"
	"time"

	"github.com/google/uuid"
)

// clock is where every time in this package comes from: requests, records, ids, deadlines
// and retries. Tests replace it, so that they do not depend on the day.
type clock interface {
	// now is the time of day. Two of them are compared on the monotonic clock.
	now() time.Time
	// after returns a channel that receives once d has passed.
	after(d time.Duration) <-chan time.Time
	// afterFunc calls f in a goroutine of its own once d has passed, unless stop is called.
	afterFunc(d time.Duration, f func()) (stop func() bool)
}

// systemClock is the clock of the machine, and the only place that reads it.
type systemClock struct{}

func (systemClock) now() time.Time { return time.Now() }

func (systemClock) after(d time.Duration) <-chan time.Time { return time.After(d) }

func (systemClock) afterFunc(d time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(d, f).Stop
}

// newID returns a UUIDv7: milliseconds since 1970 in 48 bits, what is left of the
// millisecond in 12 bits (RFC 9562, 6.2, method 3), and 62 random bits. authz compares the
// time in an id with its own clock, and metering takes the day of a request from it.
func newID(now time.Time, random io.Reader) (string, error) {
	id, err := uuid.NewRandomFromReader(random)
	if err != nil {
		return "", err
	}
	ms := now.UnixMilli()
	fraction := (now.UnixNano() - ms*int64(time.Millisecond)) * 4096 / int64(time.Millisecond)
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i)) //nolint:gosec // cut to a byte on purpose, here and below
	}
	id[6] = 0x70 | byte(fraction>>8) //nolint:gosec // of 12 bits
	id[7] = byte(fraction)           //nolint:gosec // the lower 8
	return id.String(), nil
}
