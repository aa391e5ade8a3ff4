package gateway

import (
	"net/http"
	"sync"
	"time"
)

const (
	// unblockAfter is how long a client that does not read may delay the end of its stream: a
	// kill must take effect even against a client that stalls on purpose.
	unblockAfter = 50 * time.Millisecond
	// enforceEvery is how often that bound is set again while the write goes on.
	enforceEvery = 20 * time.Millisecond
)

// registry holds what runs on this node, by id, across reloads. The zero value is empty.
type registry struct {
	mu   sync.Mutex
	runs map[string]*exchange
}

// add enters an exchange that is about to run.
func (g *registry) add(x *exchange) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.runs == nil {
		g.runs = map[string]*exchange{}
	}
	g.runs[x.id] = x
}

// remove drops an exchange that has run.
func (g *registry) remove(x *exchange) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.runs, x.id)
}

// count returns how many run.
func (g *registry) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.runs)
}

// list returns what runs, in no order.
func (g *registry) list() []*exchange {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]*exchange, 0, len(g.runs))
	for _, x := range g.runs {
		list = append(list, x)
	}
	return list
}

// cancel cancels every exchange that matches, and returns how many that were. One that was
// cancelled before keeps its cause and does not count.
func (g *registry) cancel(cause outcome, matches func(*exchange) bool) int {
	n := 0
	for _, x := range g.list() {
		if matches(x) && x.run.cancel(cause) {
			n++
		}
	}
	return n
}

// run is the part of an exchange that other goroutines may touch: it lets them cancel a
// request with a cause, and makes sure that its handler wakes up for it. The handler then
// writes the last frame itself, so that a stream never ends inside a frame.
//
// A run is attached to a connection, written to between beginWrite and endWrite, and
// detached before the handler leaves the connection to net/http.
type run struct {
	mu sync.Mutex // of everything below

	// Set by attach.
	clock         clock
	client        *http.ResponseController // of the connection, until detached
	cancelRequest func(error)              // wakes a handler that waits for the backend
	stopDeadline  func() bool              // nil without a deadline

	why      outcome   // the cause, "" while the run is not cancelled
	bound    time.Time // of the write in progress, once cancelled
	writing  bool      // the handler waits for the client, not for the backend
	detached bool      // the connection is no longer ours
}

// attach begins a run that is cancelled after the deadline at the latest; 0 is none.
func (r *run) attach(c clock, client *http.ResponseController, cancelRequest func(error), deadline time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock, r.client, r.cancelRequest = c, client, cancelRequest
	if deadline > 0 {
		r.stopDeadline = c.afterFunc(deadline, func() { r.cancel(outcomeDeadline) })
	}
}

// beginWrite allows a write to the client; it returns false once the run is cancelled.
func (r *run) beginWrite() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writing = r.why == ""
	return r.writing
}

// endWrite ends what beginWrite allowed.
func (r *run) endWrite() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writing = false
}

// cancel cancels the run with a cause: the request to the backend ends at once, a write to
// the client within unblockAfter. It returns false if the run does not run, or has a cause.
func (r *run) cancel(cause outcome) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.detached || r.why != "" || r.cancelRequest == nil {
		return false
	}
	r.why = cause
	r.cancelRequest(errCancelled)
	r.bound = r.clock.now().Add(unblockAfter)
	r.enforce()
	return true
}

// enforce bounds the write in progress, and does so again until it has ended: the writers
// around it may just have moved the bound. The caller holds the lock.
func (r *run) enforce() {
	if r.detached || !r.writing {
		return
	}
	_ = r.client.SetWriteDeadline(r.bound)
	r.clock.afterFunc(enforceEvery, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.enforce()
	})
}

// boundLastWrite gives the last frame a bound of its own.
func (r *run) boundLastWrite() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.client.SetWriteDeadline(r.clock.now().Add(unblockAfter))
}

// cause returns why we cancelled the run, "" if we did not.
func (r *run) cause() outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// detach gives the connection back to net/http, without our bounds; cancel has no effect
// from here on.
func (r *run) detach() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopDeadline != nil {
		r.stopDeadline()
	}
	if r.why != "" {
		_ = r.client.SetWriteDeadline(time.Time{})
	}
	r.detached = true
}
