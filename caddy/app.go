// Package gateway is the part of neuronetz-gateway that runs in Caddy: it understands a
// request (guard), holds the answer to what authz granted (tap), and journals both.
package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(App{})
	caddy.OnExit(func(context.Context) { process.shutdown(exitWait) })
}

const (
	defaultLargePool = 1 << 30
	defaultSmallPool = 128 << 20
	exitWait         = time.Second // for the last lines of what runs when Caddy exits
	lookEvery        = 5 * time.Millisecond
)

// App opens the journal when Caddy starts, and sets the size of the pools.
type App struct {
	// LargePoolBytes bounds the bodies in memory of keys that were granted lately.
	LargePoolBytes int64 `json:"large_pool_bytes,omitempty"`
	// SmallPoolBytes bounds the bodies in memory of everyone else.
	SmallPoolBytes int64 `json:"small_pool_bytes,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "gateway", New: func() caddy.Module { return new(App) }}
}

// Provision sets the pools; Caddy starts its apps in any order, and requests may come
// before Start.
func (a *App) Provision(caddy.Context) error {
	if a.LargePoolBytes == 0 {
		a.LargePoolBytes = defaultLargePool
	}
	if a.SmallPoolBytes == 0 {
		a.SmallPoolBytes = defaultSmallPool
	}
	process.large.size.Store(a.LargePoolBytes)
	process.small.size.Store(a.SmallPoolBytes)
	return nil
}

// Start takes the journal and writes the boot line, once per process.
func (a *App) Start() error { return process.begin() }

// Stop leaves everything as it is: what runs outlives the configuration it began with.
func (a *App) Stop() error { return nil }

// state is what one process has once, across reloads.
type state struct {
	clock  clock
	random io.Reader

	journal atomic.Pointer[journal]
	node    string
	boot    string
	seq     atomic.Uint64

	once  sync.Once
	fault error // why the journal could not be begun

	large, small pool
	known        knownKeys
	streams      registry
	done         doneQueue
}

var process = newState(systemClock{}, rand.Reader)

func newState(c clock, random io.Reader) *state { return &state{clock: c, random: random} }

// use makes j the journal of the process, which has one until it ends.
func (s *state) use(j *journal) (*journal, error) {
	if !s.journal.CompareAndSwap(nil, j) && s.journal.Load().path != j.path {
		_ = j.Close()
		return nil, fmt.Errorf("the journal is %s until Caddy restarts", s.journal.Load().path)
	}
	return s.journal.Load(), nil
}

// begin takes the journal and writes the boot line; requests wait for it.
func (s *state) begin() error {
	s.once.Do(func() { s.fault = s.boots(s.clock.now()) })
	return s.fault
}

func (s *state) boots(now time.Time) error {
	j := s.journal.Load()
	if j == nil {
		return errors.New("no site logs to `output gateway_journal PATH`")
	}
	if err := j.own(); err != nil {
		return err
	}
	node, err := j.nodeID(s.random)
	if err != nil {
		return err
	}
	boot, err := newID(now, s.random)
	if err != nil {
		return err
	}
	s.node, s.boot = node, boot
	// A journal that takes nothing yet keeps the line, and the doors closed; ending instead would
	// end the whole gateway, since the next process fares no better.
	_ = j.line(now, "boot", bootLine{V: version, Node: s.node, Boot: s.boot})
	return nil
}

// isOpen says whether the journal takes lines; without it nothing may run.
func (s *state) isOpen() bool {
	return s.begin() == nil && !s.journal.Load().isClosed.Load()
}

// shutdown ends what still runs, and waits until all of it is in the journal.
func (s *state) shutdown(patience time.Duration) {
	j := s.journal.Load()
	if j == nil || s.boot == "" {
		return
	}
	s.streams.kill(outcomeShutdown, func(*exchange) bool { return true })
	deadline := s.clock.after(patience)
	for s.streams.count() > 0 || j.lines.Load() <= s.seq.Load() {
		select {
		case <-deadline:
			return
		case <-s.clock.after(lookEvery):
		}
	}
}

// doneQueue holds the requests that ended since authz was last told.
type doneQueue struct {
	mu   sync.Mutex
	list []ended
}

const (
	maxDone    = 32   // in one Ask
	maxPending = 4096 // in the queue; settlement frees the slots of those that fall out
)

func (q *doneQueue) push(list ...ended) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, list...)
	if extra := len(q.list) - maxPending; extra > 0 {
		q.list = append(q.list[:0], q.list[extra:]...)
	}
}

// take removes and returns the oldest; never nil, since the Ask's list is never null.
func (q *doneQueue) take() []ended {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(maxDone, len(q.list))
	taken := append([]ended{}, q.list[:n]...)
	q.list = append(q.list[:0], q.list[n:]...)
	return taken
}

// Interface guards.
var (
	_ caddy.App         = (*App)(nil)
	_ caddy.Provisioner = (*App)(nil)
)
