package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// losses are ways in which a journal is lost while it is written.
var losses = map[string]func(path string) error{
	"rm": os.Remove,
	"mv": func(path string) error { return os.Rename(path, path+".old") },
	"replaced": func(path string) error {
		return errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, nil, 0o600))
	},
	"folder":       func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
	"folder moved": func(path string) error { return os.Rename(filepath.Dir(path), filepath.Dir(path)+".old") },
	"lock":         func(path string) error { return errors.Join(os.Remove(path), os.Remove(path+".lock")) },
}

// begun is a process that has a journal on a clock that stands still.
func begun(t *testing.T) (*state, *journal) {
	t.Helper()
	process, _ := replaceProcess(t)
	j := newJournal(t, new(disk))
	j.path = filepath.Join(filepath.Dir(j.path), "journal", "journal.log")
	process.journal.Store(j)
	process.once.Do(func() {}) // a test looks when it likes
	must(t, process.takeJournal(process.clock.now()))
	process.look()
	return process, j
}

// open writes a line as a request does that is about to run.
func (s *state) open(id string) error {
	return s.journal.Load().line(s.clock.now(), "open", openLine{
		V: version, ID: id, Node: s.node, Boot: s.boot, Seq: s.seq.Add(1),
	})
}

// numbered is what all of our own lines have.
type numbered struct {
	ID       string    `json:"id"`
	Node     string    `json:"node"`
	Boot     string    `json:"boot"`
	Seq      uint64    `json:"seq"`
	Previous *lastLine `json:"previous"`
}

// summary shows the lines of a journal: the numbers of boots, and up to which one nothing is
// missing before them; the ids of others.
func summary(t *testing.T, s *state, text string) string {
	t.Helper()
	var list []string
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		var l journalLine[numbered]
		must(t, json.Unmarshal([]byte(line), &l))
		equal(t, s.node, l.Content.Node, "node")
		equal(t, s.boot, l.Content.Boot, "boot")
		switch {
		case l.Msg != "boot":
			list = append(list, l.Content.ID)
		case l.Content.Previous == nil:
			list = append(list, "boot")
		default:
			equal(t, s.boot, l.Content.Previous.Boot, "boot before")
			list = append(list, fmt.Sprintf("boot:%d>%d", l.Content.Seq, l.Content.Previous.Seq))
		}
	}
	return strings.Join(list, " ")
}

// TestLostJournal: a journal that is not at its path any more is noticed at the next look.
// What was written since the last one is in the new file, which begins with the number up
// to which all was in the old one; the node stays the same, and no other process can take it.
func TestLostJournal(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			s, j := begun(t)
			must(t, s.open("a"))
			must(t, s.open("b"))
			s.look()
			must(t, lose(j.path))
			must(t, s.open("c"))
			s.look()
			must(t, s.open("d"))
			s.look()
			equal(t, "boot:4>2 c d", summary(t, s, written(t, j)), "lines")
			equal(t, 1, j.reopened.Load(), "times reopened")
			equal(t, s.seq.Load()+1, j.lines.Load(), "lines that have a number")
			text, err := os.ReadFile(filepath.Join(filepath.Dir(j.path), "node"))
			must(t, err)
			equal(t, s.node, strings.TrimSpace(string(text)), "node")
			if _, err := (&journal{clock: j.clock, path: j.path, write: j.write}).own(s.random); err == nil {
				t.Error("another process owns the journal as well")
			}
		})
	}
}

// TestJournalLostTwice: a file that is lost before anything was seen in it loses nothing.
func TestJournalLostTwice(t *testing.T) {
	s, j := begun(t)
	must(t, s.open("a"))
	must(t, os.Remove(j.path))
	s.look()
	must(t, s.open("b"))
	must(t, os.Remove(j.path))
	s.look()
	equal(t, "boot:4>1 b", summary(t, s, written(t, j)), "lines")
}

// TestCutJournal: a journal that was cut is written on behind what is left, and says up to
// which number all that is missing is lost.
func TestCutJournal(t *testing.T) {
	for name, test := range map[string]struct {
		size int64
		want string
	}{"emptied": {0, "c boot:4>3 d"}, "cut in a line": {300, ""}} {
		t.Run(name, func(t *testing.T) {
			s, j := begun(t)
			must(t, s.open("a"))
			must(t, s.open("b"))
			s.look()
			must(t, os.Truncate(j.path, test.size))
			if test.want == "" {
				s.look()
				text := written(t, j)
				equal(t, "boot:3>2", summary(t, s, text[strings.LastIndex(strings.TrimSpace(text), "\n")+1:]), "the last line")
				return
			}
			must(t, s.open("c"))
			s.look()
			must(t, s.open("d"))
			equal(t, test.want, summary(t, s, written(t, j)), "lines")
		})
	}
}

// TestJournalThatCannotBeReplaced: while no new file can be made nothing runs, and what had
// run is written as soon as one can.
func TestJournalThatCannotBeReplaced(t *testing.T) {
	s, j := begun(t)
	folder := filepath.Dir(j.path)
	must(t, os.RemoveAll(folder))
	must(t, os.WriteFile(folder, nil, 0o600))
	must(t, s.open("a"))
	s.look()
	equal(t, false, s.isOpen(), "doors open")
	if s.open("b") == nil {
		t.Error("a line went nowhere")
	}
	s.look()
	must(t, os.Remove(folder))
	s.look()
	equal(t, true, s.isOpen(), "doors open")
	equal(t, "boot:3>0 a b", summary(t, s, written(t, j)), "lines")
}

// TestFullJournalThatWasMoved: a file that is due to be set aside, and is not at its path, is
// replaced and not another one set aside.
func TestFullJournalThatWasMoved(t *testing.T) {
	s, j := begun(t)
	j.roll = 400
	must(t, os.Rename(j.path, j.path+".old"))
	must(t, os.WriteFile(j.path, []byte("not ours\n"), 0o600))
	if s.open("a") == nil {
		t.Error("a file of others was set aside")
	}
	j.roll = 0
	s.look()
	equal(t, "boot:2>0 a", summary(t, s, strings.TrimPrefix(written(t, j), "not ours\n")), "lines")
}

// TestLastLineOutlivesItsFile: the first line of a process names the last one of the process
// before, though its file was removed.
func TestLastLineOutlivesItsFile(t *testing.T) {
	s, j := begun(t)
	must(t, s.open("a"))
	must(t, s.open("b"))
	s.look()
	must(t, j.lock.Close()) // as the kernel does when a process ends
	must(t, os.Remove(j.path))
	last := owned(t, &journal{clock: j.clock, path: j.path, write: j.write})
	equalJSON(t, &lastLine{s.boot, 2}, last, "last line")
}

// TestRotationAndLoss: a file that was set aside in time is not written again.
func TestRotationAndLoss(t *testing.T) {
	s, j := begun(t)
	j.roll = 1100
	for _, id := range []string{"a", "b", "c", "d"} {
		must(t, s.open(id))
	}
	must(t, os.Remove(j.path))
	s.look()
	asides, err := filepath.Glob(filepath.Join(filepath.Dir(j.path), "journal-*-size.log"))
	must(t, err)
	var all strings.Builder
	for _, path := range append(asides, j.path) {
		text, err := os.ReadFile(path)
		must(t, err)
		all.Write(text)
	}
	equal(t, "boot a b boot:5>0 c d", summary(t, s, all.String()), "lines")
}
