package gateway

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// retryAfter is the Retry-After of our own 5xx, in seconds: what they report passes quickly.
const retryAfter = "1"

// finish answers a request that nothing else has answered. err is what the handlers behind
// the guard returned. A client that has disconnected gets nothing, and whatever happens no
// client gets Caddy's own error page, which would name what is inside.
func (w *guardWriter) finish(err error, isCancelled bool) {
	x := w.x
	if x.status != 0 {
		return
	}
	status := statusOf(err)
	switch {
	case x.run.cause() != "":
		x.reason = reason(x.run.cause())
		status = endedStatus(x.reason)
	case x.outcome == outcomeRefused:
	case isCancelled:
		w.send(statusClientDisconnected) // for Caddy's own fields of the access log
		return
	case x.phase == phaseAuthz:
		x.outcome = outcomeAuthzFailed
		status, x.reason = authzFailure(status, w.unsolicited, err)
	case x.phase == phaseBackend:
		status = w.backendFailure(status, err)
	// /readyz asks authz without an Ask: that authz is away is the answer to a probe, and no refusal.
	case x.route.class == public && status >= http.StatusBadGateway:
		status, x.outcome, x.reason = http.StatusServiceUnavailable, outcomeCompleted, reasonAuthzUnreachable
	// The Caddyfile has no handler for what the guard let through.
	default:
		x.outcome, x.reason = outcomeRefused, reasonNotConfigured
		if status < http.StatusBadRequest {
			status = http.StatusServiceUnavailable
		}
	}
	w.answer(status, x.reason)
}

// endedStatus returns the status of a request that the gateway itself has ended before it had
// an answer: 504 at its deadline, since the same request would need as long again, else 503.
func endedStatus(why reason) int {
	if why == reasonDeadline {
		return http.StatusGatewayTimeout
	}
	return http.StatusServiceUnavailable
}

// statusOf returns the status of an error of Caddy's handlers, 0 for another error or none.
func statusOf(err error) int {
	if failure, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
		return failure.StatusCode
	}
	return 0
}

// causeOf returns the text of an error of Caddy's handlers without its wrapping.
func causeOf(err error) string {
	if failure, ok := errors.AsType[caddyhttp.HandlerError](err); ok && failure.Err != nil {
		return failure.Err.Error()
	}
	return ""
}

// authzFailure returns the status and the reason when authz did not decide. All of them end
// the request: without a decision nothing runs.
func authzFailure(status int, unsolicited bool, err error) (int, reason) {
	switch {
	case unsolicited:
		return http.StatusServiceUnavailable, reasonDenialInvalid
	case err == nil:
		return http.StatusServiceUnavailable, reasonAuthzInvalid
	case status == http.StatusGatewayTimeout:
		return status, reasonAuthzTimeout
	case status == http.StatusBadGateway:
		return status, reasonAuthzUnreachable
	}
	return http.StatusServiceUnavailable, reasonAuthzUnreachable
}

// backendFailure returns the status when the backend did not answer, and notes the reason,
// unless the tap has noted one.
func (w *guardWriter) backendFailure(status int, err error) int {
	x := w.x
	switch {
	case x.reason != "":
	case err == nil:
		x.reason = reasonBackendInvalid
	case causeOf(err) == string(reasonBackendUnknown): // as the Caddyfile's `error` spells it
		x.outcome, x.reason = outcomeRefused, reasonBackendUnknown
		return status
	case status == http.StatusGatewayTimeout:
		x.reason = reasonBackendTimeout
		return status
	case status == http.StatusServiceUnavailable:
		x.reason = reasonBackendUnavailable
		return status
	default:
		x.reason = reasonBackendUnreachable
	}
	return http.StatusBadGateway
}

// answer sends an answer of our own, in the dialect of the path.
func (w *guardWriter) answer(status int, why reason) {
	w.x.mint()
	body := errorBody(w.x.route.dialect, status, messageOf(why), w.x.id)
	h := w.Header()
	for _, name := range []string{"Www-Authenticate", "Content-Encoding", "Retry-After"} {
		delete(h, name) // of an answer of authz that was not passed on
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	switch {
	case why.isFinal():
		h.Set("X-Should-Retry", "false")
	case status >= http.StatusInternalServerError:
		h.Set("Retry-After", retryAfter)
	}
	w.send(status)
	_, _ = w.pass(body)
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

// ollamaBody is an error of Ollama's own API.
type ollamaBody struct {
	Error string `json:"error"`
}

// openaiBody is an error of OpenAI's API. Its SDKs expect param and code, if only null.
type openaiBody struct {
	Error openaiError `json:"error"`
}

type openaiError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

// anthropicBody is an error of Anthropic's API.
type anthropicBody struct {
	Type      string         `json:"type"`
	Error     anthropicError `json:"error"`
	RequestID string         `json:"request_id"`
}

type anthropicError struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

// openaiType returns OpenAI's type of error for a status of our own.
func openaiType(status int) string {
	if status < http.StatusInternalServerError {
		return "invalid_request_error"
	}
	return "server_error"
}

// anthropicType returns Anthropic's type of error for a status of our own.
func anthropicType(status int) string {
	switch {
	case status == http.StatusServiceUnavailable:
		return "overloaded_error"
	case status < http.StatusInternalServerError:
		return "invalid_request_error"
	}
	return "api_error"
}
