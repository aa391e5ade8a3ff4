package gateway

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const (
	// batchEvery gives one of so many slots to a batch request, where one waits: interactive ones
	// go first, and never starve the others.
	batchEvery = 8

	defaultQueueWait = 30 * time.Second
)

// queues are the lines of requests before the backends that take only so many at a time. Between
// tenants they are fair, by weights, however many requests each has in line (start-time fair
// queueing, Goyal, Vin and Cheng 1996): Ollama's own line is first come, first served. The zero
// value has none.
type queues struct {
	mu      sync.Mutex
	of      map[string]*queue // by backend
	arrived uint64            // tickets that had to wait
}

// queue is the line before one backend.
type queue struct {
	slots   int // requests that may be in flight; 0 is no bound
	running int
	given   int // slots that were given to tickets in line
	failed  uint64
	lanes   [2]lane
}

// The lanes of a queue, by the priority that a Grant gives.
const (
	interactive = iota
	batch
)

// lane is the tickets of one priority that wait.
type lane struct {
	tenants map[string]*turns
	time    float64 // virtual: the start of the turn that was served last
	waiting int
}

// turns are the tickets of one tenant, oldest first. A tenant with none stays until its turn has
// passed, so that one which comes back at once does not go before the others again.
type turns struct {
	tickets []*ticket
	next    float64 // virtual: the start of its next turn
}

// ticket is the place of one request before a backend: in line, or in a slot.
type ticket struct {
	backend string
	tenant  string
	lane    int
	weight  int64
	number  uint64 // of arrival

	served   chan struct{} // closed when it has a slot
	isServed bool          // of queues.mu
	hasLeft  bool          // likewise
}

// enter gives a request a slot at the first of its Grant's backends that has one free, else a
// place in the line of the first. Its index is returned, too.
func (q *queues) enter(g *grant, from int) (*ticket, int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := &ticket{tenant: g.Tenant, weight: max(1, g.Weight), served: make(chan struct{})}
	if g.Priority == "batch" {
		t.lane = batch
	}
	at := from
	for i := from; i < len(g.Backends); i++ {
		line := q.line(g.Backends[i], g.slots(i))
		if line.hasFree() {
			at = i
			break
		}
	}
	t.backend = g.Backends[at]
	line := q.of[t.backend]
	if line.hasFree() {
		line.serve(t)
		return t, at
	}
	q.arrived++
	t.number = q.arrived
	line.lanes[t.lane].add(t)
	return t, at
}

// line returns the line of a backend, with so many slots from now on. The caller holds q.mu, as
// for everything below.
func (q *queues) line(backend string, slots int) *queue {
	if q.of == nil {
		q.of = map[string]*queue{}
	}
	line := q.of[backend]
	if line == nil {
		line = new(queue)
		q.of[backend] = line
	}
	line.slots = slots
	line.dispatch()
	return line
}

// leave gives the place of a ticket back, whichever it has; nil and a second call have no effect.
func (q *queues) leave(t *ticket) {
	if t == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.hasLeft {
		return
	}
	t.hasLeft = true
	line := q.of[t.backend]
	if !t.isServed {
		line.lanes[t.lane].remove(t)
		return
	}
	line.running--
	line.dispatch()
}

// hasFree reports whether a new request would not have to wait: no other waits for a free slot.
func (l *queue) hasFree() bool {
	return l.slots == 0 || l.running < l.slots
}

// waiting returns how many stand in line.
func (l *queue) waiting() int { return l.lanes[interactive].waiting + l.lanes[batch].waiting }

// serve gives a ticket a slot.
func (l *queue) serve(t *ticket) {
	l.running++
	t.isServed = true
	close(t.served)
}

// dispatch gives the free slots to those who wait.
func (l *queue) dispatch() {
	for l.waiting() > 0 && (l.slots == 0 || l.running < l.slots) {
		l.given++
		first, second := &l.lanes[interactive], &l.lanes[batch]
		if l.given%batchEvery == 0 {
			first, second = second, first
		}
		if first.waiting == 0 {
			first = second
		}
		l.serve(first.take())
	}
}

// add appends a ticket to those of its tenant.
func (l *lane) add(t *ticket) {
	if l.tenants == nil {
		l.tenants = map[string]*turns{}
	}
	own := l.tenants[t.tenant]
	if own == nil {
		own = new(turns)
		l.tenants[t.tenant] = own
	}
	if len(own.tickets) == 0 {
		own.next = max(own.next, l.time)
	}
	own.tickets = append(own.tickets, t)
	l.waiting++
}

// remove takes a ticket out that does not wait any more.
func (l *lane) remove(t *ticket) {
	own := l.tenants[t.tenant]
	own.tickets = slices.DeleteFunc(own.tickets, func(other *ticket) bool { return other == t })
	l.waiting--
}

// take removes and returns the ticket whose turn it is; there is one.
func (l *lane) take() *ticket {
	var first *turns
	for name, own := range l.tenants {
		switch {
		case len(own.tickets) == 0:
			if own.next <= l.time {
				delete(l.tenants, name)
			}
		case first == nil, own.next < first.next,
			own.next == first.next && own.tickets[0].number < first.tickets[0].number:
			first = own
		}
	}
	t := first.tickets[0]
	first.tickets = first.tickets[1:]
	l.waiting--
	l.time = first.next
	first.next += 1 / float64(t.weight)
	return t
}

// isWaiting reports whether the request has no slot yet.
func (t *ticket) isWaiting() bool {
	select {
	case <-t.served:
		return false
	default:
		return true
	}
}

// wait waits for a slot, at most so long. It returns an error that ends the request if there was
// none in time, or the request was cancelled.
func (x *exchange) wait(ctx context.Context, patience time.Duration) error {
	t := x.attempts.ticket
	if !t.isWaiting() {
		return nil
	}
	began := process.clock.now()
	defer func() { queueSeconds.Observe(process.clock.now().Sub(began).Seconds()) }()
	late := make(chan struct{})
	stop := process.clock.afterFunc(patience, func() { close(late) })
	defer stop()
	select {
	case <-t.served:
		return nil
	case <-late:
		return x.refuse(http.StatusServiceUnavailable, reasonBackendBusy)
	case <-ctx.Done():
		return caddyhttp.Error(statusClientDisconnected, ctx.Err())
	}
}
