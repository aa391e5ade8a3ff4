package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// listen serves on a unix socket until the test ends, and returns its path.
func listen(t *testing.T, handler http.Handler) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	_ = server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return socket
}

func TestHealthyOnlyWhenHealthzAnswers(t *testing.T) {
	hung := make(chan struct{})
	defer close(hung)
	cases := map[string]struct {
		socket string
		says   string // "" for healthy
	}{
		"answers": {listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthz" {
				w.WriteHeader(http.StatusNotFound)
			}
		})), ""},
		"another server": {listen(t, http.NotFoundHandler()), "correct GATEWAY_CONTROL"},
		"hangs": {
			listen(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hung })),
			"look at its log",
		},
		"no socket": {filepath.Join(t.TempDir(), "none"), "look at its log"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := askHealth(t.Context(), c.socket, 300*time.Millisecond)
			if c.says == "" && err != nil {
				t.Errorf("healthy, but: %v", err)
			}
			if c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("got %v, want an error with %q", err, c.says)
			}
		})
	}
}
