package gateway

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// Outcomes of a request.
const (
	outcomeCompleted     = "completed"
	outcomeDenied        = "denied"
	outcomeRefused       = "refused"
	outcomeAuthzFailed   = "authz_failed"
	outcomeClientGone    = "client_gone"
	outcomeUpstreamGone  = "upstream_gone"
	outcomeUpstreamError = "upstream_error"
	outcomeCap           = "cut_cap"
	outcomeDeadline      = "cut_deadline"
	outcomeKilled        = "killed"
	outcomeShutdown      = "shutdown"
	outcomeOverflow      = "overflow"
)

const (
	maxPathBytes     = 256 // in messages; no known path is nearly as long
	maxMethodBytes   = 32
	statusClientGone = 499
)

var errEnded = errors.New("the gateway ended this request")

// phase is whose answer the guard is waiting for.
type phase int

const (
	phaseOwn     phase = iota // Caddy's own
	phaseAuthz                // what authz says reaches the client
	phaseBackend              // what the backend says, through the tap
)

// exchange is one request and its answer. Guard and tap share it across forward_auth, and
// only the goroutine of the request touches it, but for its run.
type exchange struct {
	id     string
	start  time.Time
	method string
	path   string
	ip     string
	route  route
	key    string // the secret itself: never logged
	length *int64

	request request
	share   share
	ask     ask
	asked   time.Time
	phase   phase

	tenant, keyID *string
	grant         *grant
	usage         *usage // nil until a backend answers
	run           run
	firstContent  time.Time
	seen          atomic.Int64 // deltas so far, for those who list the streams

	outcome        string
	reason         string
	status         int
	upstreamStatus int
	isClientGone   bool // a write to it failed
}

type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	return x
}

func newExchange(r *http.Request, path string) *exchange {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	x := &exchange{
		start:  process.clock.now(),
		method: r.Method[:min(len(r.Method), maxMethodBytes)],
		path:   path[:min(len(path), maxPathBytes)],
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

// lookup is the public handle of the key, nil without one.
func (x *exchange) lookup() *string {
	if x.key == "" {
		return nil
	}
	handle := x.key[:lookupBytes]
	return &handle
}

// model is what the client calls the model, as the journal may know it.
func (x *exchange) model() *string {
	if x.request.model == nil {
		return nil
	}
	name := concealed(*x.request.model)
	return &name
}

// makeAsk mints the id and says what is known of the request.
func (x *exchange) makeAsk(problem string) string {
	x.mint()
	x.ask = ask{
		V: version, ID: x.id, Node: process.node, Boot: process.boot, IP: x.ip,
		Method: x.method, Path: x.path, Lookup: x.lookup(), Length: x.length,
		Model: x.request.model, Stream: x.request.stream, MaxOutput: x.request.maxOutput,
		PromptBytes: x.request.prompt.bytes, Images: x.request.prompt.images,
		Messages: x.request.prompt.messages, Tools: x.request.prompt.tools,
		Problem: optional(problem), Done: process.done.take(),
	}
	x.phase = phaseAuthz
	x.asked = process.clock.now()
	return marshalASCII(x.ask)
}

// refuse ends the exchange with an answer of our own; the error carries its status.
func (x *exchange) refuse(status int, reason string) error {
	x.outcome, x.reason = outcomeRefused, reason
	return caddyhttp.Error(status, errors.New(reason))
}

// close settles what became of the exchange and puts the record on the access-log entry,
// which Caddy writes however the handlers end. isWhole is false if they panicked.
func (x *exchange) close(ctx context.Context, isWhole bool) {
	x.mint()
	x.outcome = x.settle(isWhole, ctx.Err() != nil)
	if x.outcome == outcomeClientGone && x.status == 0 {
		x.status = statusClientGone
	}
	if x.outcome == outcomeAuthzFailed || x.reason == "limiter_unavailable" || x.reason == "overloaded" {
		process.done.push(x.ask.Done...) // authz may not have heard of them, or not been able to act
	}
	if x.grant != nil {
		process.done.push(ended{x.id, x.grant.Tenant, x.grant.Key})
	}
	if x.share.pool != nil {
		x.share.release()
	}
	if extra, ok := ctx.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.Object("gateway", x.record()))
	}
}

// settle decides the outcome.
func (x *exchange) settle(isWhole, isCancelled bool) string {
	isCut := x.isClientGone || isCancelled && !isWhole
	isUnanswered := x.status == 0 || x.status == statusClientGone
	switch {
	case x.usage != nil && x.usage.terminal && !x.isClientGone:
		return outcomeCompleted
	case x.run.ended() != "":
		return x.run.ended()
	case isUnanswered && isCancelled || isCut && x.phase == phaseBackend:
		return outcomeClientGone
	case x.outcome != "":
		return x.outcome
	case x.phase != phaseBackend:
		return outcomeCompleted
	case x.usage == nil || x.upstreamStatus/100 != 2 || x.usage.isError:
		return outcomeUpstreamError
	case !isWhole || x.usage.isStream:
		return outcomeUpstreamGone
	}
	return outcomeCompleted
}
