package gateway

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(Guard{})
}

const (
	defaultMaxBody = 32 << 20

	// Variables by which the Caddyfile routes what the guard has understood.
	routeVar   = "gateway_route"   // public, preflight, read or verify
	askVar     = "gateway_ask"     // the Ask, for forward_auth's header
	backendVar = "gateway_backend" // the snippet that the tap chose from the Grant
)

// Guard is the outermost handler: it understands the request, removes from it what may
// lie, makes the Ask, and puts the record on the access-log entry. It decides nothing: what
// it finds wrong is a problem on the Ask, and authz refuses.
//
// It answers itself only where authz can't: while the journal can't be written (503), when
// there is no memory for a body (503), when a body breaks off (400) or stalls (408), and
// when authz or a backend fails (502, 503, 504); and it sends who asks for a known path with
// doubled or trailing slashes to that path (307), whoever that is. These answers are JSON in the dialect of
// the path and name nothing that is inside; those above 499 have a Retry-After, or an
// X-Should-Retry: false where a retry would end in the same way.
// Every answer has an X-Request-Id, which names its record, and a Request-Id in Anthropic's API.
type Guard struct {
	// MaxBodyBytes bounds the body of a request; a larger one is the problem too_large, which
	// authz refuses with 413. 0 means 32 MiB.
	MaxBodyBytes int64 `json:"max_body_bytes,omitempty"`

	config *configuration
}

// CaddyModule returns the Caddy module information.
func (Guard) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gateway_guard",
		New: func() caddy.Module { return new(Guard) },
	}
}

// Provision makes sure that there is a journal, and that the app, which owns it, runs.
func (g *Guard) Provision(ctx caddy.Context) error {
	if g.MaxBodyBytes == 0 {
		g.MaxBodyBytes = defaultMaxBody
	}
	if _, err := ctx.App("gateway"); err != nil {
		return err
	}
	g.config = process.config(ctx)
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		server.RegisterConnState(g.config.note)
		if server.Logs == nil {
			ctx.Logger().Warn("no site on this address has a `log`, so the guard will write every record itself",
				zap.Strings("listen", server.Listen))
		}
	}
	return process.needsJournal(ctx, "gateway_guard")
}

// ServeHTTP lets a request through to the handlers that the Caddyfile names, and makes
// sure that it is answered and recorded whatever they do.
func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	t := readTarget(path)
	t.rewrite(r)
	x := newExchange(r, t)
	gw := &guardWriter{
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, x: x, next: next, config: g.config,
	}
	ctx, isWhole := r.Context(), false
	defer func() { x.close(ctx, isWhole) }()

	if r.ProtoMajor == 1 && (r.ContentLength != 0 || isHTTP10(r)) {
		// Else net/http would wait for the rest of the body before it sends a refusal.
		w.Header().Set("Connection", "close")
	}
	isPreflight := isPreflight(r) // by headers that are removed next
	stripHeaders(r.Header)
	x.trace = takeTrace(r.Header)
	err := g.understand(gw, r, t.path, isPreflight)
	if err == nil {
		err = next.ServeHTTP(gw, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)))
	}
	if errors.Is(err, errAnswered) {
		err = nil
	}
	gw.finish(err, r.Context().Err() != nil)
	isWhole = true
	return nil
}

// understand finds the route, the key and what the body means, and makes the Ask. An error
// is a refusal of our own. A public route and a CORS preflight carry no credentials, and
// make no Ask.
func (g *Guard) understand(w *guardWriter, r *http.Request, path string, isPreflight bool) error {
	x := w.x
	isPublic := isTarget(path) && findRoute(r.Method, path).class == public
	if !process.isOpen() && (!isPublic || path == "/readyz") {
		x.route = route{dialect: dialectOf(path)}
		return x.refuse(http.StatusServiceUnavailable, reasonJournalUnwritable)
	}
	if isPreflight {
		caddyhttp.SetVar(r.Context(), routeVar, "preflight")
		return nil
	}
	if clean, ok := cleanPath(path); ok {
		x.route = route{dialect: dialectOf(clean)}
		w.Header().Set("Location", clean)
		return x.refuse(http.StatusTemporaryRedirect, reasonPathSlashes)
	}
	found := noProblem
	if r.URL.Opaque != "" || !isTarget(path) {
		found = problemTarget
		x.route = route{dialect: dialectOf(path)}
		r.URL.Opaque = "" // else forward_auth would ask authz for this and not for /verify
	} else {
		x.route = findRoute(r.Method, path)
	}
	if x.route.class == public {
		caddyhttp.SetVar(r.Context(), routeVar, "public")
		dropBody(r)
		return nil
	}
	if found == noProblem {
		var err error
		if found, err = g.inspect(w, r); err != nil {
			return err
		}
	}
	sendAsk(x, r, found)
	return nil
}

// sendAsk makes the Ask, and sets by which of authz's two ways the Caddyfile sends it:
// verify decides, read decides and answers. Only a metered request goes on with a body.
func sendAsk(x *exchange, r *http.Request, found problem) {
	where := "verify"
	if x.route.class == read && found == noProblem && x.key != "" {
		where = "read"
	}
	if x.route.class != metered {
		dropBody(r)
	}
	sendTo(r, where, x.makeAsk(found))
}

// sendTo makes the Caddyfile send a request with its Ask to authz, by one of its two ways.
func sendTo(r *http.Request, where, text string) {
	caddyhttp.SetVar(r.Context(), askVar, text)
	caddyhttp.SetVar(r.Context(), routeVar, where)
}

// inspect reads the credentials, and the body if they are well-formed, the route has an API and
// authz knows the key: a client without a key costs no memory.
func (g *Guard) inspect(w *guardWriter, r *http.Request) (found problem, err error) {
	x := w.x
	key, ok := takeKey(r.Header, x.target)
	if !ok {
		return problemCredential, nil
	}
	x.key = key
	if len(key) == signedBytes {
		x.signed = readSigned(key, r.URL.RawQuery)
		x.key, r.URL.RawQuery = x.signed.Key, ""
	}
	if key == "" || x.route.api == apiNone {
		return noProblem, nil
	}
	if len(r.Header["Content-Encoding"]) > 0 {
		return problemEncoding, nil
	}
	if g.isStranger(x, r) {
		if err := askForKey(w, r); err != nil {
			return noProblem, err
		}
	}
	memory := &process.small
	if process.known.has(x.key, x.start) {
		memory = &process.large
	}
	x.share = memory.share(x.key, x.ip)
	body, err := readBody(r, g.MaxBodyBytes, &x.share)
	switch {
	case errors.Is(err, errTooLarge):
		return problemTooLarge, nil
	case errors.Is(err, errPoolFull):
		return noProblem, x.refuse(http.StatusServiceUnavailable, reasonPoolFull)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return noProblem, x.refuse(http.StatusRequestTimeout, reasonBodySlow)
	case err != nil && r.Context().Err() != nil:
		return noProblem, caddyhttp.Error(statusClientDisconnected, err)
	case err != nil:
		return noProblem, x.refuse(http.StatusBadRequest, reasonBodyBroken)
	}
	if !isHTTP10(r) {
		w.Header().Del("Connection")
	}
	x.request, found = readRequest(body, x.route.api)
	return found, nil
}

// isHTTP10 reports whether a connection must end after this request: HTTP/1.0 knows no chunks, so
// net/http ignores their header, and takes for the next request what a proxy in front took for
// the body of this one (RFC 9112, 6.1).
func isHTTP10(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.ProtoMinor == 0
}

// dropBody makes a request one without a body and without a query.
func dropBody(r *http.Request) {
	r.Body, r.ContentLength, r.TransferEncoding = http.NoBody, 0, nil
	r.Header.Del("Content-Length")
	r.Header.Del("Content-Type")
	r.URL.RawQuery = ""
}

// isPreflight reports whether a request is a CORS preflight (Fetch, 4.8), which browsers
// send without credentials.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header["Origin"]) == 1 &&
		len(r.Header["Access-Control-Request-Method"]) == 1 && strings.HasPrefix(r.RequestURI, "/")
}

// strippedHeaders are removed from every request. They could lead it elsewhere (the
// overrides, which the routers of some frameworks obey), keep it open or switch its protocol
// (the hop-by-hop headers of RFC 9110, 7.6.1), make the client wait for a 100, or pass for
// credentials or an address that are not the client's.
var strippedHeaders = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Upgrade", "Http2-Settings", "Trailer", "Te",
	"Expect", "Cookie", "Proxy-Authorization", "Forwarded", "X-Real-Ip", "X-Forwarded-Uri",
	"X-Forwarded-Method", "X-Forwarded-Prefix", "X-Http-Method-Override", "X-Http-Method",
	"X-Method-Override", ":protocol",
}

// stripHeaders removes what a client may not send on.
func stripHeaders(h http.Header) {
	for _, name := range strippedHeaders {
		delete(h, name)
	}
	stripOurs(h)
}

// stripOurs removes the headers that carry our messages: a client that could send a Grant
// would need no authz.
func stripOurs(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "X-Nz-") {
			delete(h, name)
		}
	}
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Guard)(nil)
	_ caddyhttp.MiddlewareHandler = (*Guard)(nil)
)
