package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"neuronetz-gateway/caddy/internal/vault"
)

const (
	// maxPathBytes and maxMethodBytes bound what a client may write into the journal and the
	// Ask. No known path or method is nearly as long.
	maxPathBytes   = 256
	maxMethodBytes = 32

	// statusClientDisconnected is nginx's status for a client that closed the connection before
	// it had an answer. No client ever receives it.
	statusClientDisconnected = 499
)

// errCancelled is the cause with which the gateway itself cancels a request.
var errCancelled = errors.New("the gateway ended this request")

// phase is the one that the guard waits for an answer from.
type phase int

const (
	phaseOwn     phase = iota // Caddy's own handlers
	phaseAuthz                // forward_auth: a decision
	phaseBackend              // reverse_proxy: an answer, through the tap
)

// exchange is one request and its answer, from the first byte that the guard reads to the
// record in the journal. Guard and tap find it in the context of the request.
//
// Only the goroutine of the request touches it, with two exceptions: run has a lock of its
// own, attempts and seen are atomic where others see them. What others read besides those is set
// before the exchange enters the registry, and does not change while it is there.
type exchange struct {
	// What the client sent.
	id     string // a UUIDv7, minted with the Ask at the latest
	start  time.Time
	method string
	path   string // without the query, concealed
	target target
	host   string
	ip     string  // as Caddy's trusted_proxies determine it
	length *int64  // nil if chunked
	trace  *string // the trace that it belongs to, 32 hex digits; nil without one
	key    string  // the secret itself: never logged, never passed on; the public key of one who signs
	signed *signed // nil unless the client signs
	route  route

	// What the guard understood of it.
	request request
	share   share // of a memory pool, for the body
	ask     ask
	asked   time.Time // of the Ask: a Grant is valid for maxGrantAge from here
	phase   phase

	// What authz decided. All nil before, tenant and keyID also after a Denial without them.
	tenant, keyID *string
	changed       string // the fields that were dropped or lowered
	grant         *grant

	// The answer.
	usage        *usage // nil until a backend answers
	run          run
	firstContent time.Time
	lastContent  time.Time     // when the client had what was passed on last
	blocked      time.Duration // between the two, in writes to the client
	attempts     attempts      // to reach a backend
	seen         seen          // so far, for the control socket and the progress lines
	kept         *vault.Entry  // nil unless prompts of the key are

	// What became of it.
	outcome            outcome
	reason             reason
	status             int // that the client got, 0 if none
	upstreamStatus     int // that the backend sent, 0 if none
	clientDisconnected bool
}

// exchangeKey is where the context of a request has its exchange.
type exchangeKey struct{}

// exchangeOf returns the exchange of a request that has passed the guard, nil for another.
func exchangeOf(r *http.Request) *exchange {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	return x
}

// newExchange begins the exchange of a request with that target.
func newExchange(r *http.Request, t target) *exchange {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	x := &exchange{
		start:  process.clock.now(),
		method: concealedStart(r.Method, maxMethodBytes),
		path:   concealedStart(t.shown, maxPathBytes),
		target: t,
		host:   r.Host,
		ip:     ip,
	}
	if length := r.ContentLength; length >= 0 {
		x.length = &length
	}
	return x
}

// mint gives the exchange its id, now. The system's random numbers do not fail: crypto/rand
// ends the process first.
func (x *exchange) mint() {
	if x.id == "" {
		x.id, _ = newID(process.clock.now(), process.random)
	}
}

// lookup returns the public handle of the key, nil without one.
func (x *exchange) lookup() *string {
	if x.key == "" {
		return nil
	}
	handle := x.key[:lookupBytes]
	if x.signed != nil {
		handle = x.signed.handle()
	}
	return &handle
}

// makeAsk mints the id and returns the Ask: everything that authz may know of the request,
// and the requests that have ended on this node since the last Ask.
func (x *exchange) makeAsk(found problem) string {
	x.mint()
	x.ask = ask{
		V: version, ID: x.id, Node: process.node, Boot: process.boot, TraceID: x.trace, IP: x.ip,
		Method: x.method, Path: x.askedPath(), Lookup: x.lookup(), InPath: x.target.inPath, Length: x.length,
		Model: x.request.model, Stream: x.request.stream, MaxOutput: x.request.maxOutput,
		PromptBytes: x.request.prompt.bytes, Bounds: x.request.prompt.bounds, Images: x.request.prompt.images,
		Messages: x.request.prompt.messages, Tools: x.request.prompt.tools,
		Asked: x.request.asked, Signed: x.signed,
		Problem: optional(found), Field: optional(x.request.field), Done: process.done.take(),
	}
	x.phase = phaseAuthz
	x.asked = process.clock.now()
	return string(make(plainWriter, 0, askBytes).ask(&x.ask))
}

// takeDecision reads what authz answers to the client: a Denial, or on a read route a Grant.
// It returns false unless that is meant for this very request; a client then sees nothing
// of the answer, so that a broken or foreign authz can neither serve nor redirect.
func (x *exchange) takeDecision(status int, h http.Header) bool {
	if status/100 == 2 {
		g, err := parseGrant(h.Get(grantHeader), x.id)
		if err != nil || x.route.class != read {
			return false
		}
		x.tenant, x.keyID = optional(g.Tenant), optional(g.Key)
		return true
	}
	d, err := parseDenial(h.Get(denialHeader), x.id)
	if err != nil || status < http.StatusBadRequest {
		return false
	}
	x.tenant, x.keyID = d.Tenant, d.Key
	x.outcome, x.reason = outcomeDenied, reasonDenied
	if d.Reason != nil {
		x.reason = reason(*d.Reason)
	}
	return true
}

// takeGrant reads the Grant and journals that the request is about to run. It returns why
// the request may not run, "" if it may. The age of the Grant is checked after the journal,
// so that a slow disk can't make a request run that authz counts as expired.
func (x *exchange) takeGrant(text string, now time.Time) reason {
	if text == "" || x.route.class != metered {
		return reasonGrantMissing
	}
	g, err := parseGrant(text, x.id)
	if err != nil || len(g.Backends) == 0 {
		return reasonGrantInvalid
	}
	x.grant, x.tenant, x.keyID = g, optional(g.Tenant), optional(g.Key)
	x.enter(0)
	x.attempts.isQueued = x.attempts.ticket.isWaiting()
	err = process.journal.Load().line(now, "open", x.openLine(now))
	switch {
	case err != nil:
		return reasonJournalUnwritable
	case process.clock.now().Sub(x.asked) > maxGrantAge:
		return reasonGrantStale
	case x.request.body == nil || x.ask.Problem != nil:
		return reasonGrantInvalid // authz granted what the guard did not understand
	}
	process.known.add(x.key, now)
	return ""
}

// openLine returns the line of a request that is about to run.
func (x *exchange) openLine(now time.Time) openLine {
	g, q := x.grant, x.request
	return openLine{
		V: version, ID: x.id, Node: process.node, Boot: process.boot, Seq: process.seq.Add(1),
		TraceID: x.trace,
		Tenant:  g.Tenant, Key: g.Key, IP: x.ip, EndUser: x.endUser(), Path: x.path,
		Model: x.model(), ModelAsked: x.alias(),
		Backend: x.backend(), Stream: q.stream, Reserved: g.Reserved, Ceiling: g.Ceiling, Windows: g.Windows,
		Queued: x.attempts.isQueued, PromptBytes: int64(q.prompt.bytes), Images: int64(q.prompt.images),
		Deadline: now.Unix() + g.DeadlineS,
	}
}

// refuse ends the exchange with an answer of our own; the error carries its status.
func (x *exchange) refuse(status int, why reason) error {
	x.outcome, x.reason = outcomeRefused, why
	return caddyhttp.Error(status, errors.New(string(why)))
}

// close decides what became of the exchange, and puts its record on the access-log entry,
// which Caddy writes however the handlers end. isWhole is false if they panicked.
func (x *exchange) close(ctx context.Context, isWhole bool) {
	x.mint()
	x.outcome = x.settle(isWhole, ctx.Err() != nil)
	if x.outcome == outcomeClientDisconnected && x.status == 0 {
		x.status = statusClientDisconnected
	}
	if x.outcome == outcomeAuthzFailed || x.reason == denialLimiterUnavailable || x.reason == denialOverloaded {
		process.done.push(x.ask.Done...) // authz may not have read them, or not been able to act
	}
	if x.grant != nil {
		process.done.push(doneRequest{x.id, x.grant.Tenant, x.grant.Key})
	}
	isFailed := x.outcome == outcomeUpstreamError || x.outcome == outcomeUpstreamLost
	if isFailed && x.upstreamStatus/100 != 4 { // what it refuses is the client's fault
		process.queues.fail(x.backend())
	}
	x.share.release()
	x.kept.Close()
	x.checkBound()
	x.request.body, x.request.members = nil, nil // the record may wait for a second
	r := newRecord(x, newAccessLog(ctx, x.host))
	if extra, ok := ctx.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.Object("gateway", r))
	}
}

// settle returns the outcome. The order is the rule: an answer that is whole counts as
// completed even if the request was cancelled a moment later; then our own cause; then the
// client; then what the handlers decided; and last what the backend left.
func (x *exchange) settle(isWhole, isCancelled bool) outcome {
	isCut := x.clientDisconnected || isCancelled && !isWhole
	isUnanswered := x.status == 0 || x.status == statusClientDisconnected
	switch {
	case x.usage != nil && x.usage.terminal && !x.clientDisconnected && !x.usage.isError:
		return outcomeCompleted
	case x.run.cause() != "":
		return x.run.cause()
	case isUnanswered && isCancelled || isCut && x.phase == phaseBackend:
		return outcomeClientDisconnected
	case x.outcome != "":
		return x.outcome
	case x.phase != phaseBackend:
		return outcomeCompleted
	case x.usage == nil || x.upstreamStatus/100 != 2 || x.usage.isError:
		return outcomeUpstreamError
	case !isWhole || x.usage.isStream:
		return outcomeUpstreamLost
	}
	return outcomeCompleted
}
