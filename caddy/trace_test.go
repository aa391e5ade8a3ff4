package gateway

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

const (
	testTrace       = "4bf92f3577b34da6a3ce929d0e0e4736"
	testTraceParent = "00-" + testTrace + "-00f067aa0ba902b7-01"
	chatBody        = `{"model":"m","messages":[]}`
)

// TestTraceParents: a line that W3C Trace Context does not allow names no trace.
func TestTraceParents(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		testTraceParent, "00-" + testTrace + "-00f067aa0ba902b7-00", "cc-" + testTrace + "-00f067aa0ba902b7-01",
		"cc-" + testTrace + "-00f067aa0ba902b7-01-what-comes-later",
	} {
		h := http.Header{traceParent: {line}, traceState: {"a=b"}}
		id := takeTrace(h)
		equal(t, true, id != nil && *id == testTrace, line)
		equal(t, line+"a=b", h.Get(traceParent)+h.Get(traceState), line)
	}
	for _, line := range []string{
		"", "00", "00-" + testTrace, testTraceParent + "-more", "cc-" + testTrace + "-00f067aa0ba902b7-01.later",
		"ff-" + testTrace + "-00f067aa0ba902b7-01", "00-" + strings.ToUpper(testTrace) + "-00f067aa0ba902b7-01",
		"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01", "00-" + testTrace + "-0000000000000000-01",
		"00_" + testTrace + "-00f067aa0ba902b7-01", "00-" + testTrace + "-00f067aa0ba902b7-0g",
		"00-" + testTrace[:31] + "-" + "-00f067aa0ba902b7-01", "cc-" + testTrace + "-00f067aa0ba902b7-01-" + strings.Repeat("x", 500),
	} {
		h := http.Header{traceParent: {line}, traceState: {"a=b"}}
		equal(t, true, takeTrace(h) == nil, line)
		equal(t, 0, len(h), "headers left of "+line)
	}
	twice := http.Header{traceParent: {testTraceParent, testTraceParent}}
	equal(t, true, takeTrace(twice) == nil, "two lines")
	equal(t, 0, len(twice), "headers left of two lines")
}

// TestTracePasses: a client's trace reaches authz, the backend, the open line and the record as it is,
// without any tracing here; what is no traceparent reaches none of them, and no client sees either.
func TestTracePasses(t *testing.T) {
	s := sharedStack(t)
	for sent, want := range map[string]string{testTraceParent: testTrace, "00-forged": "", "": ""} {
		a := s.post(t, "/api/chat", chatBody, "Traceparent", sent, "Tracestate", "a=b")
		equal(t, 200, a.status, sent)
		for _, asked := range s.lines(t) {
			if asked.Gateway.ID == a.id {
				equal(t, want, deref(asked.Gateway.TraceID), asked.Msg+" of "+sent)
			}
		}
		equal(t, want, deref(s.record(t, a.id).TraceID), "record of "+sent)
		equal(t, want, deref(s.authz.last(t).TraceID), "Ask of "+sent)
		if want == "" {
			sent = ""
		}
		passed := s.upstream.last(t).header
		equal(t, sent, passed.Get(traceParent), "to the backend")
		equal(t, sent != "", passed.Get(traceState) != "", "its state to the backend")
		equal(t, "", a.header.Get(traceParent), "to the client")
	}
	denied := s.raw(t, "POST /api/pull HTTP/1.1\r\nHost: a\r\nTraceparent: "+testTraceParent+"\r\n\r\n")
	equal(t, testTrace, deref(s.record(t, denied.id).TraceID), "record of a refusal")
}

// TestTraceOfAStranger: the Ask about a key alone belongs to the trace, too.
func TestTraceOfAStranger(t *testing.T) {
	s := sharedStack(t)
	s.authz.setKnow(t, func(w http.ResponseWriter, _ *http.Request, a ask) {
		deny(w, a, http.StatusUnauthorized, "key_unknown")
	})
	text := unfinished("/api/chat")
	a := s.raw(t, strings.Replace(text, "\r\n", "\r\nTraceparent: "+testTraceParent+"\r\n", 1))
	equal(t, 401, a.status, "status")
	asks := s.authz.aboutKeys()
	equal(t, testTrace, deref(asks[len(asks)-1].TraceID), "Ask")
}

// collector stands in for one of OpenTelemetry: it keeps what is exported to it.
type collector struct {
	mu   sync.Mutex
	sent [][]byte
}

func (c *collector) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, body)
}

// has reports whether some bytes were exported; identifiers are raw bytes in OTLP.
func (c *collector) has(part []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Contains(bytes.Join(c.sent, nil), part)
}

func (c *collector) hasID(id string) bool {
	raw, _ := hex.DecodeString(id)
	return c.has(raw)
}

// TestTracing: with GATEWAY_TRACING=on a request is a span of the client's trace, or of a new one;
// backend, authz and journal belong to it, and no span has a key in it.
func TestTracing(t *testing.T) {
	spans := new(collector)
	otlp := httptest.NewServer(spans)
	defer otlp.Close()
	s := newStack(t, freeAddr(t))
	s.run(t, "GATEWAY_TRACING=on", "OTEL_EXPORTER_OTLP_ENDPOINT="+otlp.URL, "OTEL_BSP_SCHEDULE_DELAY=50")
	defer s.stop()

	sm := readSample(t, "chat-stream")
	s.upstream.set(t, sm.serve)
	a := s.post(t, "/api/chat", sm.request, "Traceparent", testTraceParent)
	equal(t, sm.body, a.body, "the stream")
	passed := s.upstream.last(t).header.Get(traceParent)
	equal(t, testTrace, passed[3:35], "the trace at the backend")
	equal(t, false, passed == testTraceParent, "the parent is the client's")
	equal(t, testTrace, deref(s.record(t, a.id).TraceID), "record")
	eventually(t, "the span", func() bool { return spans.hasID(testTrace) && spans.hasID(passed[36:52]) })
	equal(t, true, spans.hasID("00f067aa0ba902b7"), "its parent")
	equal(t, true, spans.has([]byte("gateway")), "its name")

	for _, sent := range []string{"", "00-forged", "00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01"} {
		a = s.post(t, "/api/chat", sm.request, "Traceparent", sent)
		passed = s.upstream.last(t).header.Get(traceParent)
		equal(t, passed[3:35], deref(s.record(t, a.id).TraceID), "record of a new trace")
		equal(t, passed[3:35], deref(s.authz.last(t).TraceID), "Ask of a new trace")
		eventually(t, "a new trace", func() bool { return spans.hasID(passed[3:35]) })
	}

	misplaced := testKey()
	part := misplaced[:30]
	for _, request := range []string{
		part + " /a HTTP/1.1\r\nHost: a\r\n", "GET /" + part + " HTTP/1.1\r\nHost: a\r\n",
		"GET /nz_/" + part[3:] + " HTTP/1.1\r\nHost: a\r\n", "GET /%256ez" + part[2:] + " HTTP/1.1\r\nHost: a\r\n",
		"GET /a HTTP/1.1\r\nHost: " + part + "\r\n", "GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: NZ" + part[2:] + "\r\n",
		"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: %6ez" + part[2:] + "\r\n",
		"GET /" + misplaced + " HTTP/1.1\r\nHost: a\r\n", "GET /a HTTP/1.1\r\nHost: " + misplaced + "\r\n",
		"GET /%6ez" + misplaced[2:] + " HTTP/1.1\r\nHost: a\r\n",
		"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: mine " + misplaced + "\r\n",
		"GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: " + misplaced + "\r\n",
		"GET /a HTTP/1.1\r\nHost: a\r\nTraceparent: " + testTraceParent + "\r\nTracestate: a=" + misplaced + "\r\n",
		misplaced + " /a HTTP/1.1\r\nHost: a\r\n", "GET /a?" + misplaced + " HTTP/1.1\r\nHost: a\r\n",
	} {
		equal(t, true, s.raw(t, request+"\r\n").status >= 400, request)
	}
	last := s.post(t, "/api/chat", sm.request)
	equal(t, 200, last.status, "status")
	passed = s.upstream.last(t).header.Get(traceParent)
	eventually(t, "the span after those", func() bool { return spans.hasID(passed[3:35]) })
	equal(t, false, spans.has([]byte(misplaced[lookupBytes:lookupBytes+8])), "a span has a part of a key")
}

func deref(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}
