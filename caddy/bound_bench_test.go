package gateway

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"neuronetz-gateway/caddy/internal/jsonstream"
	"neuronetz-gateway/caddy/internal/wordtable"
)

// boundFolder names a folder with descriptions of models (NAME.show.json) and bodies of
// /api/chat (NAME.body.json), as `just bench-bound` makes it.
const boundFolder = "GATEWAY_BENCH_BOUND"

// BenchmarkBound prices every body by the vocabulary of every model, and reports the bound.
func BenchmarkBound(b *testing.B) {
	dir := os.Getenv(boundFolder)
	if dir == "" {
		dir = benchFolder(b)
	}
	shows, err := filepath.Glob(filepath.Join(dir, "*.show.json"))
	must(b, err)
	bodies, err := filepath.Glob(filepath.Join(dir, "*.body.json"))
	must(b, err)
	for _, model := range shows {
		answer, err := os.ReadFile(model)
		must(b, err)
		show, err := wordtable.ReadShow(answer)
		must(b, err)
		table, err := wordtable.Build(show)
		must(b, err)
		models := []modelTable{{table, "d"}}
		for _, path := range bodies {
			body, err := os.ReadFile(path)
			must(b, err)
			members, _, err := jsonstream.AppendMembers(nil, body, 0, 0)
			must(b, err)
			b.Run(nameOf(model)+"/"+nameOf(path), func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				var bound int64
				for b.Loop() {
					bound = countPrompt(body, members, apiChat, models).bounds["d"]
				}
				b.ReportMetric(float64(bound), "tokens")
			})
		}
	}
}

// nameOf returns a file's name up to its first dot.
func nameOf(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	return name
}

// benchFolder has a vocabulary of one word, and a body full of it.
func benchFolder(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	must(b, os.WriteFile(filepath.Join(dir, "small.show.json"), []byte(toJSON(map[string]any{
		"model_info": testShow(b).Vocabulary,
	})), 0o600))
	body := `{"messages":[{"role":"user","content":"` + strings.Repeat(" hello, world", 10_000) + `"}]}`
	must(b, os.WriteFile(filepath.Join(dir, "words.body.json"), []byte(body), 0o600))
	return dir
}
