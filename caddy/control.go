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

// Control lists and kills what runs on this node. Whoever reaches it may do both: it
// belongs on a unix socket that only the operator can open.
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
	ID           string  `json:"id"`
	Tenant       string  `json:"tenant"`
	Key          string  `json:"key"`
	Model        *string `json:"model"`
	Backend      string  `json:"backend"`
	Path         string  `json:"path"`
	AgeMS        int64   `json:"age_ms"`
	OutputTokens int64   `json:"output_tokens"`
}

// ServeHTTP answers GET /healthz, GET /streams and POST /kill?id=|key=|tenant=.
func (Control) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	switch r.Method + " " + r.URL.Path {
	case "GET /healthz":
		return writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	case "GET /streams":
		return writeJSON(w, http.StatusOK, streamsNow(process.clock.now()))
	case "POST /kill":
		return kill(w, r)
	}
	return writeJSON(w, http.StatusNotFound, map[string]string{
		"error": "use GET /healthz, GET /streams or POST /kill?id=|key=|tenant=",
	})
}

func streamsNow(now time.Time) []stream {
	running := process.streams.list()
	list := make([]stream, 0, len(running))
	for _, x := range running {
		list = append(list, stream{
			ID: x.id, Tenant: x.grant.Tenant, Key: x.grant.Key, Model: x.request.model,
			Backend: x.grant.Backends[0], Path: x.path,
			AgeMS: now.Sub(x.start).Milliseconds(), OutputTokens: x.seen.Load(),
		})
	}
	return list
}

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
		n := process.streams.kill(outcomeKilled, func(x *exchange) bool { return field(x) == value })
		return writeJSON(w, http.StatusOK, map[string]int{"killed": n})
	}
	return writeJSON(w, http.StatusBadRequest, map[string]string{
		"error": "say exactly one of id, key or tenant",
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(v)
}

// Interface guards.
var _ caddyhttp.MiddlewareHandler = (*Control)(nil)
