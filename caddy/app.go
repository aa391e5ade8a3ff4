// Package gateway is the part of neuronetz-gateway that runs in Caddy. Eight modules, of which six share
// one process-wide state:
//
//   - gateway (App): the memory pools, and the begin of the journal
//   - http.handlers.gateway_guard (Guard): understands a request and asks authz
//   - http.handlers.gateway_tap (Tap): holds an answer to what authz granted
//   - http.handlers.gateway_control (Control): lists and kills what runs
//   - caddy.logging.writers.gateway_journal (JournalWriter): the journal's file
//   - caddy.logging.encoders.gateway (LogEncoder): log lines without secrets
//   - http.ip_sources.gateway (Proxies): the proxies in front of this one
//   - caddy.listeners.gateway_proxy_protocol (ProxyProtocol): the load balancers in front of it
//
// A metered request passes guard, forward_auth (authz), tap and reverse_proxy (a backend) in
// this order, as the Caddyfile sets them up; its record in the journal is what metering
// bills from. The messages between them are in messages.go, the reasons in reasons.go.
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
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"neuronetz-gateway/caddy/internal/vault"
)

func init() {
	caddy.RegisterModule(App{})
	caddy.OnExit(func(context.Context) { process.shutdown(exitWait) })
}

const (
	defaultLargePool = 1 << 30
	defaultSmallPool = 128 << 20

	// longestDrain is the same as LONGEST_DRAIN_S in authz/forms.py.
	longestDrain = 5 * time.Minute

	exitWait = time.Second // for the last lines of what runs when Caddy exits
)

// App is the Caddy app `gateway`. It opens the journal when Caddy starts, and sets how much
// memory the bodies of requests may take together: without such a bound a client without a
// valid key could fill the memory of the machine with bodies that are never finished. One key, and
// one source (an address, or its /64 in IPv6), takes no more than it leaves free: half of a pool if
// it is alone.
//
// A client whose body finds no room gets a 503 with the reason pool_full.
type App struct {
	// LargePoolBytes bounds the bodies of keys that were granted lately. 0 means 1 GiB.
	LargePoolBytes int64 `json:"large_pool_bytes,omitempty"`
	// SmallPoolBytes bounds the bodies of all other keys, so that they can't crowd out those
	// that are known. 0 means 128 MiB.
	SmallPoolBytes int64 `json:"small_pool_bytes,omitempty"`
	// Tables is the folder of the models' vocabularies, which authz fills: by them the tokens
	// of a prompt are bounded. Without it each byte counts as a token.
	Tables string `json:"tables,omitempty"`
	// Prompts is where prompts and answers of the keys that ask for it are kept, sealed.
	Prompts Prompts `json:"prompts,omitzero"`
	// Drain is how long a configuration that stops, at a reload or for good, lets connections come to an
	// end before it closes those that clients keep for later: longer than clients keep them is best, as
	// they then meet no closed one. 0 closes them at once. What runs goes on in any case. It is 5 minutes
	// at most, as whatever stops Caddy waits for no longer.
	Drain caddy.Duration `json:"drain,omitempty"`

	log    *zap.Logger
	config *configuration
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "gateway", New: func() caddy.Module { return new(App) }}
}

// Provision sets the pools and registers the metrics; Caddy starts its apps in any order, and
// requests may come before Start.
func (a *App) Provision(ctx caddy.Context) error {
	a.log = ctx.Logger()
	if time.Duration(a.Drain) > longestDrain {
		return fmt.Errorf("drain is %s: write %s or less", time.Duration(a.Drain), longestDrain)
	}
	if a.LargePoolBytes == 0 {
		a.LargePoolBytes = defaultLargePool
	}
	if a.SmallPoolBytes == 0 {
		a.SmallPoolBytes = defaultSmallPool
	}
	process.large.resize(a.LargePoolBytes)
	process.small.resize(a.SmallPoolBytes)
	a.config = process.config(ctx)
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	if err := events.(*caddyevents.App).On("stopping", a); err != nil { //nolint:forcetypeassert // Caddy's own
		return err
	}
	return errors.Join(a.Prompts.provision(), registerMetrics(ctx.GetMetricsRegistry()))
}

// Start takes the journal and writes the boot line, once per process. It fails, and Caddy
// with it, if no site logs to a journal or another process writes it.
func (a *App) Start() error {
	process.records.forgive()
	process.tables.watch(a.Tables, process.clock, a.log)
	process.vault.Watch(a.Prompts.settings(), a.log)
	return process.begin()
}

// Stop leaves everything as it is: what runs outlives the configuration it began with.
func (a *App) Stop() error { return nil }

// state is what one process has once, across reloads.
type state struct {
	// Where time and randomness come from; tests replace them.
	clock  clock
	random io.Reader

	// The journal, and what its lines are identified by. node and boot are written once, by
	// begin, before the doors open.
	journal atomic.Pointer[journal] // nil until a site logs to one
	node    string                  // a UUID, the same for every process beside this journal
	boot    string                  // a UUIDv7 of this process
	seq     atomic.Uint64           // of the last line; the boot line has 0
	records uncarried               // those that have a number and are not in it yet
	configs sync.Map                // each configuration by its metrics

	once  sync.Once
	fault error // of begin

	// What requests share. Each has its own lock.
	large, small pool
	known        knownKeys
	streams      registry
	queues       queues
	tables       tables
	vault        *vault.Vault // what is kept of prompts and answers
	done         doneQueue
	retried      atomic.Uint64 // requests that went out once more
}

// process is the state of this process.
var process = newState(systemClock{}, rand.Reader)

func newState(c clock, random io.Reader) *state {
	return &state{clock: c, random: random, vault: vault.New(c.now, c.after, random)}
}

const (
	// maxDone is how many ended requests one Ask names; it bounds the header.
	maxDone = 32
	// maxPending is how many wait for an Ask. Settlement frees the slots of those that fall out.
	maxPending = 4096
)

// doneQueue holds the requests that have ended and that authz does not know of yet. Naming
// them in the next Ask frees their slots before metering settles them.
type doneQueue struct {
	mu   sync.Mutex
	list []doneRequest // oldest first
}

// push appends, and drops the oldest of what is too many.
func (q *doneQueue) push(list ...doneRequest) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, list...)
	if extra := len(q.list) - maxPending; extra > 0 {
		q.list = append(q.list[:0], q.list[extra:]...)
	}
}

// take removes and returns the oldest; never nil, since the Ask's list is never null.
func (q *doneQueue) take() []doneRequest {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(maxDone, len(q.list))
	taken := append([]doneRequest{}, q.list[:n]...)
	q.list = append(q.list[:0], q.list[n:]...)
	return taken
}

// Interface guards.
var (
	_ caddy.App           = (*App)(nil)
	_ caddy.Provisioner   = (*App)(nil)
	_ caddyevents.Handler = (*App)(nil)
)
