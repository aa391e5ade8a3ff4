package gateway

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// hear takes what authz says: a Denial, or on a read route a Grant, of this very request.
func (x *exchange) hear(status int, h http.Header) bool {
	if status/100 == 2 {
		g, err := parseGrant(h.Get(grantHeader), x.id)
		if err != nil || x.route.class != read {
			return false
		}
		x.tenant, x.keyID = optional(g.Tenant), optional(g.Key)
		return true
	}
	d, err := parseDenial(h.Get(denialHeader), x.id)
	if err != nil || status < 400 {
		return false
	}
	x.tenant, x.keyID = d.Tenant, d.Key
	x.outcome, x.reason = outcomeDenied, "denied"
	if d.Reason != nil {
		x.reason = *d.Reason
	}
	return true
}

// finish answers a request that nothing else has answered.
func (w *guardWriter) finish(err error, isCancelled bool) {
	x := w.x
	if x.status != 0 {
		return
	}
	status := statusOf(err)
	switch {
	case x.run.ended() != "":
		status, x.reason = http.StatusServiceUnavailable, x.run.ended()
	case x.outcome == outcomeRefused:
	case isCancelled:
		w.send(statusClientGone) // for Caddy's own fields; nobody reads it
		return
	case x.phase == phaseAuthz:
		status = x.failed(status, w.isUnfounded, err)
	case x.phase == phaseBackend:
		status = x.lost(status, err)
	case x.route.class == public && status >= http.StatusBadGateway:
		status, x.outcome, x.reason = http.StatusServiceUnavailable, outcomeAuthzFailed, "authz_unreachable"
	default:
		status = x.unserved(status)
	}
	w.answer(status, x.reason)
}

func statusOf(err error) int {
	if failure, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
		return failure.StatusCode
	}
	return 0
}

// reasonNoBackend is also the text of the error that ends the route in the Caddyfile.
const reasonNoBackend = "backend_unknown"

func causeOf(err error) string {
	if failure, ok := errors.AsType[caddyhttp.HandlerError](err); ok && failure.Err != nil {
		return failure.Err.Error()
	}
	return ""
}

// failed says why authz did not decide.
func (x *exchange) failed(status int, isUnfounded bool, err error) int {
	x.outcome, x.reason = outcomeAuthzFailed, "authz_unreachable"
	switch {
	case isUnfounded:
		x.reason = "denial_invalid"
	case err == nil:
		x.reason = "authz_invalid"
	case status == http.StatusGatewayTimeout:
		x.reason = "authz_timeout"
		return status
	case status == http.StatusBadGateway:
		return status
	}
	return http.StatusServiceUnavailable
}

// lost says why the backend did not answer.
func (x *exchange) lost(status int, err error) int {
	switch {
	case x.reason != "":
	case err == nil:
		x.reason = "backend_invalid"
	case causeOf(err) == reasonNoBackend:
		x.outcome, x.reason = outcomeRefused, reasonNoBackend
		return status
	case status == http.StatusGatewayTimeout:
		x.reason = "backend_timeout"
		return status
	case status == http.StatusServiceUnavailable:
		x.reason = "backend_unavailable"
		return status
	default:
		x.reason = "backend_unreachable"
	}
	return http.StatusBadGateway
}

// unserved says that the Caddyfile has no handler for what the guard let through.
func (x *exchange) unserved(status int) int {
	x.outcome, x.reason = outcomeRefused, "not_configured"
	if status < 400 {
		return http.StatusServiceUnavailable
	}
	return status
}

// messages are our own words, by reason.
var messages = map[string]string{
	"journal_unwritable":  "the gateway cannot keep its journal and takes no requests; please try again",
	"pool_full":           "the gateway has no memory left for request bodies; please try again",
	"body_slow":           "the request body did not arrive in time; please send it again",
	"body_broken":         "the request body could not be read; please send it again",
	"backend_unreachable": "the model backend cannot be reached; please try again",
	"backend_unavailable": "no model backend is available; please try again",
	"backend_timeout":     "the model backend did not answer in time; please try again",
	"backend_invalid":     "the model backend gave an answer that is not valid; please try again",
	"backend_encoded":     "the model backend gave an answer that cannot be read; please try again",
	reasonNoBackend:       "the gateway has no snippet for the chosen backend; please tell its operator",
	outcomeKilled:         "the request was ended by the operator of the gateway",
	outcomeShutdown:       "the gateway is shutting down; please try again",
	outcomeDeadline:       "the request took longer than it may",
}

const defaultMessage = "the gateway cannot check this request right now; please try again"

// answer is an answer of our own, in the dialect of the path.
func (w *guardWriter) answer(status int, reason string) {
	message, ok := messages[reason]
	if !ok {
		message = defaultMessage
	}
	w.x.mint()
	body := errorBody(w.x.route.dialect, status, message, w.x.id)
	h := w.Header()
	for _, name := range []string{"Www-Authenticate", "Content-Encoding", "Retry-After"} {
		delete(h, name)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if status >= http.StatusInternalServerError {
		h.Set("Retry-After", "1")
	}
	w.send(status)
	_, err := w.ResponseWriter.Write(body)
	w.note(err)
}

// errorBody returns an error in the shape that the clients of a dialect parse.
func errorBody(d dialect, status int, message, id string) []byte {
	var shape any
	switch d {
	case openai:
		shape = openaiBody{openaiError{Message: message, Type: openaiType(status)}}
	case anthropic:
		shape = anthropicBody{"error", anthropicError{anthropicType(status), message}, id}
	default:
		shape = ollamaBody{message}
	}
	body, err := json.Marshal(shape)
	if err != nil {
		return nil // cannot be: the shapes are made of strings
	}
	return append(body, '\n')
}

type ollamaBody struct {
	Error string `json:"error"`
}

type openaiBody struct {
	Error openaiError `json:"error"`
}

type openaiError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

type anthropicBody struct {
	Type      string         `json:"type"`
	Error     anthropicError `json:"error"`
	RequestID string         `json:"request_id"`
}

type anthropicError struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

func openaiType(status int) string {
	if status < http.StatusInternalServerError {
		return "invalid_request_error"
	}
	return "server_error"
}

func anthropicType(status int) string {
	switch {
	case status == http.StatusServiceUnavailable:
		return "overloaded_error"
	case status < http.StatusInternalServerError:
		return "invalid_request_error"
	}
	return "api_error"
}
