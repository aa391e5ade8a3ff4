package gateway

import (
	"net/http"
	"sync"
	"time"
)

const (
	// unblockAfter is how long a client that does not read may delay the end of its stream.
	unblockAfter = 50 * time.Millisecond
	enforceEvery = 20 * time.Millisecond
)

// registry is what runs on this node, across reloads.
type registry struct {
	mu   sync.Mutex
	runs map[string]*exchange
}

func (g *registry) add(x *exchange) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.runs == nil {
		g.runs = map[string]*exchange{}
	}
	g.runs[x.id] = x
}

func (g *registry) remove(x *exchange) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.runs, x.id)
}

func (g *registry) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.runs)
}

// list is what runs now, in no order.
func (g *registry) list() []*exchange {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]*exchange, 0, len(g.runs))
	for _, x := range g.runs {
		list = append(list, x)
	}
	return list
}

// kill ends what matches, and returns how many that were.
func (g *registry) kill(outcome string, matches func(*exchange) bool) int {
	n := 0
	for _, x := range g.list() {
		if matches(x) && x.run.end(outcome) {
			n++
		}
	}
	return n
}

// run is the part of an exchange that others than its own goroutine may touch: why it was
// ended, and what wakes it.
type run struct {
	mu      sync.Mutex
	outcome string // why we ended it, "" as long as we have not
	isOver  bool   // its handler is leaving: the connection is no longer ours
	cancel  func(error)
	client  *http.ResponseController
	stop    func() bool // the deadline
	clock   clock
	bound   time.Time // of the write in progress, once it is ending
	// isWriting: the handler waits for the client, not for the backend.
	isWriting bool
}

// start begins a run, which is over after the deadline at the latest.
func (r *run) start(c clock, client *http.ResponseController, cancel func(error), deadline time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock, r.client, r.cancel = c, client, cancel
	if deadline > 0 {
		r.stop = c.afterFunc(deadline, func() { r.end(outcomeDeadline) })
	}
}

// enter begins a write to the client; false if the run is ending.
func (r *run) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isWriting = r.outcome == ""
	return r.isWriting
}

// exit ends the write.
func (r *run) exit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isWriting = false
}

// end asks the run to end; false if it is ending already. The handler itself writes the
// last frame, as soon as what it waits for has been cancelled.
func (r *run) end(outcome string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isOver || r.outcome != "" || r.cancel == nil {
		return false
	}
	r.outcome = outcome
	r.cancel(errEnded)
	r.bound = r.clock.now().Add(unblockAfter)
	r.enforce()
	return true
}

// enforce bounds the write in progress, and does so again until it is over: the writers
// around it may just have moved the bound.
func (r *run) enforce() {
	if r.isOver || !r.isWriting {
		return
	}
	_ = r.client.SetWriteDeadline(r.bound)
	r.clock.afterFunc(enforceEvery, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.enforce()
	})
}

// lastWrite gives the last frame a bound of its own.
func (r *run) lastWrite() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.client.SetWriteDeadline(r.clock.now().Add(unblockAfter))
}

// ended is why the run was ended by us, "" if it was not.
func (r *run) ended() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.outcome
}

// over says that the handler leaves the connection.
func (r *run) over() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop != nil {
		r.stop()
	}
	if r.outcome != "" {
		_ = r.client.SetWriteDeadline(time.Time{})
	}
	r.isOver = true
}
