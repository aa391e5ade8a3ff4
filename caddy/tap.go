package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(Tap{})
}

// maxGrantAge is how long after its Ask a Grant is valid, on our own clock. After a loss of
// its counters authz waits as long: every request that it granted before then either has
// its line in the journal, or never runs. It also makes a replayed Grant useless.
const maxGrantAge = 2 * time.Second

// Tap stands between forward_auth and the backends. It lets a request pass only with a
// Grant of this very request, journals that it begins, applies the Grant to the body, and
// reads the answer: its usage, its end, and whether it is longer than granted.
//
// The client sees a 503 in its dialect for what is not granted, and otherwise the answer of
// the backend byte for byte, but for the usage chunk that it did not ask for. X-Gateway-Changed
// names what of its body was dropped or lowered. A stream that
// the gateway ends closes with a valid last frame.
//
// The Grant has the terms.
type Tap struct {
	// QueueWait is how long a request waits for a slot where its backend takes only so many at a
	// time; then it is refused with 503. 0 means 30 s.
	QueueWait caddy.Duration `json:"queue_wait,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Tap) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gateway_tap",
		New: func() caddy.Module { return new(Tap) },
	}
}

// Provision makes sure that there is a journal, and sets the default.
func (h *Tap) Provision(ctx caddy.Context) error {
	if h.QueueWait == 0 {
		h.QueueWait = caddy.Duration(defaultQueueWait)
	}
	return process.needsJournal(ctx, "gateway_tap")
}

// ServeHTTP serves what has been granted and refuses everything else with 503.
func (h *Tap) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) (err error) {
	x := exchangeOf(r)
	if x == nil {
		return caddyhttp.Error(http.StatusServiceUnavailable, errors.New("gateway_tap without gateway_guard"))
	}
	defer func() { process.queues.leave(x.attempts.ticket) }()
	if why := x.takeGrant(r.Header.Get(grantHeader), process.clock.now()); why != "" {
		return x.refuse(http.StatusServiceUnavailable, why)
	}
	x.keepPrompt()
	applyGrant(x, r)

	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context())) // see hangup
	defer cancel(nil)
	ctx = x.attempts.traced(ctx)
	deadline := time.Duration(x.grant.DeadlineS) * time.Second
	x.run.attach(process.clock, http.NewResponseController(w), cancel, deadline)
	process.streams.add(x)
	t := newTapWriter(ctx, w, x)
	t.hangup.cancel = cancel
	client := r.Context()
	defer context.AfterFunc(client, func() { t.hangup.begin(context.Cause(client)) })()
	defer func() { err = t.finish(recover(), err) }()
	return x.serve(t, r.WithContext(ctx), next, time.Duration(h.QueueWait))
}

// applyGrant makes the request what a backend is to see: the body with the Grant's cap, and no
// trace of the client's credentials or of our messages.
func applyGrant(x *exchange, r *http.Request) {
	x.phase = phaseBackend
	stripOurs(r.Header)
	for _, name := range append([]string{"Accept-Encoding", "Origin", "Referer"}, credentialHeaders...) {
		delete(r.Header, name)
	}
	// net/http sends a request again by itself if it claims to be idempotent: one Grant would
	// run twice.
	delete(r.Header, "Idempotency-Key")
	delete(r.Header, "X-Idempotency-Key")
	// A client may have put its key elsewhere as well, by mistake.
	r.URL.RawQuery = concealedQuery(r.URL.RawQuery)
	concealHeaders(r.Header)
	x.changed = x.request.changed(x.grant)
	body := x.request.edited(x.grant, x.route.api)
	x.request.body, x.request.members = nil, nil // the memory may go before the answer comes
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.ContentLength, r.TransferEncoding, r.Trailer = int64(len(body)), nil, nil
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Tap)(nil)
	_ caddyhttp.MiddlewareHandler = (*Tap)(nil)
)
