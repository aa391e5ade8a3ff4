package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/DeRuina/timberjack"
	"github.com/caddyserver/caddy/v2"
	"github.com/google/uuid"
)

func init() {
	caddy.RegisterModule(JournalWriter{})
}

const (
	// maxHeldBytes bounds the lines that are kept in memory while the journal can't be written.
	maxHeldBytes = 4 << 20
	// reopenEvery is the time between two attempts to write again.
	reopenEvery = 200 * time.Millisecond
	// probeBytes is the length of the blank line of an attempt: more than a line, so that the
	// next one fits too.
	probeBytes = 4096

	defaultRollBytes = 64 << 20
	noRollMiB        = 1 << 20 // the library's own limit, never reached: we rotate at ours
)

var (
	errNotOwned = errors.New("the journal is not ours to write yet")
	errClosed   = errors.New("the journal cannot be written")
)

// JournalWriter is the log writer of the journal: the file of everything that has run on
// this node, which metering bills from. It rotates with the library that Caddy uses, but
// removes and compresses nothing: only metering knows what has been billed.
//
// A line that can't be written (a full disk) is kept in memory, and until it has been
// written the guard refuses every request with 503 and the reason journal_unwritable.
//
// The file is created with mode 0600, its folder with 0700, beside it `node` with the id of
// this node and a lock, which no other process may hold.
type JournalWriter struct {
	// Filename is the path of the journal; placeholders are replaced. There is no default.
	Filename string `json:"filename,omitempty"`
	// RollBytes is the size at which the file is set aside, under a name with the time, and a
	// new one begun. 0 means 64 MiB.
	RollBytes int64 `json:"roll_bytes,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (JournalWriter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.logging.writers.gateway_journal",
		New: func() caddy.Module { return new(JournalWriter) },
	}
}

// Provision sets the default, and makes the path absolute.
func (w *JournalWriter) Provision(caddy.Context) (err error) {
	if w.RollBytes == 0 {
		w.RollBytes = defaultRollBytes
	}
	w.Filename, err = filepath.Abs(caddy.NewReplacer().ReplaceAll(w.Filename, ""))
	return err
}

// String returns the path, for Caddy's messages.
func (w *JournalWriter) String() string { return w.Filename }

// WriterKey makes all loggers of one path, and all configurations, share one writer.
func (w *JournalWriter) WriterKey() string { return "gateway_journal:" + w.Filename }

// OpenWriter opens the file. Nothing is written to it before the app has taken its lock:
// `caddy validate` opens writers too.
func (w *JournalWriter) OpenWriter() (io.WriteCloser, error) {
	if err := os.MkdirAll(filepath.Dir(w.Filename), 0o700); err != nil {
		return nil, err
	}
	file := &timberjack.Logger{
		Filename: w.Filename, FileMode: 0o600, Compression: "none", MaxSize: noRollMiB,
	}
	return process.use(&journal{
		path: w.Filename, file: file, rotate: file.Rotate, roll: w.RollBytes, clock: process.clock,
	})
}

// journal is the open file. A write that fails closes the doors (isClosed); they open again
// when all that could not be written has been.
type journal struct {
	// Set when it is opened.
	path   string
	file   io.WriteCloser
	rotate func() error
	roll   int64 // bytes, 0 for never
	clock  clock

	mu     sync.Mutex // of this group, held during a write: lines are never interleaved
	lock   *os.File   // nil until the process owns the journal
	size   int64      // of the file, in bytes
	held   [][]byte   // lines that could not be written, oldest first
	kept   int        // bytes of held
	isTorn bool       // the last write may have left a part of a line

	// Read without the lock, by every request.
	isClosed atomic.Bool
	lines    atomic.Uint64 // written or held by this process
}

// own takes the journal's lock, which no other process may hold: two would number their
// lines into one file, and rotate it under each other.
func (j *journal) own() error {
	lock, err := os.OpenFile(j.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return fmt.Errorf("another process writes the journal %s: %w", j.path, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lock = lock
	j.size, j.isTorn, err = inspectEnd(j.path)
	return err
}

// inspectEnd returns the size of the journal as another process left it, and whether that one
// died in the middle of a line.
func inspectEnd(path string) (size int64, isTorn bool, err error) {
	file, err := os.Open(path) //nolint:gosec // the operator names the journal
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = file.Close() }()
	if size, err = file.Seek(0, io.SeekEnd); err != nil || size == 0 {
		return size, false, err
	}
	var last [1]byte
	_, err = file.ReadAt(last[:], size-1)
	return size, last[0] != '\n', err
}

// Write writes one line, or keeps it for later and closes the doors. It returns errNotOwned
// before the process owns the journal, and otherwise an error for a line that was kept.
func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lock == nil {
		return 0, errNotOwned
	}
	j.lines.Add(1)
	if j.isClosed.Load() {
		j.hold(line)
		return 0, errClosed
	}
	if err := j.put(line); err != nil {
		j.hold(line)
		j.isClosed.Store(true)
		go j.reopen()
		return 0, err
	}
	return len(line), nil
}

// put writes a line: into a new file if this one is full, on a fresh line if the last
// write was torn. The caller holds the lock.
func (j *journal) put(line []byte) error {
	if j.isTorn {
		line = append([]byte{'\n'}, line...)
	}
	if j.roll > 0 && j.size > 0 && j.size+int64(len(line)) > j.roll {
		if err := j.rotate(); err != nil {
			return err
		}
		j.size = 0
	}
	n, err := j.file.Write(line)
	j.size += int64(n)
	j.isTorn = err != nil && (n > 0 || j.isTorn)
	return err
}

// hold keeps a line until the journal can be written. What has run may take all the room,
// refusals half of it: a closed journal makes many of them, and they must not crowd out
// what has a price. The caller holds the lock.
func (j *journal) hold(line []byte) {
	room := maxHeldBytes
	if !bytes.Contains(line, []byte(`"reserved":{`)) {
		room /= 2
	}
	if j.kept+len(line) > room {
		return // metering finds its number missing
	}
	j.held = append(j.held, append([]byte(nil), line...))
	j.kept += len(line)
}

// reopen retries until the journal can be written again, and opens the doors.
func (j *journal) reopen() {
	for {
		<-j.clock.after(reopenEvery)
		if j.probe() {
			return
		}
	}
}

// probe writes a blank line and then what was held; false if there is no room for it.
func (j *journal) probe() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.put(append([]byte(strings.Repeat(" ", probeBytes-1)), '\n')); err != nil {
		return false
	}
	for len(j.held) > 0 {
		if err := j.put(j.held[0]); err != nil {
			return false
		}
		j.kept -= len(j.held[0])
		j.held = j.held[1:]
	}
	j.isClosed.Store(false)
	return true
}

// Close closes the file; the lock is held as long as the process lives.
func (j *journal) Close() error {
	return j.file.Close()
}

// line writes one of our own lines, shaped like those of Caddy's loggers.
func (j *journal) line(now time.Time, msg string, content any) error {
	line, err := json.Marshal(struct {
		Level   string  `json:"level"`
		TS      float64 `json:"ts"`
		Logger  string  `json:"logger"`
		Msg     string  `json:"msg"`
		Content any     `json:"gateway"`
	}{"info", float64(now.UnixNano()) / 1e9, "gateway.journal", msg, content})
	if err != nil {
		return err
	}
	_, err = j.Write(append(line, '\n'))
	return err
}

// nodeID returns the id of the node, which stands in a file beside its journal: a node is
// the place where a journal is, whatever its host or address are called.
func (j *journal) nodeID(random io.Reader) (string, error) {
	path := filepath.Join(filepath.Dir(j.path), "node")
	text, err := os.ReadFile(path) //nolint:gosec // beside the journal
	if errors.Is(err, os.ErrNotExist) {
		text, err = newNode(path, random)
	}
	if err != nil {
		return "", err
	}
	id, err := uuid.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		return "", fmt.Errorf("%s does not hold the id of a node: %w", path, err)
	}
	return id.String(), nil
}

// newNode writes a new id into the file of the node, whole or not at all.
func newNode(path string, random io.Reader) ([]byte, error) {
	id, err := uuid.NewRandomFromReader(random)
	if err != nil {
		return nil, err
	}
	text := []byte(id.String())
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return nil, err
	}
	return text, os.Rename(path+".new", path)
}

// Interface guards.
var (
	_ caddy.Provisioner  = (*JournalWriter)(nil)
	_ caddy.WriterOpener = (*JournalWriter)(nil)
)
