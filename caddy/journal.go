package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(JournalWriter{})
}

const (
	// maxHeldBytes bounds the lines that are kept in memory while the journal can't be written.
	maxHeldBytes = 4 << 20
	// probeBytes is the length of the blank line of an attempt: more than a line, so that the
	// next one fits too.
	probeBytes = 4096

	defaultRollBytes = 64 << 20

	ownLogger = "gateway.journal"

	secondsPerDay = 86_400
)

var (
	errNotOwned = errors.New("the journal is not ours to write yet")
	errClosed   = errors.New("the journal cannot be written")
	errMoved    = errors.New("the journal is not at its path")
)

// JournalWriter is the log writer of the journal: the file of everything that has run on
// this node, which metering bills from. It rotates as Caddy's file writer does, but removes
// and compresses nothing: only metering knows what has been billed. It takes nothing but
// records, each once, however many logs lead here.
//
// A line that can't be written (a full disk) is kept in memory, and until it has been
// written the guard refuses every request with 503 and the reason journal_unwritable.
//
// A file that was moved away, removed or cut is noticed within a second and replaced by a new
// one, which begins with all that was written since the old one was last seen at its path.
// Once a second what was written is forced to the disk.
//
// The file is created with mode 0600, its folder with 0700, beside it `node` with the id of
// this node and a lock, which no other process may hold.
type JournalWriter struct {
	// Filename is the path of the journal; placeholders are replaced. There is no default.
	Filename string `json:"filename,omitempty"`
	// RollBytes is the size at which the file is set aside, under a name with the time, and a
	// new one begun. 0 means 64 MiB. So is a file of a day that is over, in UTC, before the first
	// line of another one: a file that is days old can then be removed, with the addresses in it.
	RollBytes int64 `json:"roll_bytes,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (JournalWriter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.logging.writers.gateway_journal",
		New: func() caddy.Module { return new(JournalWriter) },
	}
}

// Provision sets the default, makes the path absolute, and notes that this configuration has
// a journal.
func (w *JournalWriter) Provision(ctx caddy.Context) (err error) {
	process.noteJournal(ctx)
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

// OpenWriter makes the journal that of the process. Nothing is made or written before the app
// takes it: `caddy validate` opens writers too.
func (w *JournalWriter) OpenWriter() (io.WriteCloser, error) {
	j, err := process.use(&journal{
		path: w.Filename, roll: w.RollBytes, clock: process.clock, write: (*os.File).Write,
	})
	return carrier{j, process}, err
}

// journal is the open file. A write that fails closes the doors (isClosed); they open again
// when all that could not be written has been. Five times a second the process looks after it:
// see look.
type journal struct {
	// Set when it is made.
	path  string
	roll  int64 // bytes, 0 for never
	clock clock
	write func(file *os.File, line []byte) (int, error)

	mu      sync.Mutex // of this group, held during a write: lines are never interleaved
	lock    *os.File   // nil until the process owns the journal
	node    string     // the id of the node, "" until it is known
	boot    string     // of the process, likewise
	file    *os.File   // what is written to
	size    int64      // of the file, in bytes
	day     int64      // in which it was last written to, in UTC, since 1970
	safe    int64      // of these, what was there when the file was last seen at its path
	whole   uint64     // the number up to which all lines had been written then
	held    [][]byte   // lines that could not be written, oldest first
	kept    int        // bytes of held
	isTorn  bool       // the last write may have left a part of a line
	isDirty bool       // something was written since the last sync

	// Read without the lock, by every request.
	isClosed atomic.Bool
	lines    atomic.Uint64 // written or held by this process, of those that have a number
	reopened atomic.Uint64 // how often the file was not at its path, or was cut
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
	today := dayOf(j.clock.now())
	isFull := j.roll > 0 && j.size+int64(len(line)) > j.roll
	if j.size > 0 && (isFull || j.day < today) {
		if err := j.rotate(); err != nil {
			return err
		}
	}
	n, err := j.write(j.file, line)
	j.day = today
	j.size += int64(n)
	j.isDirty = true
	j.isTorn = err != nil && (n > 0 || j.isTorn)
	return err
}

// dayOf returns the number of a moment's day in UTC.
func dayOf(moment time.Time) int64 { return moment.Unix() / secondsPerDay }

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

// probe opens the doors if there is room again: a blank line is written first, longer than a
// line, so that the next one fits too. The caller holds the lock.
func (j *journal) probe() {
	if err := j.put(append([]byte(strings.Repeat(" ", probeBytes-1)), '\n')); err == nil {
		j.release()
	}
}

// release writes what was held; the doors are open if all of it could be. The caller holds
// the lock.
func (j *journal) release() {
	for len(j.held) > 0 {
		if err := j.put(j.held[0]); err != nil {
			j.isClosed.Store(true)
			return
		}
		j.kept -= len(j.held[0])
		j.held = j.held[1:]
	}
	j.isClosed.Store(false)
}

// line writes one of our own lines.
func (j *journal) line(now time.Time, msg string, content any) error {
	line, err := ownLine(now, msg, content)
	if err != nil {
		return err
	}
	_, err = j.Write(line)
	return err
}

// ownLine returns one of our own lines, shaped like those of Caddy's loggers.
func ownLine(now time.Time, msg string, content any) ([]byte, error) {
	w := make(plainWriter, 0, askBytes).text(`{"level":`, "info")
	w = strconv.AppendFloat(append(w, `,"ts":`...), float64(now.UnixNano())/1e9, 'f', -1, 64)
	w = append(w.text(`,"logger":`, ownLogger).text(`,"msg":`, msg), `,"gateway":`...)
	if open, isOpen := content.(openLine); isOpen {
		return append(w.openLine(&open), "}\n"...), nil
	}
	text, err := json.Marshal(content)
	return append(append(w, text...), "}\n"...), err
}

// Interface guards.
var (
	_ caddy.Provisioner  = (*JournalWriter)(nil)
	_ caddy.WriterOpener = (*JournalWriter)(nil)
)
