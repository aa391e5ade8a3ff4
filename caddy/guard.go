package gateway

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(Guard{})
}

const (
	defaultMaxBody = 32 << 20
	// Variables by which the Caddyfile routes what the guard has understood.
	routeVar   = "gateway_route" // public, preflight, read or verify
	askVar     = "gateway_ask"
	backendVar = "gateway_backend"
)

// Guard is the outermost handler: it understands the request, removes from it what may
// lie, makes the Ask, and writes the record. It decides nothing: what it finds wrong is a
// problem on the Ask, and authz refuses. It answers itself only where authz cannot.
type Guard struct {
	// MaxBodyBytes bounds the body of a request.
	MaxBodyBytes int64 `json:"max_body_bytes,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Guard) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gateway_guard",
		New: func() caddy.Module { return new(Guard) },
	}
}

// Provision makes sure that the app, which owns the journal, runs.
func (g *Guard) Provision(ctx caddy.Context) error {
	if g.MaxBodyBytes == 0 {
		g.MaxBodyBytes = defaultMaxBody
	}
	_, err := ctx.App("gateway")
	return err
}

// ServeHTTP lets a request through to the handlers that the Caddyfile names, and makes
// sure that it is answered and recorded whatever they do.
func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	x := newExchange(r, path)
	gw := &guardWriter{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, x: x}
	ctx, isWhole := r.Context(), false
	defer func() { x.close(ctx, isWhole) }()

	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		// Else net/http would wait for the rest of the body before it sends a refusal.
		w.Header().Set("Connection", "close")
	}
	isPreflight := isPreflight(r)
	stripHeaders(r.Header)
	err := g.understand(gw, r, path, isPreflight)
	if err == nil {
		err = next.ServeHTTP(gw, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)))
	}
	gw.finish(err, r.Context().Err() != nil)
	isWhole = true
	return nil
}

// understand finds the route, the key and what the body says, and makes the Ask. An error
// is a refusal of our own.
func (g *Guard) understand(w *guardWriter, r *http.Request, path string, isPreflight bool) error {
	x := w.x
	isPublic := isTarget(path) && findRoute(r.Method, path).class == public
	if !process.isOpen() && !isPublic {
		x.route = route{dialect: dialectOf(path)}
		return x.refuse(http.StatusServiceUnavailable, "journal_unwritable")
	}
	if isPreflight {
		caddyhttp.SetVar(r.Context(), routeVar, "preflight")
		return nil
	}
	problem := ""
	if r.URL.Opaque != "" || !isTarget(path) {
		problem = problemTarget
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
	if problem == "" {
		var err error
		if problem, err = g.inspect(w, r); err != nil {
			return err
		}
	}
	x.setRoute(r, problem)
	return nil
}

// setRoute makes the Ask and tells the Caddyfile where it goes.
func (x *exchange) setRoute(r *http.Request, problem string) {
	where := "verify"
	if x.route.class == read && problem == "" && x.key != "" {
		where = "read"
	}
	if x.route.class != metered {
		dropBody(r)
	}
	caddyhttp.SetVar(r.Context(), askVar, x.makeAsk(problem))
	caddyhttp.SetVar(r.Context(), routeVar, where)
}

// inspect reads the credentials, and the body if they are well-formed and it matters.
func (g *Guard) inspect(w *guardWriter, r *http.Request) (problem string, err error) {
	x := w.x
	key, ok := findKey(r.Header)
	if !ok {
		return problemCredential, nil
	}
	x.key = key
	if key == "" || x.route.api == apiNone {
		return "", nil
	}
	if len(r.Header["Content-Encoding"]) > 0 {
		return problemEncoding, nil
	}
	x.share.pool = &process.small
	if process.known.has(key, x.start) {
		x.share.pool = &process.large
	}
	body, err := readBody(r, g.MaxBodyBytes, &x.share)
	switch {
	case errors.Is(err, errTooLarge):
		return problemTooLarge, nil
	case errors.Is(err, errPoolFull):
		return "", x.refuse(http.StatusServiceUnavailable, "pool_full")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "", x.refuse(http.StatusRequestTimeout, "body_slow")
	case err != nil && r.Context().Err() != nil:
		return "", caddyhttp.Error(statusClientGone, err)
	case err != nil:
		return "", x.refuse(http.StatusBadRequest, "body_broken")
	}
	w.Header().Del("Connection")
	x.request, problem = readRequest(body, x.route.api)
	return problem, nil
}

// dropBody makes a request one without a body and without a query.
func dropBody(r *http.Request) {
	r.Body, r.ContentLength, r.TransferEncoding = http.NoBody, 0, nil
	r.Header.Del("Content-Length")
	r.Header.Del("Content-Type")
	r.URL.RawQuery = ""
}

func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header["Origin"]) == 1 &&
		len(r.Header["Access-Control-Request-Method"]) == 1 && strings.HasPrefix(r.RequestURI, "/")
}

// strippedHeaders could lead a request elsewhere, keep it open or make it another.
var strippedHeaders = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Upgrade", "Http2-Settings", "Trailer", "Te",
	"Expect", "Cookie", "Proxy-Authorization", "Forwarded", "X-Real-Ip", "X-Forwarded-Uri",
	"X-Forwarded-Method", "X-Forwarded-Prefix", "X-Http-Method-Override", "X-Http-Method",
	"X-Method-Override", ":protocol",
}

func stripHeaders(h http.Header) {
	for _, name := range strippedHeaders {
		delete(h, name)
	}
	stripOurs(h)
}

// stripOurs removes the headers that carry our messages.
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
