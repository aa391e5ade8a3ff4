package gateway

import (
	"context"
	"net"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
)

const (
	drainLookEvery = 50 * time.Millisecond
	// drainCalm is how many looks in a row must find no connection that may bring a request: a handshake
	// that had begun before new connections were steered away takes a round trip.
	drainCalm = 10
	// steerSettles is how long connections may still come that had begun before new ones were steered away.
	steerSettles = 300 * time.Millisecond
)

// configuration is what belongs to one configuration of Caddy; a reload begins another one.
//
// net/http drops the requests that it reads after the begin of its shutdown, and a client that just then
// uses a kept connection finds it closed. So a configuration that stops, for another one or for good,
// drains first: its answers close their connections, and new ones are steered to other sockets of the
// port (SO_REUSEPORT), those of the next configuration or of another process. Only what clients have
// left alone for as long as the drain lasts is closed on them.
type configuration struct {
	hasJournal atomic.Bool // something logs to one
	isDraining atomic.Bool
	isReached  atomic.Bool // by a new connection since drain looked

	mu        sync.Mutex // of everything below
	quiet     map[net.Conn]struct{}
	listeners []*proxyListener
}

// config returns what belongs to the configuration of a module. Its metrics are what is unique to it.
func (s *state) config(ctx caddy.Context) *configuration {
	registry := ctx.GetMetricsRegistry()
	found, isThere := s.configs.LoadOrStore(registry, &configuration{quiet: map[net.Conn]struct{}{}})
	if !isThere {
		ctx.OnCancel(func() { s.configs.Delete(registry) })
	}
	return found.(*configuration) //nolint:forcetypeassert // nothing else is stored there
}

// note notes that a connection waits for a request, or does not any more.
func (c *configuration) note(conn net.Conn, now http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now == http.StateNew || now == http.StateIdle {
		c.quiet[conn] = struct{}{}
	} else {
		delete(c.quiet, conn)
	}
}

// endsConnections reports whether an answer is the last of its connection.
func (c *configuration) endsConnections() bool { return c != nil && c.isDraining.Load() }

// isQuiet reports whether no connection waits for a request.
func (c *configuration) isQuiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.quiet) == 0
}

// listen adds a listener.
func (c *configuration) listen(l *proxyListener) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listeners = append(c.listeners, l)
}

// drain waits until no connection may bring a request any more, or for so long.
func (c *configuration) drain(clock clock, longest time.Duration) {
	c.isDraining.Store(true)
	c.mu.Lock()
	listeners := c.listeners
	c.mu.Unlock()
	for _, l := range listeners {
		l.steerAway(clock.now())
	}
	end := clock.after(longest)
	for calm := 0; calm < drainCalm; calm++ {
		select {
		case <-end:
			return
		case <-clock.after(drainLookEvery):
		}
		if c.isReached.Swap(false) || !c.isQuiet() {
			calm = -1
		}
	}
}

// Handle drains a configuration that stops, before Caddy stops its apps.
func (a *App) Handle(context.Context, caddy.Event) error {
	if a.Drain > 0 {
		a.config.drain(process.clock, time.Duration(a.Drain))
	}
	return nil
}

// steerAway sends new connections to another socket of the port: to the oldest, or to the second. Which
// of the two is our own is not known; if they still come here they are served, and the other is tried.
func (l *proxyListener) steerAway(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.socket == nil || now.Sub(l.steered) < steerSettles {
		return
	}
	l.place, l.steered = 1-l.place, now
	steer(l.socket, l.place)
}

// socketOf returns the socket of a listener, nil if it has none: Caddy wraps it in a struct that it does
// not export.
func socketOf(l net.Listener) syscall.RawConn {
	for {
		if socket, ok := l.(syscall.Conn); ok {
			raw, err := socket.SyscallConn()
			if err != nil {
				return nil
			}
			return raw
		}
		wrapper := reflect.Indirect(reflect.ValueOf(l))
		if wrapper.Kind() != reflect.Struct {
			return nil
		}
		field := wrapper.FieldByName("Listener")
		if !field.IsValid() || !field.CanInterface() {
			return nil
		}
		inner, ok := reflect.TypeAssert[net.Listener](field)
		if !ok {
			return nil
		}
		l = inner
	}
}
