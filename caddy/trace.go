package gateway

import (
	"net/http"
	"strings"
)

const (
	traceParent = "Traceparent"
	traceState  = "Tracestate"

	// traceParentBytes is the length of a traceparent of version 00; those of later versions may go on
	// after a hyphen (W3C Trace Context, 2.2 and 3.2.4).
	traceParentBytes = len("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	maxTraceBytes    = 512
)

// takeTrace returns the trace that a request belongs to: the 32 hex digits of its traceparent, which
// are the client's, or those of Caddy's own tracing where that is on. nil without one. A traceparent
// that is none is removed together with its tracestate, as W3C Trace Context has it: nobody behind the
// guard sees it.
func takeTrace(h http.Header) *string {
	lines := h[traceParent]
	if len(lines) == 0 {
		delete(h, traceState)
		return nil
	}
	if len(lines) > 1 || !isTraceParent(lines[0]) {
		delete(h, traceParent)
		delete(h, traceState)
		return nil
	}
	id := lines[0][3:35]
	return &id
}

// isTraceParent reports whether a line is version-trace-parent-flags in lower-case hex digits, and
// neither of the two ids all zeros.
func isTraceParent(line string) bool {
	if len(line) < traceParentBytes || len(line) > maxTraceBytes {
		return false
	}
	known, tail := line[:traceParentBytes], line[traceParentBytes:]
	if tail != "" && (known[:2] == "00" || tail[0] != '-') {
		return false
	}
	parts := strings.Split(known, "-")
	if len(parts) != 4 || len(parts[0]) != 2 || len(parts[1]) != 32 || len(parts[2]) != 16 {
		return false
	}
	for _, part := range parts {
		if strings.Trim(part, "0123456789abcdef") != "" {
			return false
		}
	}
	return parts[0] != "ff" && strings.Trim(parts[1], "0") != "" && strings.Trim(parts[2], "0") != ""
}
