package gateway

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// disk has files that can be full.
type disk struct {
	mu   sync.Mutex
	room int // bytes that still fit, if isFull
	// isFull: what does not fit is cut off.
	isFull bool
}

// fill leaves room for so many bytes.
func (d *disk) fill(room int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.isFull, d.room = true, room
}

// empty makes room for everything.
func (d *disk) empty() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.isFull = false
}

// write writes what fits into a file.
func (d *disk) write(file *os.File, p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isFull && len(p) > d.room {
		n, _ := file.Write(p[:d.room])
		d.room = 0
		return n, errors.New("no space left on device")
	}
	return file.Write(p)
}

// newJournal is a journal on a disk, which no process owns yet.
func newJournal(t testing.TB, d *disk) *journal {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.log")
	return &journal{clock: newManualClock(), path: path, write: d.write}
}

// owned takes a journal.
func owned(t testing.TB, j *journal) *lastLine {
	t.Helper()
	last, err := j.own(rand.Reader)
	must(t, err)
	return last
}

// written is what is in the file of a journal.
func written(t testing.TB, j *journal) string {
	t.Helper()
	text, err := os.ReadFile(j.path)
	must(t, err)
	return string(text)
}

// lookAt looks after a journal of which nothing is known.
func lookAt(j *journal) {
	j.look(func() uint64 { return 0 }, func(whole uint64) []byte { return fmt.Appendf(nil, "resumed %d\n", whole) })
}

// TestFullJournal: a failed write closes the doors; a look opens them as soon as there is
// room, and nothing that was written meanwhile is lost.
func TestFullJournal(t *testing.T) {
	d := new(disk)
	j := newJournal(t, d)
	owned(t, j)
	d.fill(5)
	if _, err := j.Write([]byte("first\n")); err == nil {
		t.Fatal("wrote on a full disk")
	}
	if _, err := j.Write([]byte("second\n")); err == nil {
		t.Error("the doors were open")
	}
	lookAt(j)
	equal(t, true, j.isClosed.Load(), "doors closed")
	d.empty()
	lookAt(j)
	equal(t, false, j.isClosed.Load(), "doors closed")
	_, err := j.Write([]byte("third\n"))
	must(t, err)
	var lines []string
	for line := range strings.SplitSeq(written(t, j), "\n") {
		if strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	equal(t, "first,first,second,third", strings.Join(lines, ","), "lines") // the first is torn
}

// TestTornEnd: what a crash has left of a line does not swallow the next one.
func TestTornEnd(t *testing.T) {
	j := newJournal(t, new(disk))
	must(t, os.WriteFile(j.path, []byte("whole\ntor"), 0o600))
	must(t, os.Chtimes(j.path, j.clock.now(), j.clock.now()))
	owned(t, j)
	_, err := j.Write([]byte("next\n"))
	must(t, err)
	equal(t, "whole\ntor\nnext\n", written(t, j), "written")
}

// TestHeldIsBounded: a journal that stays full does not fill the memory.
func TestHeldIsBounded(t *testing.T) {
	j := newJournal(t, new(disk))
	owned(t, j)
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

// TestStartOnAFullDisk: a Caddy that starts while the disk is full lives on behind closed
// doors, and writes that it has started as soon as it can, without being asked.
func TestStartOnAFullDisk(t *testing.T) {
	d := new(disk)
	d.fill(0)
	process, c := replaceProcess(t)
	j := newJournal(t, d)
	process.journal.Store(j)
	must(t, process.begin())
	equal(t, false, process.isOpen(), "doors open")
	d.empty()
	eventually(t, "the process waits for the next look", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.timers) > 0
	})
	c.advance(lookEvery)
	eventually(t, "the doors open", process.isOpen)
	equal(t, 1, strings.Count(written(t, j), `"msg":"boot"`), "boot lines")
}

// TestJournalHasOneOwner: nothing is written without the lock, which is held once.
func TestJournalHasOneOwner(t *testing.T) {
	first := newJournal(t, new(disk))
	second := &journal{clock: first.clock, path: first.path, write: first.write}
	if _, err := first.Write([]byte("line\n")); !errors.Is(err, errNotOwned) {
		t.Errorf("wrote without owning: %v", err)
	}
	owned(t, first)
	if _, err := second.own(rand.Reader); err == nil {
		t.Error("two own the journal")
	}
	must(t, second.takeNode(rand.Reader))
	equal(t, first.node, second.node, "node")
	must(t, os.WriteFile(filepath.Join(filepath.Dir(first.path), "node"), []byte("nobody"), 0o600))
	if second.takeNode(rand.Reader) == nil {
		t.Error("took a node without an id")
	}
}

// TestRotation: a full file is set aside whole, and no line is lost or split, at whatever
// pace the files become full.
func TestRotation(t *testing.T) {
	j := newJournal(t, new(disk))
	j.roll = 1000
	owned(t, j)
	for i := range 200 {
		_, err := fmt.Fprintf(j, "line %03d %s\n", i, strings.Repeat("x", 90))
		must(t, err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(j.path), "journal*.log"))
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
}

// TestOneJournal: a process has one journal, whatever a reload says.
func TestOneJournal(t *testing.T) {
	replaceProcess(t)
	dir := t.TempDir()
	open := func(name string) error {
		w := &JournalWriter{Filename: filepath.Join(dir, name)}
		ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
		defer cancel()
		must(t, w.Provision(ctx))
		_, err := w.OpenWriter()
		return err
	}
	must(t, open("journal.log"))
	must(t, open("journal.log"))
	if open("other.log") == nil {
		t.Error("the journal moved while the process runs")
	}
}

// TestJournalBeginsAnewEachDay: a file has lines of one day, so that one which is days old can be
// removed with the addresses in it; also one that another process has left.
func TestJournalBeginsAnewEachDay(t *testing.T) {
	j := newJournal(t, new(disk))
	c := newManualClock()
	j.clock = c
	files := func() int {
		found, err := filepath.Glob(filepath.Join(filepath.Dir(j.path), "journal*.log"))
		must(t, err)
		return len(found)
	}
	write := func() {
		_, err := j.Write([]byte("{}\n"))
		must(t, err)
	}
	owned(t, j)
	write()
	c.advance(time.Duration(secondsPerDay-c.now().Unix()%secondsPerDay)*time.Second - time.Second)
	write()
	equal(t, 1, files(), "on one day")
	c.advance(time.Second)
	write()
	write()
	equal(t, 2, files(), "on two days")
	c.advance(72 * time.Hour)
	yesterday := c.now().Add(-24 * time.Hour)
	must(t, os.Chtimes(j.path, yesterday, yesterday))
	left := &journal{clock: c, path: j.path, write: j.write}
	must(t, j.lock.Close())
	owned(t, left)
	_, err := left.Write([]byte("{}\n"))
	must(t, err)
	equal(t, 3, files(), "after another process")
	text, err := os.ReadFile(j.path)
	must(t, err)
	equal(t, "{}\n", string(text), "the newest file")
}
