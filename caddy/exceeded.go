package gateway

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"

	"go.uber.org/zap"

	"neuronetz-gateway/caddy/internal/wordtable"
)

// exceeded drops the table of a model whose answer reported more tokens than its bound: some text
// or image costs more than we know. The log names its kind, never the text. Until the file of the
// count is removed, each byte counts, and an image is bounded by the context alone.
func (t *tables) exceeded(digest string, reported, bound int64, of prompt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	path := filepath.Join(t.dir, digest)
	count := strconv.Itoa(readExceeded(path)+1) + "\n"
	t.log.Error("bound_exceeded", zap.String("digest", digest), zap.Int64("reported", reported),
		zap.Int64("bound", bound), zap.Int("prompt_bytes", of.bytes), zap.Int("beyond_ascii", of.wide),
		zap.Int("messages", of.messages), zap.Int("tools", of.tools), zap.Int("images", of.images),
		zap.NamedError("uncounted", os.WriteFile(path+exceededSuffix, []byte(count), 0o600)))
	set := t.current.Load()
	if set == nil || set.tables[digest] == nil {
		return
	}
	dropped := &tableSet{set.names, set.aliases, set.patterns, map[string]*wordtable.Table{}}
	for other, table := range set.tables {
		if other == digest {
			table = table.WithoutWords()
		}
		dropped.tables[other] = table
	}
	t.current.Store(dropped)
}

// readExceeded returns how often the bound of a model was exceeded.
func readExceeded(path string) int {
	text, err := os.ReadFile(path + exceededSuffix) //nolint:gosec // in the folder of the tables
	if err != nil {
		return 0
	}
	count, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil {
		return 1 // it is there
	}
	return count
}

// checkBound drops the table of the model that ran, if by it the prompt costs less than reported.
func (x *exchange) checkBound() {
	if x.usage == nil {
		return
	}
	for digest, bound := range x.request.prompt.bounds {
		isRun := digest == x.grant.Digest || x.grant.Digest == "" && digest != boundOfAny
		if isRun && x.usage.input.known && x.usage.input.n > bound {
			process.tables.exceeded(digest, x.usage.input.n, bound, x.request.prompt)
		}
	}
}
