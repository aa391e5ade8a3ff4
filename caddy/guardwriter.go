package gateway

import (
	"io"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// guardWriter is the client's side of an exchange: nothing reaches the client but what the
// backend said through the tap, what authz said with a Denial or Grant of this very
// request, or what the gateway itself says.
type guardWriter struct {
	*caddyhttp.ResponseWriterWrapper

	x *exchange
	// isUnfounded: what authz answered is not an answer to this request.
	isUnfounded bool
}

// WriteHeader passes final statuses only: an informational one would let the backend clear
// the headers that are set already.
func (w *guardWriter) WriteHeader(status int) {
	if status < 200 || w.x.status != 0 || w.isUnfounded {
		return
	}
	if w.x.phase == phaseAuthz && !w.x.hear(status, w.Header()) {
		w.isUnfounded = true
		return
	}
	w.send(status)
}

// send sends the headers that a client may see.
func (w *guardWriter) send(status int) {
	h := w.Header()
	stripOurs(h)
	for _, name := range []string{"Server", "Via", "Trailer"} {
		delete(h, name)
	}
	w.x.mint()
	h["X-Request-Id"] = []string{w.x.id}
	w.x.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *guardWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.isUnfounded {
		return len(p), nil
	}
	n, err := w.ResponseWriter.Write(p)
	w.note(err)
	return n, err
}

// ReadFrom keeps io.Copy from passing by Write.
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

// note remembers that the client could not be written to.
func (w *guardWriter) note(err error) {
	if err != nil {
		w.x.isClientGone = true
	}
}
