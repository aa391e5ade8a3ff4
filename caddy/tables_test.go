package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

const (
	digestA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// newTables are tables of a folder in which authz has described a model.
func newTables(t *testing.T, dir string) (*tables, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	return &tables{dir: dir, log: zap.New(core)}, logs
}

// describe writes what authz writes: what a model is first, then the index.
func describe(t *testing.T, dir string, models map[string][]string, shows map[string]any) {
	t.Helper()
	for digest, show := range shows {
		text, err := json.Marshal(show)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, digest+showSuffix), text, 0o600))
	}
	index := tableIndex{V: version, Models: models}
	for _, digests := range models {
		index.Described = append(index.Described, digests...)
	}
	text, err := json.Marshal(index)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, indexFile), text, 0o600))
}

// description is /api/show's answer for the vocabulary of testShow.
func description(t *testing.T) map[string]any {
	t.Helper()
	return map[string]any{"model_info": testShow(t).Vocabulary}
}

// wordBound is the bound of ten known words by the table of a model.
func wordBound(t *testing.T, list *tables, name, digest string) int64 {
	t.Helper()
	return boundsOf(t, `{"prompt":"`+strings.Repeat(" hello", 10)+`"}`, apiGenerate, list.of(&name)...)[digest]
}

// TestTables: a model that authz has described is known by every spelling of its name, now and
// by the file of its table after a restart.
func TestTables(t *testing.T) {
	dir := t.TempDir()
	list, logs := newTables(t, dir)
	list.look() // there is nothing yet
	describe(t, dir, map[string][]string{"toy:latest": {digestA}}, map[string]any{digestA: description(t)})
	list.look()
	const want = baseTokens + objectTokens + 1 + 10
	equal(t, want, wordBound(t, list, "Toy", digestA), "the bound of ten words")
	equal(t, 0, wordBound(t, list, "other", digestA), "of another model that the name may mean")
	equal(t, 1, logs.FilterMessage("the table of a model was built").Len(), "tables that were built")

	must(t, os.Remove(filepath.Join(dir, digestA+showSuffix)))
	again, logs := newTables(t, dir)
	again.look()
	equal(t, want, wordBound(t, again, "toy:latest", digestA), "after a restart")
	equal(t, 0, logs.Len(), "tables that were built again")
}

// TestSeveralModels: a name that means another model on each backend has a bound for each of
// the first four; whatever else an index says is no model.
func TestSeveralModels(t *testing.T) {
	dir := t.TempDir()
	list, _ := newTables(t, dir)
	shows := map[string]any{}
	digests := append(make([]string, 0, 8), "../"+digestA, "", digestA+"a")
	for _, digit := range "01234" {
		digest := strings.Repeat(string(digit), len(digestA))
		digests, shows[digest] = append(digests, digest), description(t)
	}
	describe(t, dir, map[string][]string{"toy:latest": digests}, shows)
	list.look()
	name := "toy"
	equal(t, maxModels, len(list.of(&name)), "models")
}

// TestHostileDescription: a vocabulary that can't be used gives no words and says so once, also
// after a restart; one that can't be read gives no table at all.
func TestHostileDescription(t *testing.T) {
	dir := t.TempDir()
	wrong := description(t)
	wrong["model_info"] = map[string]any{"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": []string{"a"}}
	describe(t, dir, map[string][]string{"toy:latest": {digestA}, "cut:latest": {digestB}}, map[string]any{digestA: wrong})
	must(t, os.WriteFile(filepath.Join(dir, digestB+showSuffix), []byte(`{"model_info":{"tok`), 0o600))
	list, logs := newTables(t, dir)
	list.look()
	describe(t, dir, map[string][]string{"toy:latest": {digestA}, "cut:0.5b": {digestB}}, nil)
	list.look()
	equal(t, 2, logs.FilterMessageSnippet("has no table").Len(), "reports, though the index has changed")
	equal(t, baseTokens+objectTokens+1+60, wordBound(t, list, "toy", digestA), "a token a byte")
	equal(t, 0, wordBound(t, list, "cut:0.5b", digestB), "no table")
	for _, digest := range []string{digestA, digestB} {
		reason, err := os.ReadFile(filepath.Join(dir, digest+failedSuffix))
		must(t, err)
		equal(t, true, strings.HasSuffix(string(reason), "\n"), "a reason")
	}
	again, logs := newTables(t, dir)
	again.look()
	equal(t, 1, logs.FilterMessageSnippet("has no table").Len(), "reports after a restart, of the unreadable one alone")
	models := map[string][]string{"toy:latest": {digestA}, "cut:latest": {digestB}}
	describe(t, dir, models, map[string]any{digestB: description(t)})
	again.look()
	equal(t, baseTokens+objectTokens+1+10, wordBound(t, again, "cut", digestB), "once it is described anew")
}

// TestExceeded: an answer that reports more than its bound drops the words of that model alone,
// at once and after a restart, and is counted.
func TestExceeded(t *testing.T) {
	p, _ := replaceProcess(t)
	dir := t.TempDir()
	describe(t, dir, map[string][]string{"toy:latest": {digestA}, "toy2:latest": {digestB}},
		map[string]any{digestA: description(t), digestB: description(t)})
	core, logs := observer.New(zapcore.ErrorLevel)
	p.tables.dir, p.tables.log = dir, zap.New(core)
	p.tables.look()
	tight := wordBound(t, &p.tables, "toy", digestA)
	exchange := func(reported int64, images int) *exchange {
		return &exchange{
			grant: &grant{Digest: digestA},
			request: request{prompt: prompt{
				images: images, bounds: map[string]int64{digestA: 50, digestB: 10, boundOfAny: 40},
			}},
			usage: &usage{input: count{reported, true}},
		}
	}
	exchange(50, 0).checkBound()
	equal(t, tight, wordBound(t, &p.tables, "toy", digestA), "the bound before")
	exchange(51, 1).checkBound() // images are in the bound, too
	exchange(52, 0).checkBound()
	equal(t, 2, logs.FilterMessage("bound_exceeded").Len(), "alarms")
	equal(t, tight+50, wordBound(t, &p.tables, "toy", digestA), "the bound after")
	equal(t, tight, wordBound(t, &p.tables, "toy2", digestB), "of another model")
	equal(t, 2, readExceeded(filepath.Join(dir, digestA)), "the count")
	again, _ := newTables(t, dir)
	again.look()
	equal(t, tight+50, wordBound(t, again, "toy", digestA), "after a restart")
}

// TestRealCaddyUsesTables: a Caddy that runs notices a model that authz describes, sends its
// bound in the Ask and writes it into the record, whatever becomes of the table's file, and drops
// the words once an answer reports more than its bound.
func TestRealCaddyUsesTables(t *testing.T) {
	s := newStack(t, freeAddr(t))
	dir := filepath.Join(s.dir, "tables of words")
	must(t, os.Mkdir(dir, 0o700))
	s.run(t, "GATEWAY_TABLES="+dir)
	defer s.stop()
	var reported atomic.Int64
	s.upstream.set(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"done":true,"prompt_eval_count":%d,"eval_count":1}`+"\n", reported.Load())
	})
	bound := func() int64 {
		s.post(t, "/api/generate", `{"model":"TOY","stream":false,"prompt":"`+strings.Repeat(" hello", 100)+`"}`)
		return s.authz.last(t).Bounds[digestA]
	}
	equal(t, 0, bound(), "the bound before")
	describe(t, dir, map[string][]string{"toy:latest": {digestA}}, map[string]any{digestA: description(t)})
	const words = baseTokens + objectTokens + 1
	eventually(t, "the table is used", func() bool { return bound() == words+100 })
	must(t, os.Truncate(filepath.Join(dir, digestA+tableSuffix), 0))
	equal(t, words+100, bound(), "the bound once the file of the table is emptied")
	reported.Store(1000)
	eventually(t, "the words are dropped", func() bool { return bound() == words+600 })
	eventually(t, "the record has the bound and the table", func() bool {
		text, err := os.ReadFile(s.path("journal/journal.log"))
		return err == nil && strings.Contains(string(text), `"bound":205,"table":"`+digestA+`"`)
	})
	equal(t, true, readExceeded(filepath.Join(dir, digestA)) > 0, "the count")
	equal(t, true, strings.Contains(s.stderr.String(), "bound_exceeded"), "the alarm")
}

// TestTablesHaveRoom: beyond what all tables may take no more are read, which is said, and those that are
// there stay.
func TestTablesHaveRoom(t *testing.T) {
	dir := t.TempDir()
	list, logs := newTables(t, dir)
	list.most = 1
	models := map[string][]string{"a:latest": {digestA}}
	describe(t, dir, models, map[string]any{digestA: description(t), digestB: description(t)})
	list.look()
	models["b:latest"] = []string{digestB}
	describe(t, dir, models, nil)
	list.look()
	a, b := "a", "b"
	equal(t, 1, len(list.of(&a)), "the first")
	equal(t, 0, len(list.of(&b)), "the second")
	equal(t, 1, logs.FilterMessageSnippet("no room").Len(), "warnings")
	list.most = 0
	list.stamp = ""
	list.look()
	equal(t, 1, len(list.of(&b)), "the second with room")
}
