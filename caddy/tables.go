package gateway

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"neuronetz-gateway/caddy/internal/wordtable"
)

// Files in the folder of the tables. authz writes the index and what /api/show says of each
// model; the others are ours, by the digest of the model.
const (
	indexFile      = "index.json"
	showSuffix     = ".show.json"
	tableSuffix    = ".table"
	failedSuffix   = ".failed"   // why there are no words in the table
	exceededSuffix = ".exceeded" // how often an answer reported more than its bound

	maxIndexBytes  = 1 << 20
	maxTablesBytes = 1 << 30 // of all together: those beyond are not read, and cost a token a byte
	lookForTables  = time.Second
)

// modelDigest is what a digest looks like: it becomes the name of a file.
var modelDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// tableIndex says which models a name may mean, and which of them are described.
type tableIndex struct {
	V         int                 `json:"v"`
	Models    map[string][]string `json:"models"`  // digests by canonical name
	Aliases   map[string][]string `json:"aliases"` // likewise, or by the beginning of names and a star
	Described []string            `json:"described"`
}

// tableSet is what is known at a time. It is immutable.
type tableSet struct {
	names    map[string][]string
	aliases  map[string][]string
	patterns []string // of aliases, which are beginnings and a star, the longest first
	tables   map[string]*wordtable.Table
}

// tables are the vocabularies of the backends' models, read from a folder that authz fills.
type tables struct {
	current atomic.Pointer[tableSet]
	most    int // bytes of all tables, if not maxTablesBytes

	mu    sync.Mutex // of what follows, and of writing current
	dir   string
	begun bool
	stamp string // of the index that was read last
	log   *zap.Logger

	failed map[string]string // stamps of descriptions that can't be read; of the one who looks
}

// of returns what is known of the models that a name may mean, of at most maxModels of them.
func (t *tables) of(model *string) (found []modelTable) {
	set := t.current.Load()
	if set == nil || model == nil {
		return nil
	}
	for _, digest := range set.digests(*model) {
		if table := set.tables[digest]; table != nil && len(found) < maxModels {
			found = append(found, modelTable{table, digest})
		}
	}
	return found
}

var modelScheme = regexp.MustCompile(`^[a-z][a-z0-9+.-]*://`)

// canonicalModel returns a model's name as authz writes it into the index: Ollama's default
// host, namespace and tag are one with none (authz/models.py).
func canonicalModel(name string) string {
	text := modelScheme.ReplaceAllString(strings.ToLower(strings.TrimSpace(name)), "")
	path, tag := text, ""
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.Contains(text[i:], "/") {
		path, tag = text[:i], text[i+1:]
	}
	parts := strings.Split(path, "/")
	if len(parts) == 3 && parts[0] == "registry.ollama.ai" {
		parts = parts[1:]
	}
	if len(parts) == 2 && parts[0] == "library" {
		parts = parts[1:]
	}
	if tag == "" {
		tag = "latest"
	}
	return strings.Join(parts, "/") + ":" + tag
}

// watch reads the folder now and once a second from then on, until the process ends; a
// reload may name another one.
func (t *tables) watch(dir string, c clock, log *zap.Logger) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dir != dir {
		t.dir, t.stamp = dir, ""
	}
	if t.begun || dir == "" {
		return
	}
	t.begun, t.log = true, log
	go func() {
		// Building takes seconds: the thread that does it yields to those that serve.
		runtime.LockOSThread()
		if runtime.GOOS == "linux" {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19)
		}
		for {
			t.look()
			<-c.after(lookForTables)
		}
	}()
}

// look reads the index if it has changed, and makes the tables that it names.
func (t *tables) look() {
	t.mu.Lock()
	dir, stamp := t.dir, t.stamp
	t.mu.Unlock()
	now := stampOf(filepath.Join(dir, indexFile))
	if now == "" || now == stamp {
		return
	}
	index, err := readIndex(filepath.Join(dir, indexFile))
	if err != nil {
		t.log.Warn("the index of the models can't be read", zap.Error(err))
	} else {
		t.load(dir, index)
	}
	t.mu.Lock()
	t.stamp = now
	t.mu.Unlock()
}

// stampOf returns what changes with a file; empty if there is none.
func stampOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return info.ModTime().String() + strconv.FormatInt(info.Size(), 10)
}

func readIndex(path string) (index tableIndex, err error) {
	text, err := readFile(path, maxIndexBytes)
	if err != nil {
		return index, err
	}
	if err = json.Unmarshal(text, &index); err == nil && index.V != version {
		err = errors.New("the index has version " + strconv.Itoa(index.V))
	}
	return index, err
}

// readFile reads a file of a bounded size.
func readFile(path string, most int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // in the folder of the tables, which the operator sets
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, errors.New(path + " is too large")
	}
	text := make([]byte, info.Size())
	_, err = io.ReadFull(f, text)
	return text, err
}

// load makes the tables of an index, and publishes each as soon as it is there.
func (t *tables) load(dir string, index tableIndex) {
	var before map[string]*wordtable.Table
	if set := t.current.Load(); set != nil {
		before = set.tables
	}
	known := map[string]*wordtable.Table{}
	size := 0
	for _, digest := range index.Described {
		if table := before[digest]; table != nil && known[digest] == nil {
			known[digest] = table
			size += table.Size()
		}
	}
	t.publish(index, known)
	for i, digest := range index.Described {
		if known[digest] != nil || !modelDigest.MatchString(digest) {
			continue
		}
		if size >= cmp.Or(t.most, maxTablesBytes) {
			t.log.Warn("the tables of these models have no room: each byte of their prompts counts as a token",
				zap.Strings("digests", index.Described[i:]))
			return
		}
		if table := t.table(filepath.Join(dir, digest)); table != nil {
			known[digest] = table
			size += table.Size()
			t.publish(index, known)
		}
	}
}

// publish makes tables known. What was dropped meanwhile stays dropped.
func (t *tables) publish(index tableIndex, known map[string]*wordtable.Table) {
	t.mu.Lock()
	defer t.mu.Unlock()
	set := &tableSet{
		index.Models, index.Aliases, patternsOf(index.Aliases), make(map[string]*wordtable.Table, len(known)),
	}
	for digest, table := range known {
		if readExceeded(filepath.Join(t.dir, digest)) > 0 {
			table = table.WithoutWords()
		}
		set.tables[digest] = table
	}
	t.current.Store(set)
}

// table opens the table of a model, or builds it; nil if its description can't be read, which is
// said once.
func (t *tables) table(path string) *wordtable.Table {
	table, err := wordtable.Open(path + tableSuffix)
	if err == nil {
		return table
	}
	stamp := stampOf(path + showSuffix)
	if before, isThere := t.failed[path]; isThere && before == stamp {
		return nil
	}
	defer debug.FreeOSMemory() // a vocabulary takes some hundred megabytes to read
	answer, err := readFile(path+showSuffix, wordtable.MaxShowBytes)
	var show *wordtable.Show
	if err == nil {
		show, err = wordtable.ReadShow(answer)
	}
	log := t.log.With(zap.String("digest", filepath.Base(path)))
	if err != nil {
		t.fail(path, err, log)
		if t.failed == nil {
			t.failed = map[string]string{}
		}
		t.failed[path] = stamp
		return nil
	}
	delete(t.failed, path)
	table, err = wordtable.Build(show)
	if err != nil {
		t.fail(path, err, log)
	} else {
		_ = os.Remove(path + failedSuffix) // where there was one
		log.Info("the table of a model was built")
	}
	if err = table.Save(path + tableSuffix); err != nil {
		log.Warn("the table of a model can't be written", zap.Error(err))
		return table
	}
	if saved, err := wordtable.Open(path + tableSuffix); err == nil {
		return saved
	}
	return table
}

// fail writes down why a model has no table, for `status`.
func (t *tables) fail(path string, why error, log *zap.Logger) {
	log.Warn("a model has no table: each byte of its prompts counts as a token", zap.Error(why))
	if err := os.WriteFile(path+failedSuffix, []byte(why.Error()+"\n"), 0o600); err != nil {
		log.Warn("that can't be written down", zap.Error(err))
	}
}
