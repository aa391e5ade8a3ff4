package vault

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
)

// TestNoTextOnDisk: nothing in the spool holds the text, and only its owner may read it or enter.
func TestNoTextOnDisk(t *testing.T) {
	w := newWorld(t)
	w.watch()
	w.keep("canary in the prompt", "canary in the answer")
	files, err := os.ReadDir(w.settings.Spool)
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(w.settings.Spool, file.Name()))
		must(t, err)
		equal(t, false, bytes.Contains(text, []byte("canary")), file.Name())
		info, err := file.Info()
		must(t, err)
		equal(t, os.FileMode(0o600), info.Mode().Perm(), file.Name())
	}
	equal(t, 2, len(files), "files: the lock and what is handed over")
	folder, err := os.Stat(w.settings.Spool)
	must(t, err)
	equal(t, os.FileMode(0o700), folder.Mode().Perm(), "the folder")
}

// TestSegments: a file is handed over once it is so large, without waiting for the next look.
func TestSegments(t *testing.T) {
	w := newWorld(t)
	w.watch()
	for range 2 * segmentBytes / w.settings.EntryBytes {
		entry := w.Open(Meta{requestID, tenantID, keyID, start, start.Add(time.Hour)})
		entry.Prompt(make([]byte, w.settings.EntryBytes))
		entry.Close()
	}
	w.Flush(time.Minute)
	ready := must2(filepath.Glob(filepath.Join(w.settings.Spool, "*"+readySuffix)))
	equal(t, true, len(ready) > 1, "more than one file")
	for _, path := range ready {
		info := must2(os.Stat(path))
		equal(t, true, info.Size() < segmentBytes+2*PieceBytes, "a file is bounded")
	}
}

// TestTornLine: what a full disk cuts off is taken back, so that the line after it is whole.
func TestTornLine(t *testing.T) {
	s := spool{dir: filepath.Join(t.TempDir(), "spool"), most: 1 << 20}
	must(t, s.write([]byte("first\n"), start))
	signal.Ignore(syscall.SIGXFSZ)
	var former syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &former))
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 9, Max: former.Max}))
	err := s.write([]byte("second\n"), start)
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &former))
	equal(t, true, errors.Is(err, syscall.EFBIG), "refused")
	must(t, s.write([]byte("third\n"), start))
	equal(t, "first\nthird\n", string(must2(os.ReadFile(s.file.Name()))), "what is there")
}

// TestSpoolFull: beyond its bound pieces are dropped and counted; there is room again once metering
// has taken some.
func TestSpoolFull(t *testing.T) {
	w := newWorld(t)
	w.settings.SpoolBytes = 3 * PieceBytes
	w.watch()
	for range 3 {
		w.keep(strings.Repeat("p", PieceBytes))
	}
	equal(t, true, w.Lost() > 0, "lost")
	w.look()
	w.look() // the one before has been done
	lost := w.Lost()
	w.keep(strings.Repeat("p", PieceBytes))
	equal(t, true, w.Lost() > lost, "what metering has not taken is counted, however often the worker looks")
	lost = w.Lost()
	ready, _ := filepath.Glob(filepath.Join(w.settings.Spool, "*"+readySuffix))
	for _, path := range ready {
		must(t, os.Remove(path))
	}
	w.look()
	w.keep("room")
	equal(t, lost, w.Lost(), "lost")
	equal(t, "room", w.open(t)[prompt].text, "kept")
}

// TestDiskFull: a disk that takes nothing loses pieces, and nothing waits.
func TestDiskFull(t *testing.T) {
	w := newWorld(t)
	must(t, os.WriteFile(w.settings.Spool, nil, 0o600)) // no folder can be made there
	w.watch()
	w.keep("prompt", "answer")
	equal(t, 1, w.Lost(), "lost")
	must(t, os.Remove(w.settings.Spool))
	w.keep("prompt", "answer")
	equal(t, opened{"prompt", 1, isLast}, w.open(t)[prompt], "prompt")
}

// TestCrash: what a process has left is handed over by the next one; a torn line is passed over.
func TestCrash(t *testing.T) {
	w := newWorld(t)
	w.watch()
	w.keep("whole")
	ready, _ := filepath.Glob(filepath.Join(w.settings.Spool, "*"+readySuffix))
	text, err := os.ReadFile(ready[0])
	must(t, err)
	part := strings.TrimSuffix(ready[0], readySuffix) + partSuffix
	must(t, os.WriteFile(part, append(text, text[:len(text)/3]...), 0o600))
	must(t, os.Remove(ready[0]))

	other := New(w.now, w.after, rand.Reader)
	other.Watch(w.settings, zap.NewNop())
	next := &world{Vault: other, settings: w.settings, public: w.public, private: w.private}
	next.keepAs(tenantID, "")
	equal(t, true, other.Lost() > 0, "while the first process has the folder the second keeps nothing")
	equal(t, 0, len(must2(filepath.Glob(ready[0]))), "nor hands over")

	must(t, w.spool.lock.Close())
	next.keepAs(tenantID, "")
	equal(t, "whole", next.open(t)[prompt].text, "handed over")
}
