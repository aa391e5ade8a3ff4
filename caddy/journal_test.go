package gateway

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// sink is a file that can be full.
type sink struct {
	bytes.Buffer

	room int // bytes that still fit, if isFull
	// isFull: what does not fit is cut off, as on a full disk.
	isFull bool
}

func (s *sink) Write(p []byte) (int, error) {
	if s.isFull && len(p) > s.room {
		n, _ := s.Buffer.Write(p[:s.room])
		s.room = 0
		return n, errors.New("no space left on device")
	}
	return s.Buffer.Write(p)
}

func (s *sink) Close() error { return nil }

// TestFullJournal: a failed write closes the doors; a probe opens them as soon as there is
// room, and nothing that was written meanwhile is lost.
func TestFullJournal(t *testing.T) {
	out := &sink{isFull: true, room: 5}
	j := &journal{clock: systemClock{}, file: out, lock: os.Stdin}
	if err := j.put([]byte("first\n")); err == nil {
		t.Fatal("wrote on a full disk")
	}
	j.hold([]byte("first\n"))
	j.isClosed.Store(true)
	if _, err := j.Write([]byte("second\n")); err == nil {
		t.Error("the doors were open")
	}
	equal(t, false, j.probe(), "probe on a full disk")
	equal(t, true, j.isClosed.Load(), "doors closed")
	out.isFull = false
	equal(t, true, j.probe(), "probe with room")
	equal(t, false, j.isClosed.Load(), "doors closed")
	_, err := j.Write([]byte("third\n"))
	must(t, err)
	var lines []string
	for line := range strings.SplitSeq(out.String(), "\n") {
		if strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	equal(t, "first,first,second,third", strings.Join(lines, ","), "lines") // the first is torn
}

// TestTornEnd: what a crash has left of a line does not swallow the next one.
func TestTornEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.log")
	must(t, os.WriteFile(path, []byte("whole\ntor"), 0o600))
	out := new(sink)
	j := &journal{clock: systemClock{}, path: path, file: out}
	must(t, j.own())
	_, err := j.Write([]byte("next\n"))
	must(t, err)
	equal(t, "\nnext\n", out.String(), "written")
}

// TestHeldIsBounded: a journal that stays full does not fill the memory.
func TestHeldIsBounded(t *testing.T) {
	j := &journal{clock: systemClock{}, file: &sink{isFull: true}, lock: os.Stdin}
	j.isClosed.Store(true)
	line := bytes.Repeat([]byte("x"), 1<<20)
	for range 10 {
		_, _ = j.Write(line)
	}
	if j.kept > maxHeldBytes {
		t.Errorf("holds %d bytes", j.kept)
	}
	refusals := len(j.held)
	_, _ = j.Write(append(line, []byte(`"reserved":{"input":1,"output":1}`)...))
	equal(t, refusals+1, len(j.held), "what has run still finds room")
}

// TestDoorsOpenThemselves: nobody has to ask for the probe.
func TestDoorsOpenThemselves(t *testing.T) {
	out := &sink{isFull: true}
	j := &journal{clock: systemClock{}, file: out, lock: os.Stdin}
	if _, err := j.Write([]byte("line\n")); err == nil {
		t.Fatal("wrote on a full disk")
	}
	equal(t, true, j.isClosed.Load(), "doors closed")
	j.mu.Lock()
	out.isFull = false
	j.mu.Unlock()
	eventually(t, "the doors open", func() bool { return !j.isClosed.Load() })
}

// TestStartOnAFullDisk: a Caddy that starts while the disk is full lives on behind closed
// doors, and writes that it has started as soon as it can.
func TestStartOnAFullDisk(t *testing.T) {
	out := &sink{isFull: true}
	j := &journal{clock: systemClock{}, path: filepath.Join(t.TempDir(), "journal.log"), file: out}
	s := newState(systemClock{}, rand.Reader)
	s.journal.Store(j)
	must(t, s.begin())
	equal(t, false, s.isOpen(), "doors open")
	j.mu.Lock()
	out.isFull = false
	j.mu.Unlock()
	eventually(t, "the doors open", s.isOpen)
	equal(t, 1, strings.Count(out.String(), `"msg":"boot"`), "boot lines")
}

// TestJournalHasOneOwner: nothing is written without the lock, which is held once.
func TestJournalHasOneOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.log")
	first := &journal{clock: systemClock{}, path: path, file: new(sink)}
	second := &journal{clock: systemClock{}, path: path, file: new(sink)}
	if _, err := first.Write([]byte("line\n")); !errors.Is(err, errNotOwned) {
		t.Errorf("wrote without owning: %v", err)
	}
	must(t, first.own())
	if second.own() == nil {
		t.Error("two own the journal")
	}
	id, err := first.nodeID(rand.Reader)
	must(t, err)
	again, err := second.nodeID(rand.Reader)
	must(t, err)
	equal(t, id, again, "node")
	must(t, os.WriteFile(filepath.Join(filepath.Dir(path), "node"), []byte("nobody"), 0o600))
	if _, err := first.nodeID(rand.Reader); err == nil {
		t.Error("took a node without an id")
	}
}

// TestRotation: a full file is set aside whole, and no line is lost or split.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	w := &JournalWriter{Filename: filepath.Join(dir, "journal.log"), RollBytes: 1000}
	must(t, w.Provision(caddy.Context{}))
	process, _ := replaceProcess(t)
	opened, err := w.OpenWriter()
	must(t, err)
	must(t, process.journal.Load().own())
	for i := range 200 {
		_, err := fmt.Fprintf(opened, "line %03d %s\n", i, strings.Repeat("x", 90))
		must(t, err)
	}
	must(t, opened.Close())
	files, err := filepath.Glob(filepath.Join(dir, "journal*.log"))
	must(t, err)
	equal(t, 20, len(files), "files") // 10 lines each
	seen := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		for line := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
			equal(t, 99, len(line), line)
			seen[line] = true
		}
	}
	equal(t, 200, len(seen), "lines")
	other := &JournalWriter{Filename: filepath.Join(dir, "other.log")}
	must(t, other.Provision(caddy.Context{}))
	if _, err := other.OpenWriter(); err == nil {
		t.Error("the journal moved while the process runs")
	}
}
