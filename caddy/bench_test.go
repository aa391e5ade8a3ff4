package gateway

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// plainCaddyfile is what Caddy costs without us.
const plainCaddyfile = `{
	admin off
	persist_config off
}
http://:%s {
	bind 127.0.0.1
	respond /healthz 200
	reverse_proxy %s
}
`

// BenchmarkRequest: what one request costs Caddy, in CPU time, with and without the
// gateway; the machine's other work does not count.
func BenchmarkRequest(b *testing.B) {
	sm := readSample(b, "chat")
	b.Run("plain", func(b *testing.B) {
		s := newStack(b, freeAddr(b))
		must(b, os.WriteFile(s.path("control.sock"), nil, 0o600))
		s.caddyfile = s.path("Caddyfile")
		text := fmt.Sprintf(plainCaddyfile, s.addr[strings.LastIndexByte(s.addr, ':')+1:], s.upstream.server.URL)
		must(b, os.WriteFile(s.caddyfile, []byte(text), 0o600))
		s.run(b)
		defer s.stop()
		s.upstream.set(b, sm.serve)
		s.measure(b, sm.request)
	})
	b.Run("gateway", func(b *testing.B) {
		s := startStack(b)
		defer s.stop()
		s.upstream.set(b, sm.serve)
		s.measure(b, sm.request)
	})
}

func (s *stack) measure(b *testing.B, body string) {
	b.Helper()
	before := s.cpu(b)
	b.ResetTimer()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			request, _ := http.NewRequestWithContext(b.Context(), "POST", s.url+"/api/chat", strings.NewReader(body))
			request.Header.Set("X-Api-Key", testKey())
			response, err := http.DefaultTransport.RoundTrip(request)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
		}
	})
	b.StopTimer()
	b.ReportMetric(float64((s.cpu(b)-before).Microseconds())/float64(b.N), "cpu-us/req")
}

// BenchmarkStream: what one frame of a stream costs Caddy, in CPU time.
func BenchmarkStream(b *testing.B) {
	s := startStack(b)
	defer s.stop()
	frames := newScripted(b.N, chatFrame)
	frames.next = make(chan struct{}, b.N)
	s.upstream.set(b, frames.serve)
	frames.allow(b.N)
	before := s.cpu(b)
	b.ResetTimer()
	response := s.open(b, "/api/chat", `{"model":"toy"}`)
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	b.ReportMetric(float64((s.cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/frame")
}

// BenchmarkKill: how long after a kill the client has the end of its stream.
func BenchmarkKill(b *testing.B) {
	s := startStack(b)
	defer s.stop()
	var took []time.Duration
	for b.Loop() {
		response, reader := s.running(b, newScripted(100, chatFrame), 3)
		start := time.Now()
		s.kill(b, "id="+response.Header.Get("X-Request-Id"))
		_, err := io.ReadAll(reader)
		must(b, err)
		took = append(took, time.Since(start))
		_ = response.Body.Close()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-us")
}

// BenchmarkParseGrant: what it takes to read a Grant as authz writes it.
func BenchmarkParseGrant(b *testing.B) {
	text := grantTexts(b)[1]
	for b.Loop() {
		_, err := parseGrant(text, "019ab5c0-1c00-7000-8000-000000000001")
		must(b, err)
	}
}

// cpu is the time that Caddy has computed.
func (s *stack) cpu(t testing.TB) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, err := strconv.Atoi(fields[11])
	must(t, err)
	system, err := strconv.Atoi(fields[12])
	must(t, err)
	return time.Duration(user+system) * 10 * time.Millisecond
}
