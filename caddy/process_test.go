package gateway

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestShutdown: what still runs when the grace period is over ends with a last frame, is
// in the journal, and a new process goes on with the same node and a new boot.
func TestShutdown(t *testing.T) {
	s := startStack(t)
	defer s.stop()
	response, reader := s.running(t, newScripted(100, chatFrame), 2)
	must(t, s.cmd.Process.Signal(syscall.SIGTERM))
	rest, err := io.ReadAll(reader)
	must(t, err)
	equal(t, true, strings.Contains(string(rest), `"done":true`), string(rest))
	if err := s.wait(); err != nil {
		t.Errorf("Caddy exits with %v", err)
	}
	e := s.record(t, response.Header.Get("X-Request-Id"))
	equal(t, outcomeShutdown, e.Outcome, "outcome")
	equal(t, int64(2), e.Deltas, "deltas")

	s.run(t)
	node := func(l line) string {
		_, rest, _ := strings.Cut(l.raw, `"node":"`)
		return rest[:36]
	}
	lines := s.lines(t)
	equal(t, node(lines[0]), node(lines[len(lines)-1]), "node")
	if lines[0].Gateway.Boot == lines[len(lines)-1].Gateway.Boot {
		t.Error("the boot is the same")
	}
	denseSeq(t, lines)
}

// TestCrash: after a kill -9 Caddy starts again on what was left, and all lines of the dead
// process are whole.
func TestCrash(t *testing.T) {
	s := startStack(t)
	defer s.stop()
	response, _ := s.running(t, newScripted(100, chatFrame), 2)
	must(t, s.cmd.Process.Kill())
	_ = s.wait()
	_ = response.Body.Close()
	s.upstream.set(t, nil)
	s.run(t)
	equal(t, 200, s.post(t, "/api/chat", `{"model":"m"}`).status, "it serves again")
	opened := false
	for _, l := range s.lines(t) {
		opened = opened || l.Msg == "open" && l.Gateway.ID == response.Header.Get("X-Request-Id")
	}
	equal(t, true, opened, "what ran is in the journal")
	denseSeq(t, s.lines(t))
	var list []stream
	equal(t, 200, s.control(t, "GET", "/streams", &list), "the control socket")
}

// TestNoJournal: without a journal of its own Caddy does not start.
func TestNoJournal(t *testing.T) {
	s := newStack(t, freeAddr(t))
	must(t, os.MkdirAll(s.path("journal/journal.log.lock"), 0o700))
	s.cmd = s.command(t)
	out, err := s.cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "is a directory") {
		t.Errorf("Caddy says %v: %s", err, out)
	}
	s.exited = make(chan error, 1)
	s.exited <- err
	s.stop()
}

// TestStartBehindClosedDoors: on a full disk Caddy starts, and lets nothing run (G2).
func TestStartBehindClosedDoors(t *testing.T) {
	s := newStack(t, freeAddr(t))
	must(t, os.Mkdir(s.path("journal"), 0o700))
	must(t, os.Symlink("/dev/full", s.path("journal/journal.log")))
	s.run(t)
	defer s.stop()
	equal(t, 503, s.post(t, "/api/chat", `{"model":"m"}`).status, "status")
	equal(t, 0, s.upstream.count(), "hits")
}

// denseSeq: each boot begins with its line, and numbers all lines without a gap (B4).
func denseSeq(t testing.TB, lines []line) {
	t.Helper()
	seen, first := map[string]map[uint64]bool{}, map[string]string{}
	for _, l := range lines {
		boot := l.Gateway.Boot
		if seen[boot] == nil {
			seen[boot], first[boot] = map[uint64]bool{}, l.Msg
		}
		if seen[boot][l.Gateway.Seq] {
			t.Errorf("seq %d twice", l.Gateway.Seq)
		}
		seen[boot][l.Gateway.Seq] = true
	}
	for boot, numbers := range seen {
		equal(t, "boot", first[boot], "first line")
		for i := range uint64(len(numbers)) {
			if !numbers[i] {
				t.Errorf("boot %s has no seq %d", boot, i)
			}
		}
	}
}

// TestReload: SIGUSR1 keeps what runs, the boot, the numbers and the journal, and what ran
// before can be listed and killed after.
func TestReload(t *testing.T) {
	s := startStack(t)
	defer s.stop()
	b := newScripted(100, chatFrame)
	response, reader := s.running(t, b, 2)
	s.snippets(t, "import gateway_backend_open local "+s.upstream.server.URL,
		"import gateway_backend_open other http://127.0.0.1:1")
	must(t, s.cmd.Process.Signal(syscall.SIGUSR1))
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		g := newGrant(a)
		g.Backends = []string{"other"}
		giveGrant(w, r, g)
	})
	eventually(t, "the new backend is known", func() bool {
		a, ok := s.try(t, "/api/chat", `{"model":"toy"}`)
		return ok && s.record(t, a.id).Outcome == outcomeUpstreamError
	})
	id := response.Header.Get("X-Request-Id")
	b.allow(1)
	if _, err := reader.ReadString('\n'); err != nil {
		t.Fatalf("%v: %s\n%s", err, toJSON(s.record(t, id)), s.stderr.String())
	}
	equal(t, int64(3), s.seen(t, id), "seen by the new control socket")
	equal(t, 1, s.kill(t, "id="+id), "killed")
	equal(t, int64(3), s.record(t, id).Deltas, "deltas")
	denseSeq(t, s.lines(t))
}

// TestOneOwner: a second Caddy does not write into the journal of the first, and
// `caddy validate` neither needs it nor takes it.
func TestOneOwner(t *testing.T) {
	s := startStack(t)
	defer s.stop()
	run := func(command string) (string, error) {
		second := exec.CommandContext(t.Context(), s.cmd.Path, command, "--config", s.cmd.Args[3], "--adapter", "caddyfile")
		second.Env = slices.Concat(s.cmd.Env,
			[]string{"GATEWAY_SITE=http://" + freeAddr(t), "GATEWAY_CONTROL=" + s.path("c2")})
		out, err := second.CombinedOutput()
		return string(out), err
	}
	out, err := run("run")
	if err == nil || !strings.Contains(out, "another process writes the journal") {
		t.Errorf("the second Caddy says %v: %s", err, out)
	}
	if out, err := run("validate"); err != nil {
		t.Errorf("validate says %v: %s", err, out)
	}
	equal(t, 200, s.post(t, "/api/chat", `{"model":"m"}`).status, "the first goes on")
	denseSeq(t, s.lines(t))
	mode, err := os.Stat(s.path("control.sock"))
	must(t, err)
	equal(t, os.FileMode(0o600), mode.Mode().Perm(), "mode of the control socket")
}
