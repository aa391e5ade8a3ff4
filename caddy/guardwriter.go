package gateway

import (
	"io"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// guardWriter is the client's side of an exchange. Nothing reaches the client but what the
// backend sends through the tap, what authz sends with a Denial or Grant of this very
// request, and what the gateway itself answers.
type guardWriter struct {
	*caddyhttp.ResponseWriterWrapper

	x      *exchange
	next   caddyhttp.Handler // behind the guard
	config *configuration
	// unsolicited is set when the answer of authz is not one to this request: it is dropped,
	// and the guard answers.
	unsolicited bool
}

// WriteHeader passes final statuses only: an informational one (RFC 9110, 15.2) would let
// the backend clear the headers that are set already.
func (w *guardWriter) WriteHeader(status int) {
	if status < http.StatusOK || w.x.status != 0 || w.unsolicited {
		return
	}
	if w.x.phase == phaseAuthz && !w.x.takeDecision(status, w.Header()) {
		w.unsolicited = true
		return
	}
	w.send(status)
}

// Write passes on what WriteHeader let through, and pretends to for what it did not.
func (w *guardWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.unsolicited {
		return len(p), nil
	}
	return w.pass(p)
}

// pass writes to the client what is meant for it.
func (w *guardWriter) pass(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.x.kept.Answer(p[:n])
	w.note(err)
	return n, err
}

// ReadFrom keeps io.Copy from passing by Write: the embedded wrapper would hand the
// connection to the copy.
func (w *guardWriter) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, r)
}

// FlushError flushes what has been written, if there is anything.
func (w *guardWriter) FlushError() error {
	if w.x.status == 0 {
		return nil
	}
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.note(err)
	return err
}

// send sends the status, and the headers that a client may see: none that carries our
// messages or names what is inside.
func (w *guardWriter) send(status int) {
	h := w.Header()
	stripOurs(h)
	for _, name := range []string{"Server", "Via", "Trailer"} {
		delete(h, name)
	}
	w.x.mint()
	h["X-Request-Id"] = []string{w.x.id}
	if w.x.route.dialect == anthropic {
		h["Request-Id"] = h["X-Request-Id"] // where Anthropic's SDKs look for it
	}
	if w.x.target.inPath {
		h["Referrer-Policy"] = []string{"no-referrer"}
		h["Cache-Control"] = []string{"no-store"} // nothing else says to a cache that this is not for all
	}
	if w.config.endsConnections() {
		h["Connection"] = []string{"close"}
	}
	w.x.status = status
	w.ResponseWriter.WriteHeader(status)
}

// note remembers that the client could not be written to.
func (w *guardWriter) note(err error) {
	if err != nil {
		w.x.clientDisconnected = true
	}
}
