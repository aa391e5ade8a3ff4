package gateway

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const (
	// maxFrameBytes bounds the memory that one stream takes here: a backend that never ends a
	// frame is cut off.
	maxFrameBytes = 8 << 20

	// A backend may ignore its cap by a twentieth, and by minSlack frames, before it is cut off:
	// some frames hold no token of their own.
	slackDivisor = 20
	minSlack     = 8
)

// tapWriter reads an answer on its way to the client. Frames are passed on as soon as they
// are whole; the piece of one that is not waits, so that a stream can be ended between two.
type tapWriter struct {
	*caddyhttp.ResponseWriterWrapper

	x      *exchange
	ctxErr func() error // of the request: nil while it runs

	// How the answer is read, once its header is there.
	framing framing
	hides   bool  // the client did not ask for the usage that we asked for
	limit   int64 // of deltas, 0 without one
	rename  *rename

	// Buffers, used by the goroutine of the request alone.
	carry []byte // the piece of a frame that is not whole
	kept  []byte // frames to pass on, where they are not what came

	hangup hangup // once the client has left

	isBusy  bool  // the backend turned the request away, and another one will be asked
	failure error // of an answer of which nothing is passed on
}

// newTapWriter returns a writer for the answer to a granted request.
func newTapWriter(ctx context.Context, w http.ResponseWriter, x *exchange) *tapWriter {
	t := &tapWriter{
		ctxErr:                ctx.Err,
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		x:                     x,
	}
	if limit := x.request.limit(x.grant); limit != nil {
		t.limit = *limit + max(minSlack, *limit/slackDivisor)
	}
	return t
}

// WriteHeader takes the backend's status, and finds out how to read the answer. Only the
// first final status counts, and none that the proxy itself writes for a cancelled request.
func (t *tapWriter) WriteHeader(status int) {
	x := t.x
	fromProxy := status == statusClientDisconnected && t.ctxErr() != nil
	if status < http.StatusOK || x.upstreamStatus != 0 || fromProxy || x.run.cause() != "" || t.isBusy {
		return
	}
	if status == http.StatusServiceUnavailable && x.hasAnother() {
		t.isBusy = true
		return
	}
	x.upstreamStatus = status
	h := t.Header()
	stripOurs(h)
	// We removed Accept-Encoding: an answer that is compressed all the same can't be metered.
	if h.Get("Content-Encoding") != "" {
		x.reason = reasonBackendEncoded
		t.failure = caddyhttp.Error(http.StatusBadGateway, errCancelled)
		return
	}
	t.framing = framingOf(status, h.Get("Content-Type"))
	x.usage = newUsage(x.route.api, t.framing != framesNone)
	t.hides = t.framing == framesEvents && x.request.wantsUsage(x.route.api) && !x.request.hasUsage
	if status/100 == 2 {
		t.rename = newRename(x.request.model, x.grant.Model)
	}
	if t.hides || t.rename != nil { // the answer gets another length
		h.Del("Content-Length")
	}
	if delete(h, changedHeader); x.changed != "" {
		h.Set(changedHeader, x.changed)
	}
	if status/100 == 2 {
		for name, value := range x.grant.Headers {
			h.Set(name, value)
		}
	}
	t.ResponseWriter.WriteHeader(status)
}

// framingOf returns how an answer is set apart: by its type, if it succeeded.
func framingOf(status int, contentType string) framing {
	kind, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	switch kind = strings.TrimSpace(kind); {
	case status/100 != 2:
		return framesNone
	case kind == "application/x-ndjson":
		return framesLines
	case kind == "text/event-stream":
		return framesEvents
	}
	return framesNone
}

// Write reads a piece of the answer and passes on what is whole.
func (t *tapWriter) Write(p []byte) (int, error) {
	t.hangup.heard()
	t.WriteHeader(http.StatusOK)
	switch {
	case t.isBusy:
		return len(p), nil
	case t.failure != nil:
		return 0, t.failure
	case t.x.run.cause() != "":
		return 0, errCancelled
	case t.framing == framesNone:
		t.x.usage.feed(p)
		t.noteFirstContent()
		if err := t.pass(t.rename.feed(p)); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	return t.writeFrames(p)
}

// FlushError flushes to the client, unless the run is cancelled.
func (t *tapWriter) FlushError() error {
	if t.failure != nil || !t.x.run.beginWrite() {
		return errCancelled
	}
	defer t.x.run.endWrite()
	defer t.noteBlocked(process.clock.now())
	err := http.NewResponseController(t.ResponseWriter).Flush()
	if err != nil && t.x.run.cause() == "" {
		t.hangup.begin(err)
		return nil
	}
	return err //nolint:wrapcheck // as below
}

// ReadFrom keeps io.Copy from passing by Write.
func (t *tapWriter) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{t}, r)
}

// pass writes to the client, unless the run is cancelled. What a client that has left does not
// take any more is dropped.
func (t *tapWriter) pass(p []byte) error {
	if !t.x.run.beginWrite() {
		return errCancelled
	}
	defer t.x.run.endWrite()
	defer t.noteBlocked(process.clock.now())
	_, err := t.ResponseWriter.Write(p) //nolint:gosec // passing the answer on is what we are for
	if err != nil && t.x.run.cause() == "" {
		t.hangup.begin(err)
		return nil
	}
	return err //nolint:wrapcheck // the proxy looks for the writer's own errors
}

// writeFrames passes on the frames that p completes, and keeps the rest for the next piece.
// It cancels a run that has had more than its cap, or sends a frame without an end.
func (t *tapWriter) writeFrames(p []byte) (int, error) {
	data, from := p, 0
	if len(t.carry) > 0 {
		from = max(0, len(t.carry)-3) // the end of a frame may lie across two pieces
		t.carry = append(t.carry, p...)
		data = t.carry
	}
	whole, out := t.frames(data, from)
	if len(out) > 0 {
		if err := t.pass(out); err != nil {
			t.carry = nil // it has been counted already, and there is no client to pass it to
			return 0, err
		}
	}
	t.carry = append(t.carry[:0], data[whole:]...)
	switch {
	case t.limit > 0 && t.x.usage.deltas > t.limit && !t.x.usage.terminal:
		t.x.run.cancel(outcomeCap)
	case len(t.carry) > maxFrameBytes:
		t.x.run.cancel(outcomeOverflow)
	default:
		return len(p), nil
	}
	return 0, errCancelled
}

// noteFirstContent takes the time of the first content.
func (t *tapWriter) noteFirstContent() {
	if t.x.firstContent.IsZero() && t.x.usage.hasContent() {
		t.x.firstContent = process.clock.now()
	}
}

// noteBlocked adds the time since the client was written to: a client that reads slowly must
// not make a backend look slow.
func (t *tapWriter) noteBlocked(since time.Time) {
	if now := process.clock.now(); !t.x.firstContent.IsZero() {
		t.x.blocked += now.Sub(since)
		t.x.lastContent = now
	}
}

// finish ends the answer: with its rest, with a last frame if we cancelled it, or as the
// proxy left it. The proxy panics to sever a connection whose answer broke off; a panic
// that our own cancelling caused ends here.
func (t *tapWriter) finish(panicked any, err error) error {
	x := t.x
	defer process.streams.remove(x)
	defer x.run.detach()
	if t.failure != nil {
		return t.failure
	}
	if x.run.cause() != "" {
		if t.framing != framesNone && t.writeLastFrame() {
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
		if x.run.cause() == "" {
			t.flushCarry()
		}
		if rest := t.rename.rest(); len(rest) > 0 {
			_ = t.pass(rest)
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

// writeLastFrame writes the last frame of a stream that we cancelled, unless the backend
// has; it returns false if the client can't be written to.
func (t *tapWriter) writeLastFrame() bool {
	x := t.x
	if x.usage.terminal {
		return true
	}
	x.run.boundLastWrite()
	cause := x.run.cause()
	isCap := cause == outcomeCap || cause == outcomeDeadline
	client := clientOf(t.ResponseWriter)
	last := t.rename.frame(x.usage.shape.final(x.usage, isCap, process.clock.now()))
	if _, err := client.Write(last); err != nil { //nolint:gosec // it is the backend's, as above
		return false
	}
	x.kept.Answer(last)
	return http.NewResponseController(client).Flush() == nil
}

// flushCarry passes on what came behind the last whole frame.
func (t *tapWriter) flushCarry() {
	if len(t.carry) == 0 {
		return
	}
	t.x.usage.isCutShort = true
	shown := t.read(t.carry)
	if len(shown) == 0 {
		return
	}
	if err := t.pass(shown); err == nil {
		_ = t.FlushError()
	}
}

// clientOf returns the writer of net/http itself: the ones around it would set another
// bound on the last write than the run does.
func clientOf(w http.ResponseWriter) http.ResponseWriter {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = wrapper.Unwrap()
	}
}
