package gateway

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// edited replaces a part of the Caddyfile for this stack.
func (s *stack) edited(t testing.TB, part, by string) {
	t.Helper()
	text, err := os.ReadFile(s.caddyfile)
	must(t, err)
	if strings.Count(string(text), part) != 1 {
		t.Fatalf("%q is not in the Caddyfile once", part)
	}
	s.caddyfile = s.path("Caddyfile")
	by = strings.ReplaceAll(by, "DIR", s.dir)
	must(t, os.WriteFile(s.caddyfile, []byte(strings.Replace(string(text), part, by, 1)), 0o600))
}

// journalEnd is where the log of the journal ends, and the route of the site begins.
const journalEnd = "\n\t\tformat gateway\n\t}\n\n\troute {\n\t\timport gateway_cors"

// logEdits are what operators do to the log of a site: what goes at the end of the block `log
// journal`, after it, and at the begin of the route; and what the alarm must name, "" if the
// access log still carries the records.
var logEdits = []struct{ name, format, after, route, suspect string }{
	{name: "another JSON format", format: "format json"},
	{
		name: "the journal twice", format: "format gateway", suspect: "",
		after: "log again {\n output gateway_journal DIR/journal/journal.log\n}",
	},
	{
		name: "a second log", format: "format gateway", suspect: "log other",
		after: "log other {\n output file DIR/other.log\n}",
	},
	{name: "log_skip", format: "format gateway", route: "log_skip", suspect: "log_skip"},
	{name: "log_name", format: "format gateway", route: "log_name other", suspect: "log_name other"},
	{name: "level", format: "format gateway\nlevel ERROR", suspect: "level"},
	{
		name: "sampling", suspect: "sampling",
		format: "format gateway\nsampling {\n interval 300s\n first 1\n thereafter 1000\n}",
	},
	{name: "format console", format: "format console", suspect: "format"},
	{name: "time format", format: "format json {\n time_format rfc3339\n}", suspect: "format"},
	{name: "filter", format: "format filter {\n wrap json\n fields {\n gateway delete\n }\n}", suspect: "format"},
	{
		name: "hostnames", format: "format gateway", suspect: "log other",
		after: "log other {\n hostnames 127.0.0.1\n output file DIR/other.log\n}",
	},
}

// TestEveryRecordIsWritten: whatever is done to the access log, every request that was
// served has its record in the journal, once (B4), and the operator sees what is wrong.
func TestEveryRecordIsWritten(t *testing.T) {
	for _, edit := range logEdits {
		t.Run(edit.name, func(t *testing.T) {
			s := newStack(t, freeAddr(t))
			s.edited(t, journalEnd, "\n"+edit.format+"\n}\n"+edit.after+"\nroute {\n"+edit.route+
				"\n\t\timport gateway_cors")
			s.run(t)
			defer s.stop()
			servedAndRecorded(t, s, s.url)
			if edit.suspect != "" {
				eventually(t, "the alarm", func() bool { return strings.Contains(s.stderr.String(), "`"+edit.suspect) })
			}
			s.showsByGuard(t, edit.suspect != "")
			s.endsWhole(t)
		})
	}
}

// TestSiteWithoutLog: a second site that has the guard and no `log` serves, and is recorded.
func TestSiteWithoutLog(t *testing.T) {
	s := newStack(t, freeAddr(t))
	second := freeAddr(t)
	text, err := os.ReadFile(s.caddyfile)
	must(t, err)
	_, route, _ := strings.Cut(string(text), "\n\troute {\n\t\timport gateway_cors")
	route, _, _ = strings.Cut(route, "\n}\n")
	s.edited(t, "# The control socket:", "http://"+second+" {\n\troute {\n"+route+"\n}\n# The control socket:")
	s.run(t)
	defer s.stop()
	port := second[strings.LastIndexByte(second, ':'):]
	warning := "has a `log`, so the guard will write every record itself\",\"listen\":[\"" + port
	equal(t, 1, strings.Count(s.stderr.String(), warning), "warnings before the first request")
	servedAndRecorded(t, s, s.url)
	s.showsByGuard(t, false)
	servedAndRecorded(t, s, "http://"+second)
	eventually(t, "the alarm", func() bool { return strings.Contains(s.stderr.String(), "the site on "+port+" has no `log`") })
	s.showsByGuard(t, true)
	s.endsWhole(t)
}

// servedAndRecorded serves some requests of all kinds, and waits for their records.
func servedAndRecorded(t *testing.T, s *stack, url string) {
	t.Helper()
	s.upstream.set(t, readSample(t, "chat-stream").serve)
	defer func(before string) { s.url = before }(s.url)
	s.url = url
	ids := make([]string, 0, 4)
	for range 3 {
		ids = append(ids, s.post(t, "/api/chat", `{"model":"m"}`).id)
	}
	ids = append(ids, s.post(t, "/api/pull", `{"model":"m"}`).id)
	for i, id := range ids {
		want := outcomeCompleted
		if i == len(ids)-1 {
			want = outcomeDenied
		}
		equal(t, want, s.record(t, id).Outcome, "outcome")
	}
}

// showsByGuard: the control socket and the metrics say whether the guard had to write.
func (s *stack) showsByGuard(t *testing.T, isSo bool) {
	t.Helper()
	var shown journalState
	equal(t, 200, s.control(t, "GET", "/journal", &shown), "status of /journal")
	equal(t, isSo, shown.RecordsByGuard > 0, "records by the guard")
	equal(t, isSo, len(shown.Suspects) > 0, "suspects")
	equal(t, true, shown.IsOpen, "doors open")
	equal(t, s.path("journal/journal.log"), shown.Path, "path")
	metrics := s.metrics(t)
	equal(t, isSo, !strings.Contains(metrics, "gateway_records_by_guard_total 0\n"), "metric")
}

// endsWhole stops Caddy: then every number is in the journal once.
func (s *stack) endsWhole(t *testing.T) {
	t.Helper()
	must(t, s.cmd.Process.Signal(syscall.SIGTERM))
	must(t, s.wait())
	s.exited <- nil
	lines := s.lines(t)
	denseSeq(t, lines)
	seen := map[string]bool{}
	for _, l := range lines {
		if l.Msg == "handled request" {
			equal(t, false, seen[l.Gateway.ID], "a second record of "+l.Gateway.ID)
			seen[l.Gateway.ID] = true
		}
	}
}

// TestShutdownWithoutAccessLog: what runs when Caddy ends is recorded, too, if the access log
// carries nothing.
func TestShutdownWithoutAccessLog(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.edited(t, "\n\troute {\n\t\timport gateway_cors", "\n\troute {\n\t\tlog_skip\n\t\timport gateway_cors")
	s.run(t)
	defer s.stop()
	response, reader := s.running(t, newScripted(100, chatFrame), 2)
	must(t, s.cmd.Process.Signal(syscall.SIGTERM))
	_, err := io.ReadAll(reader)
	must(t, err)
	must(t, s.wait())
	s.exited <- nil
	equal(t, outcomeShutdown, s.record(t, response.Header.Get("X-Request-Id")).Outcome, "outcome")
	denseSeq(t, s.lines(t))
}

// TestNoJournalInTheConfiguration: a guard or a tap without a journal is refused when the
// configuration is validated, and by a reload.
func TestNoJournalInTheConfiguration(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.edited(t, `output gateway_journal "{$GATEWAY_JOURNAL:.gateway/journal/journal.log}" {
			roll_size {$GATEWAY_JOURNAL_ROLL:64MiB}
		}`, "output stderr")
	withoutJournal := s.caddyfile
	run := s.command(t)
	validate := exec.CommandContext(t.Context(), run.Path, "validate", "--config", withoutJournal, "--adapter", "caddyfile")
	validate.Env = run.Env
	for name, command := range map[string]*exec.Cmd{"validate": validate, "run": run} {
		out, err := command.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "needs a journal: give a `log` the line `output gateway_journal PATH`") {
			t.Errorf("%s says %v: %s", name, err, out)
		}
	}
	if _, err := os.Stat(s.path("journal")); err == nil {
		t.Error("validating has made the folder of the journal")
	}
	s.caddyfile = s.path("good.caddy")
	text, err := os.ReadFile("Caddyfile")
	must(t, err)
	must(t, os.WriteFile(s.caddyfile, text, 0o600))
	s.run(t)
	defer s.stop()
	bad, err := os.ReadFile(withoutJournal)
	must(t, err)
	must(t, os.WriteFile(s.caddyfile, bad, 0o600))
	must(t, s.cmd.Process.Signal(syscall.SIGUSR1))
	eventually(t, "the reload is refused", func() bool { return strings.Contains(s.stderr.String(), "needs a journal") })
	servedAndRecorded(t, s, s.url)
	s.showsByGuard(t, false)
}

// metrics returns Caddy's metrics.
func (s *stack) metrics(t testing.TB) string {
	t.Helper()
	client := http.Client{Transport: s.controlTransport()}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://control/metrics", nil)
	must(t, err)
	response, err := client.Do(request)
	must(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	must(t, err)
	return string(text)
}
