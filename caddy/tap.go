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

// maxGrantAge is how long after its Ask a Grant is good, on our own clock.
const maxGrantAge = 2 * time.Second

// Tap stands between forward_auth and the backends. It lets a request pass only with a
// Grant of this very request, applies the Grant to the body, and reads the answer.
type Tap struct{}

// CaddyModule returns the Caddy module information.
func (Tap) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gateway_tap",
		New: func() caddy.Module { return new(Tap) },
	}
}

// ServeHTTP serves what has been granted and refuses everything else with 503.
func (Tap) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) (err error) {
	x := exchangeOf(r)
	if x == nil {
		return caddyhttp.Error(http.StatusServiceUnavailable, errors.New("gateway_tap without gateway_guard"))
	}
	if reason := x.accept(r.Header.Get(grantHeader), process.clock.now()); reason != "" {
		return x.refuse(http.StatusServiceUnavailable, reason)
	}
	x.prepare(r)

	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	deadline := time.Duration(x.grant.DeadlineS) * time.Second
	x.run.start(process.clock, http.NewResponseController(w), cancel, deadline)
	process.streams.add(x)
	t := newTapWriter(ctx, w, x)
	defer func() { err = t.leave(recover(), err) }()
	return next.ServeHTTP(t, r.WithContext(ctx))
}

// accept takes the Grant and journals that the request is about to run. The age of the
// Grant is looked at last, so that nothing runs that is not in the journal by then.
func (x *exchange) accept(text string, now time.Time) (reason string) {
	if text == "" || x.route.class != metered {
		return "grant_missing"
	}
	g, err := parseGrant(text, x.id)
	if err != nil || len(g.Backends) == 0 {
		return "grant_invalid"
	}
	x.grant, x.tenant, x.keyID = g, optional(g.Tenant), optional(g.Key)
	err = process.journal.Load().line(now, "open", openLine{
		V: version, ID: x.id, Node: process.node, Boot: process.boot, Seq: process.seq.Add(1),
		Tenant: g.Tenant, Key: g.Key, Reserved: g.Reserved, Windows: g.Windows,
		Deadline: now.Unix() + g.DeadlineS,
	})
	switch {
	case err != nil:
		return "journal_unwritable"
	case process.clock.now().Sub(x.asked) > maxGrantAge:
		return "grant_stale"
	case x.request.body == nil || x.ask.Problem != nil:
		return "grant_invalid"
	}
	process.known.add(x.key, now)
	return ""
}

// prepare makes the request what the backend is to see.
func (x *exchange) prepare(r *http.Request) {
	x.phase = phaseBackend
	caddyhttp.SetVar(r.Context(), backendVar, x.grant.Backends[0])
	stripOurs(r.Header)
	for _, name := range append([]string{"Accept-Encoding", "Origin", "Referer"}, credentialHeaders...) {
		delete(r.Header, name)
	}
	// Go sends a request again by itself if it says that it may be: one Grant would run twice.
	delete(r.Header, "Idempotency-Key")
	delete(r.Header, "X-Idempotency-Key")
	// A key that a client has put elsewhere as well is no more the backend's business.
	r.URL.RawQuery = concealed(r.URL.RawQuery)
	for _, values := range r.Header {
		for i := range values {
			values[i] = concealed(values[i])
		}
	}
	body := x.request.edited(x.grant, x.route.api)
	x.request.body, x.request.members = nil, nil
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.ContentLength, r.TransferEncoding, r.Trailer = int64(len(body)), nil, nil
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
}

// Interface guards.
var _ caddyhttp.MiddlewareHandler = (*Tap)(nil)
