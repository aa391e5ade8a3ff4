package gateway

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const maxFrameBytes = 8 << 20

// tapWriter reads an answer on its way to the client. Frames are passed on as soon as they
// are whole; the piece of one that is not waits, so that a stream can be ended between two.
type tapWriter struct {
	*caddyhttp.ResponseWriterWrapper

	x       *exchange
	over    func() error // why the request is over, nil while it runs
	framing framing
	hides   bool  // the client has not asked for the usage that we asked for
	limit   int64 // of deltas, 0 if there is none
	carry   []byte
	kept    []byte // frames to pass on, where they are not what came
	failure error  // an answer that is not passed on at all
}

func newTapWriter(ctx context.Context, w http.ResponseWriter, x *exchange) *tapWriter {
	t := &tapWriter{
		over:                  ctx.Err,
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		x:                     x,
	}
	if limit := x.request.limit(x.grant); limit != nil {
		t.limit = *limit + max(8, *limit/20)
	}
	return t
}

// WriteHeader takes the backend's status and finds out how to read the answer.
func (t *tapWriter) WriteHeader(status int) {
	x := t.x
	// On a cancelled request the proxy itself says 499.
	isProxys := status == statusClientGone && t.over() != nil
	if status < 200 || x.upstreamStatus != 0 || isProxys || x.run.ended() != "" {
		return
	}
	x.upstreamStatus = status
	h := t.Header()
	stripOurs(h)
	if h.Get("Content-Encoding") != "" {
		x.reason = "backend_encoded"
		t.failure = caddyhttp.Error(http.StatusBadGateway, errEnded)
		return
	}
	contentType, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	switch {
	case status/100 != 2:
	case contentType == "application/x-ndjson":
		t.framing = framesLines
	case contentType == "text/event-stream":
		t.framing = framesEvents
	}
	x.usage = newUsage(x.route.api, t.framing != framesNone)
	t.hides = t.framing == framesEvents && x.request.wantsUsage(x.route.api) && !x.request.hasUsage
	if t.hides {
		h.Del("Content-Length")
	}
	if status/100 == 2 {
		for name, value := range x.grant.Headers {
			h.Set(name, value)
		}
	}
	t.ResponseWriter.WriteHeader(status)
}

// Write reads a piece of the answer and passes on what is whole.
func (t *tapWriter) Write(p []byte) (int, error) {
	t.WriteHeader(http.StatusOK)
	switch {
	case t.failure != nil:
		return 0, t.failure
	case t.x.run.ended() != "":
		return 0, errEnded
	case t.framing == framesNone:
		t.x.usage.feed(p)
		t.notice()
		return t.pass(p)
	}
	return t.writeFrames(p)
}

// pass writes to the client, unless we are ending the answer.
func (t *tapWriter) pass(p []byte) (int, error) {
	if !t.x.run.enter() {
		return 0, errEnded
	}
	defer t.x.run.exit()
	return t.ResponseWriter.Write(p) //nolint:gosec // passing the answer on is what we are for
}

// FlushError flushes to the client, unless we are ending the answer.
func (t *tapWriter) FlushError() error {
	if t.failure != nil || !t.x.run.enter() {
		return errEnded
	}
	defer t.x.run.exit()
	return http.NewResponseController(t.ResponseWriter).Flush()
}

func (t *tapWriter) writeFrames(p []byte) (int, error) {
	data, from := p, 0
	if len(t.carry) > 0 {
		from = max(0, len(t.carry)-3)
		t.carry = append(t.carry, p...)
		data = t.carry
	}
	whole, out := t.frames(data, from)
	if len(out) > 0 {
		if _, err := t.pass(out); err != nil {
			t.carry = nil // it has been read already, and nobody is left to pass it to
			return 0, err
		}
	}
	t.carry = append(t.carry[:0], data[whole:]...)
	switch {
	case t.limit > 0 && t.x.usage.deltas > t.limit && !t.x.usage.terminal:
		t.x.run.end(outcomeCap)
	case len(t.carry) > maxFrameBytes:
		t.x.run.end(outcomeOverflow)
	default:
		return len(p), nil
	}
	return 0, errEnded
}

// notice takes the time of the first content.
func (t *tapWriter) notice() {
	if t.x.firstContent.IsZero() && (t.x.usage.deltas > 0 || t.x.usage.frame.content > 0) {
		t.x.firstContent = process.clock.now()
	}
}

// ReadFrom keeps io.Copy from passing by Write.
func (t *tapWriter) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{t}, r)
}

// leave ends the answer: with its rest, with a last frame if we ended it, or as the proxy
// left it. A panic that we caused is over with that.
func (t *tapWriter) leave(panicked any, err error) error {
	x := t.x
	defer process.streams.remove(x)
	defer x.run.over()
	if t.failure != nil {
		return t.failure
	}
	if x.run.ended() != "" {
		if t.framing != framesNone && t.end() {
			return nil
		}
		if x.upstreamStatus == 0 {
			return nil // the guard answers
		}
		if panicked == nil {
			panicked = http.ErrAbortHandler
		}
	}
	if x.usage != nil {
		if x.run.ended() == "" {
			t.flushCarry()
		}
		if t.framing == framesNone && x.upstreamStatus/100 == 2 {
			x.usage.endSingle()
		}
	}
	if panicked != nil {
		panic(panicked)
	}
	return err
}

// end writes the last frame of a stream that we ended; false if it cannot be written.
func (t *tapWriter) end() bool {
	x := t.x
	if x.usage.terminal {
		return true
	}
	x.run.lastWrite()
	outcome := x.run.ended()
	isCap := outcome == outcomeCap || outcome == outcomeDeadline
	client := clientOf(t.ResponseWriter)
	if _, err := client.Write(x.usage.shape.final(x.usage, isCap, process.clock.now())); err != nil {
		return false
	}
	return http.NewResponseController(client).Flush() == nil
}

// flushCarry passes on what came behind the last whole frame.
func (t *tapWriter) flushCarry() {
	if len(t.carry) == 0 {
		return
	}
	shown := t.read(t.carry)
	if len(shown) == 0 {
		return
	}
	if _, err := t.pass(shown); err == nil {
		_ = t.FlushError()
	}
}

// clientOf is the writer of net/http itself: the ones around it would set another bound on
// the last write than the run does.
func clientOf(w http.ResponseWriter) http.ResponseWriter {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = wrapper.Unwrap()
	}
}
