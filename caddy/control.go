package gateway

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(Control{})
}

// Control lists and kills what runs on this node, also what began before a reload:
//
//	GET  /healthz        {"status":"ok"}
//	GET  /journal        whether it can be written, and what is wrong with it
//	GET  /config         the sites and reverse proxies of the configuration that runs
//	GET  /backends       what each backend has in flight, in line, and has failed at
//	GET  /streams        a list of what runs, [] if nothing does
//	POST /kill?id=ID     also key= or tenant=, of which it takes exactly one; {"killed":N}
//
// A killed stream ends within unblockAfter with a valid last frame; a request that has no
// answer yet gets a 503. Both are billed for what was sent.
//
// It asks for no credentials: it belongs on a unix socket that only the operator can open.
// There is nothing to configure.
type Control struct{}

// CaddyModule returns the Caddy module information.
func (Control) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gateway_control",
		New: func() caddy.Module { return new(Control) },
	}
}

// stream is one running request, as the control socket shows it.
type stream struct {
	ID           string  `json:"id"` // as in X-Request-Id
	Tenant       string  `json:"tenant"`
	Key          string  `json:"key"`
	Model        *string `json:"model"`
	Backend      string  `json:"backend"`
	Path         string  `json:"path"`
	AgeMS        int64   `json:"age_ms"`
	OutputTokens int64   `json:"output_tokens"` // frames with text so far
}

// ServeHTTP answers the requests above, and 404 to everything else.
func (Control) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	switch r.Method + " " + r.URL.Path {
	case "GET /healthz":
		return writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	case "GET /journal":
		return writeJSON(w, http.StatusOK, process.journalNow())
	case "GET /config":
		return writeJSON(w, http.StatusOK, runningNow())
	case "GET /backends":
		return writeJSON(w, http.StatusOK, process.queues.list())
	case "GET /streams":
		return writeJSON(w, http.StatusOK, streamsNow(process.clock.now()))
	case "POST /kill":
		return kill(w, r)
	}
	return writeJSON(w, http.StatusNotFound, map[string]string{
		"error": "use GET /healthz, GET /journal, GET /config, GET /backends, GET /streams " +
			"or POST /kill?id=|key=|tenant=",
	})
}

// streamsNow lists what runs; never nil, since the list is never null.
func streamsNow(now time.Time) []stream {
	running := process.streams.list()
	list := make([]stream, 0, len(running))
	for _, x := range running {
		list = append(list, stream{
			ID: x.id, Tenant: x.grant.Tenant, Key: x.grant.Key, Model: x.model(),
			Backend: x.backend(), Path: x.path,
			AgeMS: now.Sub(x.start).Milliseconds(), OutputTokens: x.seen.load().deltas,
		})
	}
	return list
}

// kill cancels what one of id, key or tenant names.
func kill(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	of := map[string]func(*exchange) string{
		"id":     func(x *exchange) string { return x.id },
		"key":    func(x *exchange) string { return x.grant.Key },
		"tenant": func(x *exchange) string { return x.grant.Tenant },
	}
	for name, field := range of {
		value := query.Get(name)
		if len(query) != 1 || value == "" {
			continue
		}
		n := process.streams.cancel(outcomeKilled, func(x *exchange) bool { return field(x) == value })
		return writeJSON(w, http.StatusOK, map[string]int{"killed": n})
	}
	return writeJSON(w, http.StatusBadRequest, map[string]string{
		"error": "say exactly one of id, key or tenant",
	})
}

// writeJSON answers with a value.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(v)
}

// Interface guards.
var _ caddyhttp.MiddlewareHandler = (*Control)(nil)
