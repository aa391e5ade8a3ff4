package gateway

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const (
	// problemUnread is what an Ask says that is about a key alone: its body has not been read.
	problemUnread problem = "body_unread"

	// maxRefusalBytes bounds the body of authz's refusal, which has one sentence.
	maxRefusalBytes = 64 << 10
)

// errAnswered ends a request that authz has answered.
var errAnswered = errors.New("authz has answered")

// known is authz's answer to an Ask about a key alone: the key may send requests. It grants
// nothing, and no handler but the guard reads it.
type known struct {
	V  int    `json:"v"`
	ID string `json:"id"`
}

// isStranger reports whether a request has a body to read, and a key that was not granted on
// this node lately: anybody can invent one, so authz is asked before the body costs memory. Of one
// who signs the key is public, so each signature is asked for.
func (g *Guard) isStranger(x *exchange, r *http.Request) bool {
	return r.ContentLength != 0 && r.ContentLength <= g.MaxBodyBytes &&
		(x.signed != nil || !process.known.has(x.key, x.start))
}

// askForKey asks authz about the key alone, with an id of its own. It returns nil if the key may
// send requests, errAnswered if authz has refused it, and else the error of the way to authz.
func askForKey(w *guardWriter, r *http.Request) error {
	x := w.x
	x.mint()
	x.phase = phaseAuthz
	answer := &shortAnswer{header: http.Header{}}
	if err := w.next.ServeHTTP(answer, keyRequest(x, r, answer)); err != nil {
		return err
	}
	var k known
	text := answer.header.Get(knownHeader)
	if answer.status == http.StatusNoContent && json.Unmarshal([]byte(text), &k) == nil &&
		k.V == version && k.ID == x.id {
		x.id, x.phase = "", phaseOwn
		return nil
	}
	if answer.status < http.StatusBadRequest {
		w.unsolicited = true
		return errAnswered
	}
	maps.Copy(w.Header(), answer.header)
	w.WriteHeader(answer.status)
	_, err := w.Write(answer.body)
	w.note(err)
	return errAnswered
}

// keyRequest returns the Ask about the key alone, as a request of its own that the Caddyfile
// sends to authz like one of a read route. Neither the body nor a header of the client goes along.
func keyRequest(x *exchange, r *http.Request, w http.ResponseWriter) *http.Request {
	asked := &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: "/verify"}, RequestURI: "/verify", Host: r.Host,
		Proto: r.Proto, ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor, RemoteAddr: r.RemoteAddr, TLS: r.TLS,
		Header: http.Header{}, Body: http.NoBody,
	}
	if x.signed == nil {
		asked.Header.Set("Authorization", x.target.credential(x.key))
	}
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	// The Caddyfile's groups of routes are taken once per request, so this one needs its own.
	asked = caddyhttp.PrepareRequest(asked.WithContext(r.Context()), caddy.NewReplacer(), w, server)
	unread := problemUnread
	sendTo(asked, "read", marshalASCII(ask{
		V: version, ID: x.id, Node: process.node, Boot: process.boot, TraceID: x.trace, IP: x.ip, Method: x.method,
		Path: x.askedPath(), Lookup: x.lookup(), InPath: x.target.inPath, Length: x.length, Signed: x.signed,
		Problem: &unread, Done: []doneRequest{},
	}))
	return asked
}

// shortAnswer keeps an answer of at most maxRefusalBytes.
type shortAnswer struct {
	header http.Header
	status int
	body   []byte
}

// Header returns the header of the answer.
func (a *shortAnswer) Header() http.Header { return a.header }

// WriteHeader keeps the first final status.
func (a *shortAnswer) WriteHeader(status int) {
	if a.status == 0 && status >= http.StatusOK {
		a.status = status
	}
}

// Write keeps a part of the body, or returns io.ErrShortBuffer once that is too long.
func (a *shortAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if len(a.body)+len(p) > maxRefusalBytes {
		return 0, io.ErrShortBuffer
	}
	a.body = append(a.body, p...)
	return len(p), nil
}

// Flush has nothing to flush.
func (a *shortAnswer) Flush() {}
