package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// mostHostileKiB is what Caddy may take at most, whatever backends describe.
const mostHostileKiB = 500 << 10

// TestRealCaddySurvivesVocabularies: whatever backends say of their models, Caddy goes on, says of
// each once why it has no table, takes no memory to speak of, and knows the honest one's words.
func TestRealCaddySurvivesVocabularies(t *testing.T) {
	s := newStack(t, freeAddr(t))
	dir := filepath.Join(s.dir, "tables")
	must(t, os.Mkdir(dir, 0o700))
	many := func(part string) string { return strings.Repeat(part, 32<<20/len(part)) }
	info := func(lists string) string { return `{"model_info":{"tokenizer.ggml.model":"gpt2",` + lists + `}}` }
	hostile := map[string]string{
		"tokens":   info(`"tokenizer.ggml.tokens":[""` + many(`,""`) + `]`),
		"scores":   info(`"tokenizer.ggml.scores":[0` + many(`,0`) + `]`),
		"messages": `{"messages":[{}` + many(`,{}`) + `]}`,
		"long":     info(`"tokenizer.ggml.tokens":["` + many("a") + `"]`),
		"deep":     info(`"tokenizer.ggml.tokens":` + many("[")),
		"cut":      info(`"tokenizer.ggml.tokens":["`)[:40],
		"null":     `null`,
		"empty":    ``,
		"endless":  ``,
	}
	models := map[string][]string{"toy:latest": {digestA}}
	failures := make([]string, 0, len(hostile))
	for name, answer := range hostile {
		digest := fmt.Sprintf("%064x", len(models))
		models[name+":latest"] = []string{digest}
		must(t, os.WriteFile(filepath.Join(dir, digest+showSuffix), []byte(answer), 0o600))
		if name == "endless" {
			must(t, os.Truncate(filepath.Join(dir, digest+showSuffix), 1<<40))
		}
		failures = append(failures, filepath.Join(dir, digest+failedSuffix))
	}
	describe(t, dir, models, map[string]any{digestA: description(t)})
	s.run(t, "GATEWAY_TABLES="+dir)
	defer s.stop()
	eventually(t, "the honest model is known", func() bool {
		s.post(t, "/api/generate", `{"model":"toy","stream":false,"prompt":"`+strings.Repeat(" hello", 100)+`"}`)
		return s.authz.last(t).Bounds[digestA] == baseTokens+objectTokens+1+100
	})
	for _, path := range failures {
		eventually(t, "a reason is written down", func() bool { return hasReason(path) })
	}
	// A line is read from Caddy's stderr a moment after it was written there.
	reports := func() int { return strings.Count(s.stderr.String(), "has no table") }
	eventually(t, "each is reported", func() bool { return reports() >= len(hostile) })
	equal(t, len(hostile), reports(), "reports")
	if runtime.GOOS == "linux" {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
		must(t, err)
		var peak int
		_, most, _ := strings.Cut(string(status), "VmHWM:")
		_, err = fmt.Sscan(most, &peak)
		must(t, err)
		if peak > mostHostileKiB {
			t.Errorf("Caddy took %d MiB", peak>>10)
		}
	}
}

// hasReason reports whether it was written down why a model has no table.
func hasReason(path string) bool {
	text, err := os.ReadFile(path)
	return err == nil && strings.HasSuffix(string(text), "\n")
}
