package gateway

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// newTicketGrant is what a queue reads of a Grant.
func newTicketGrant(tenant, priority string, weight int64, slots ...int) *grant {
	names := make([]string, len(slots))
	for i := range slots {
		names[i] = fmt.Sprint("backend", i)
	}
	return &grant{Tenant: tenant, Backends: names, Slots: slots, Priority: priority, Weight: weight}
}

// order lets each ticket leave in the order in which they got their slots, and returns whose they were.
func order(t *testing.T, q *queues, first *ticket, waiting []*ticket) []string {
	t.Helper()
	var list []string
	q.leave(first)
	for len(waiting) > 0 {
		i := 0
		for i < len(waiting) && waiting[i].isWaiting() {
			i++
		}
		if i == len(waiting) {
			t.Fatalf("%d wait for a free slot", len(waiting))
		}
		list = append(list, waiting[i].tenant)
		q.leave(waiting[i])
		waiting = append(waiting[:i], waiting[i+1:]...)
	}
	return list
}

// TestTurns: between tenants a line is fair by weights, and within a tenant first come, first served.
func TestTurns(t *testing.T) {
	for name, c := range map[string]struct {
		enter []*grant
		want  []string
	}{
		"a burst stands in no other tenant's way": {
			[]*grant{
				newTicketGrant("a", "interactive", 1, 1), newTicketGrant("a", "interactive", 1, 1),
				newTicketGrant("a", "interactive", 1, 1), newTicketGrant("b", "interactive", 1, 1),
			}, []string{"a", "b", "a", "a"},
		},
		"a weight of two is two turns": {
			[]*grant{
				newTicketGrant("a", "interactive", 2, 1), newTicketGrant("a", "interactive", 2, 1),
				newTicketGrant("a", "interactive", 2, 1), newTicketGrant("a", "interactive", 2, 1),
				newTicketGrant("b", "interactive", 1, 1), newTicketGrant("b", "interactive", 1, 1),
			}, []string{"a", "b", "a", "a", "b", "a"},
		},
		"batch goes last": {
			[]*grant{
				newTicketGrant("a", "batch", 1, 1), newTicketGrant("b", "interactive", 1, 1),
				newTicketGrant("c", "interactive", 1, 1),
			}, []string{"b", "c", "a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			q := new(queues)
			first, _ := q.enter(newTicketGrant("z", "interactive", 1, 1), 0)
			var waiting []*ticket
			for _, g := range c.enter {
				ticket, _ := q.enter(g, 0)
				waiting = append(waiting, ticket)
			}
			equalJSON(t, c.want, order(t, q, first, waiting), "order")
		})
	}
}

// TestNewcomer: a tenant that comes into the line late, with one request at a time, gets its part of the
// turns from then on and not more: whether it comes back at once or after another one's turns.
func TestNewcomer(t *testing.T) {
	for name, c := range map[string]struct {
		weight int64 // of the others
		absent int   // turns of theirs before it comes back
		want   int   // turns of the newcomer, of 44
	}{
		"at once":       {weight: 1, absent: 0, want: 22},
		"after a while": {weight: 10, absent: 3, want: 4},
	} {
		t.Run(name, func(t *testing.T) {
			q := new(queues)
			running, _ := q.enter(newTicketGrant("a", "interactive", c.weight, 1), 0)
			for range 100 {
				q.enter(newTicketGrant("a", "interactive", c.weight, 1), 0)
			}
			slot := &ticket{backend: "backend0", isServed: true} // whichever request of a has it
			q.leave(running)
			for range 29 {
				slot.hasLeft = false
				q.leave(slot)
			}
			b, _ := q.enter(newTicketGrant("b", "interactive", 1, 1), 0)
			turns, absent := 0, 0
			for range 44 {
				slot.hasLeft = false
				q.leave(slot)
				switch {
				case b == nil:
					absent--
				case !b.isWaiting():
					turns++
					b, absent = nil, c.absent
				}
				if b == nil && absent <= 0 {
					b, _ = q.enter(newTicketGrant("b", "interactive", 1, 1), 0)
				}
			}
			equal(t, c.want, turns, "turns of the newcomer")
		})
	}
}

// TestMoreSlots: a Grant that knows of more slots lets those in who wait, before itself.
func TestMoreSlots(t *testing.T) {
	q := new(queues)
	q.enter(newTicketGrant("a", "interactive", 1, 1), 0)
	second, _ := q.enter(newTicketGrant("a", "interactive", 1, 1), 0)
	third, _ := q.enter(newTicketGrant("b", "interactive", 1, 2), 0)
	equal(t, false, second.isWaiting(), "the second waits")
	equal(t, true, third.isWaiting(), "the third waits")
}

// TestBatchIsServed: an endless line of interactive requests leaves one slot in batchEvery to batch.
func TestBatchIsServed(t *testing.T) {
	q := new(queues)
	running, _ := q.enter(newTicketGrant("a", "interactive", 1, 1), 0)
	waiting, _ := q.enter(newTicketGrant("b", "batch", 1, 1), 0)
	for n := 1; waiting.isWaiting(); n++ {
		if n > batchEvery {
			t.Fatal("batch starves")
		}
		q.enter(newTicketGrant("a", "interactive", 1, 1), 0)
		q.leave(running)
		running = &ticket{backend: "backend0", isServed: true}
	}
}

// TestFreeBackend: a request goes where a slot is free, and waits before the first of its Grant.
func TestFreeBackend(t *testing.T) {
	q := new(queues)
	for i, want := range []int{0, 1, 1, 0} {
		ticket, at := q.enter(newTicketGrant("a", "interactive", 1, 1, 2), 0)
		equal(t, want, at, "backend")
		equal(t, i == 3, ticket.isWaiting(), "waits")
	}
	_, at := q.enter(newTicketGrant("a", "interactive", 1, 1, 0), 0)
	equal(t, 1, at, "a backend without a bound is always free")
}

// TestSlotsNeverLost: whatever order requests come, leave and give up in, no backend has more in flight
// than slots, none waits while a slot is free, and at the end all is empty.
func TestSlotsNeverLost(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		q, tickets := new(queues), []*ticket{}
		slots := 1 + random.IntN(3)
		check := func() {
			for name, line := range q.of {
				if line.slots > 0 && line.running > line.slots {
					t.Fatalf("seed %d: %s has %d in flight", seed, name, line.running)
				}
				if line.waiting() > 0 && line.running < line.slots {
					t.Fatalf("seed %d: %s lets %d wait", seed, name, line.waiting())
				}
			}
		}
		for range 200 {
			if random.IntN(2) == 0 || len(tickets) == 0 {
				g := newTicketGrant(strconv.Itoa(random.IntN(4)), []string{"batch", "interactive"}[random.IntN(2)],
					random.Int64N(3), slots, slots)
				ticket, _ := q.enter(g, random.IntN(2))
				tickets = append(tickets, ticket)
			} else {
				i := random.IntN(len(tickets))
				q.leave(tickets[i])
				q.leave(tickets[i]) // a second time has no effect
				tickets = append(tickets[:i], tickets[i+1:]...)
			}
			check()
		}
		for _, ticket := range tickets {
			q.leave(ticket)
			check()
		}
		for name, line := range q.of {
			equal(t, 0, line.running+line.waiting(), name)
		}
	}
}

// TestQueue: with one slot a second request waits for it, is refused after queue_wait, and leaves the line
// when its client does or it is killed; what waited has no backend in its record, and costs no time.
func TestQueue(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.run(t, "GATEWAY_BACKEND_QUEUE=300ms")
	defer s.stop()
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		g := newGrant(a)
		g.Slots, g.Priority, g.Weight = []int{1}, "interactive", 1
		giveGrant(w, r, g)
	})
	release, held := make(chan struct{}), make(chan answer, 1)
	s.upstream.set(t, func(w http.ResponseWriter, r *http.Request) {
		if s.upstream.count() == 1 {
			<-release
		}
		hello(w, r)
	})
	body := `{"model":"toy","stream":false}`
	go func() { held <- s.post(t, "/api/chat", body) }()
	eventually(t, "the slot is taken", func() bool { return s.upstream.count() == 1 })

	refused := s.post(t, "/api/chat", body)
	equal(t, 503, refused.status, "status")
	equal(t, true, strings.Contains(refused.body, "slots"), refused.body)
	equal(t, "1", refused.header.Get("Retry-After"), "Retry-After")
	e := s.record(t, refused.id)
	equal(t, outcomeRefused, e.Outcome, "outcome")
	equal(t, true, e.Backend == nil && !e.Sent && e.WaitedMS >= 300, "it has reached no backend")

	connection := s.dial(t)
	_, err := fmt.Fprintf(connection, "POST /api/chat HTTP/1.1\r\nHost: a\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
		testKey(), len(body), body)
	must(t, err)
	s.waits(t, 1)
	_ = connection.Close()
	e = s.record(t, s.authz.last(t).ID)
	equal(t, outcomeClientDisconnected, e.Outcome, "outcome")
	equal(t, true, e.Backend == nil, "no backend")

	waiting := make(chan answer, 1)
	go func() { waiting <- s.post(t, "/api/chat", body) }()
	s.waits(t, 1)
	lines := s.lines(t)
	equal(t, true, lines[len(lines)-1].Gateway.Queued, "the open line says that it waits")
	close(release)
	equal(t, 200, (<-held).status, "status of the first")
	served := <-waiting
	equal(t, 200, served.status, "status of the one that waited")
	equal(t, "local", *s.record(t, served.id).Backend, "backend")
	s.waits(t, 0)

	const thought = 60 * time.Millisecond
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		<-time.After(thought)
		giveGrant(w, r, newGrant(a))
	})
	e = s.record(t, s.post(t, "/api/chat", body).id)
	equal(t, true, thought.Milliseconds() <= e.WaitedMS && e.WaitedMS <= e.Duration, "what authz takes is waiting, too")
}

// waits waits until so many requests wait for a slot.
func (s *stack) waits(t testing.TB, n int) {
	t.Helper()
	eventually(t, "requests wait", func() bool {
		text := s.metrics(t)
		return n == 0 && !strings.Contains(text, `gateway_backend_waiting{backend="local"} 1`) ||
			strings.Contains(text, fmt.Sprintf("gateway_backend_waiting{backend=\"local\"} %d\n", n))
	})
}
