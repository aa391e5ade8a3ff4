package gateway

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// attempts is the way of one request to the backends of its Grant. A backend that has begun to
// answer is the last one: it has worked, and a second answer would be billed twice.
//
// net/http reports on a connection from goroutines of its own, and the control socket lists where a
// request is, hence the atomics.
type attempts struct {
	tried    string    // the backend that was left for another one
	ticket   *ticket   // the place before the backend
	isQueued bool      // the open line says that it waits
	outAt    time.Time // when the last of them began: before, no backend has worked; zero if none has

	at     atomic.Int32 // index of the backend in the Grant
	isSent atomic.Bool  // the backend has been written to: it may have worked
}

// traced returns a context in which net/http reports how far a request has come.
func (a *attempts) traced(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders: func() { a.isSent.Store(true) },
	})
}

// hasAnother reports whether the Grant names another backend, and none was left before.
func (x *exchange) hasAnother() bool {
	return x.attempts.tried == "" && int(x.attempts.at.Load())+1 < len(x.grant.Backends)
}

// backend returns the name of the backend that the request is with, or was with last.
func (x *exchange) backend() string { return x.grant.Backends[x.attempts.at.Load()] }

// serve passes a request to the first backend of its Grant, and once more to another one if the
// first can't have worked for it: if no byte of the request was written, or if the backend says
// that it is busy.
// Before each of them it waits for a slot, at most so long.
func (x *exchange) serve(t *tapWriter, r *http.Request, next caddyhttp.Handler, patience time.Duration) error {
	var header http.Header // before an answer that is not passed on
	if x.hasAnother() {
		header = maps.Clone(t.Header())
	}
	for {
		if err := x.wait(r.Context(), patience); err != nil {
			return err
		}
		if x.attempts.isQueued { // it may have got its slot right behind its open line, too
			x.seen.isStarted.Store(true)
		}
		x.attempts.outAt = process.clock.now()
		caddyhttp.SetVar(r.Context(), backendVar, x.backend())
		err := next.ServeHTTP(t, r)
		if !x.isAgain(t.isBusy, err != nil) {
			return err
		}
		process.retried.Add(1)
		t.isBusy = false
		x.attempts.isSent.Store(false)
		clear(t.Header())
		maps.Copy(t.Header(), header)
		r.Body, _ = r.GetBody() // from memory: there is no error
	}
}

// enter takes a place before the first backend of the Grant, from this one on, that has a slot.
func (x *exchange) enter(from int) {
	t, at := process.queues.enter(x.grant, from)
	x.attempts.ticket = t
	x.attempts.at.Store(int32(at)) //nolint:gosec // a Grant is a header: it has few backends
}

// isAgain reports whether a request goes out once more, and makes the next backend its own. After a hang-up
// or a kill the proxy reports no failure, and sends nothing in a context that is cancelled.
func (x *exchange) isAgain(isBusy, isFailed bool) bool {
	a := &x.attempts
	isAway := isFailed && x.upstreamStatus == 0 && !a.isSent.Load()
	if !isBusy && !isAway || !x.hasAnother() {
		return false
	}
	a.tried = x.backend()
	process.queues.leave(a.ticket)
	process.queues.fail(a.tried)
	x.enter(int(a.at.Load()) + 1)
	return true
}
