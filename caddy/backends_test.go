package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestBackendStates: the control socket and the metrics show of each backend what it has in flight and
// in line, and its failures; a request that it refuses is the client's fault.
func TestBackendStates(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.run(t)
	defer s.stop()
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		g := newGrant(a)
		g.Slots = []int{1}
		giveGrant(w, r, g)
	})
	body := `{"model":"toy","stream":false}`
	for _, status := range []int{200, 400, 500} {
		s.upstream.set(t, func(w http.ResponseWriter, r *http.Request) {
			if status == http.StatusOK {
				hello(w, r)
				return
			}
			http.Error(w, `{"error":"no"}`, status)
		})
		s.record(t, s.post(t, "/api/chat", body).id)
	}
	release := make(chan struct{})
	s.upstream.set(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		hello(w, r)
	})
	done := make(chan answer, 2)
	for range 2 {
		go func() { done <- s.post(t, "/api/chat", body) }()
	}
	states := func() (list []backendState) {
		equal(t, 200, s.control(t, "GET", "/backends", &list), "status")
		return list
	}
	want := fmt.Sprint([]backendState{{Name: newGrant(ask{}).Backends[0], InFlight: 1, Waiting: 1, Failures: 1}})
	eventually(t, "one is in flight, one waits", func() bool { return fmt.Sprint(states()) == want })
	close(release)
	for range 2 {
		equal(t, 200, (<-done).status, "status")
	}
	equal(t, true, strings.Contains(s.metrics(t), `gateway_backend_failures_total{backend="`), "metrics")
}
