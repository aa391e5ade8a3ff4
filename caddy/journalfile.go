package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/uuid"
	"go.uber.org/zap"
)

const (
	// rotatedAt is how the name of a rotated file says when that was.
	rotatedAt = "2006-01-02T15-04-05.000"

	// lastLineFormat is how the lock keeps the number of the last line, of one length always.
	lastLineFormat = "%s %020d\n"
)

// own takes the journal: its lock, which no other process may hold (two would number their
// lines into one file, and rotate it under each other), the id of the node, and the file.
// It returns the last line of the process that had it before, nil if that is not known.
func (j *journal) own(random io.Reader) (last *lastLine, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.takeLock(); err != nil {
		return nil, err
	}
	last = j.readLast()
	if err := j.takeNode(random); err != nil {
		return nil, err
	}
	return last, j.takeFile()
}

// takeLock takes the lock, in a folder that is made if there is none, unless it is ours. The
// caller holds j.mu.
func (j *journal) takeLock() error {
	if err := os.MkdirAll(filepath.Dir(j.path), 0o700); err != nil {
		return err
	}
	if j.lock != nil && isAt(j.lock, j.lockPath()) {
		return nil
	}
	lock, err := os.OpenFile(j.lockPath(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return fmt.Errorf("another process writes the journal %s: %w", j.path, err)
	}
	if j.lock != nil {
		_ = j.lock.Close()
	}
	j.lock = lock
	return nil
}

func (j *journal) lockPath() string { return j.path + ".lock" }

// takeNode reads the id of the node, which stands in a file beside its journal: a node is the
// place where a journal is, whatever its host or address are called. Where there is none it
// writes one, whole or not at all. The caller holds j.mu.
func (j *journal) takeNode(random io.Reader) error {
	path := filepath.Join(filepath.Dir(j.path), "node")
	text, err := os.ReadFile(path) //nolint:gosec // beside the journal
	if errors.Is(err, os.ErrNotExist) {
		text, err = j.writeNode(path, random)
	}
	if err != nil {
		return err
	}
	id, err := uuid.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%s does not hold the id of a node: %w", path, err)
	}
	j.node = id.String()
	return nil
}

// writeNode writes the id of the node, a new one if it has none.
func (j *journal) writeNode(path string, random io.Reader) ([]byte, error) {
	text := []byte(j.node)
	if j.node == "" {
		id, err := uuid.NewRandomFromReader(random)
		if err != nil {
			return nil, err
		}
		text = []byte(id.String())
	}
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return nil, err
	}
	return text, os.Rename(path+".new", path)
}

// takeFile opens the file at the path, as it was left by another process, or new. The caller
// holds j.mu.
func (j *journal) takeFile() error {
	// It is appended to, whatever others do with it.
	file, err := os.OpenFile(j.path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	j.file, j.safe = file, 0
	return j.inspectEnd()
}

// inspectEnd finds out how long the file is, and whether its last line is a torn one. The
// caller holds j.mu.
func (j *journal) inspectEnd() error {
	info, err := j.file.Stat()
	if err != nil {
		return err
	}
	j.size, j.day, j.isTorn = info.Size(), max(j.day, dayOf(info.ModTime())), false
	if j.size == 0 {
		return nil
	}
	var last [1]byte
	_, err = j.file.ReadAt(last[:], j.size-1)
	j.isTorn = last[0] != '\n'
	return err
}

// rotate sets the file aside and begins a new one. The caller holds j.mu.
func (j *journal) rotate() error {
	if !isAt(j.file, j.path) {
		return errMoved
	}
	extension := filepath.Ext(j.path)
	var aside string
	for at := j.clock.now().UTC(); ; at = at.Add(time.Millisecond) {
		aside = strings.TrimSuffix(j.path, extension) + "-" + at.Format(rotatedAt) + "-size" + extension
		if _, err := os.Lstat(aside); errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	if err := os.Rename(j.path, aside); err != nil {
		return err
	}
	old := j.file
	j.file = nil
	if err := j.takeFile(); err != nil {
		j.file = old
		return err
	}
	go func() {
		_ = old.Sync()
		_ = old.Close()
	}()
	return nil
}

// look makes sure that what is written to is what is at the path, and tries to open the
// doors if they are closed. whole returns the number up to which all lines have been
// written; resume returns the line that says so in the file that takes the place of a lost
// one.
func (j *journal) look(whole func() uint64, resume func(whole uint64) []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	number := whole()
	switch {
	case !isAt(j.lock, j.lockPath()) || !isAt(j.file, j.path):
		if !j.replace(resume) {
			return
		}
	case j.isCut():
		// What is left comes before this line: the rest, up to here, is lost.
		_ = j.inspectEnd()
		j.holdFirst(resume(number))
		j.release()
	case j.isClosed.Load():
		j.probe()
	}
	j.safe, j.whole = j.size, number
	j.writeLast(number)
}

// replace begins a new file in place of one that is not at its path any more. It begins with
// all that was written since the last look: who removed the file may have done so before.
// The caller holds j.mu.
func (j *journal) replace(resume func(whole uint64) []byte) bool {
	since := j.written()
	whole := j.whole
	err := j.takeLock()
	if err == nil {
		err = j.takeNode(nil)
	}
	if err == nil {
		err = j.takeFile()
	}
	if err != nil {
		if !j.isClosed.Swap(true) {
			caddy.Log().Named(ownLogger).Error(
				"the journal can't be opened again: requests are refused until it can",
				zap.String("path", j.path), zap.Error(err))
		}
		return false
	}
	j.holdFirst(resume(whole), since)
	j.release()
	return true
}

// written returns what was written since the last look. The caller holds j.mu.
func (j *journal) written() []byte {
	since := make([]byte, max(0, j.size-j.safe))
	n, _ := j.file.ReadAt(since, j.safe)
	return since[:n]
}

// holdFirst holds lines that come before all others, and counts that the file was lost. The
// first of them has a number of its own. The caller holds j.mu.
func (j *journal) holdFirst(lines ...[]byte) {
	lines = append(lines[:0:0], lines...)
	for _, line := range lines {
		j.kept += len(line)
	}
	j.held = append(lines, j.held...)
	j.lines.Add(1)
	j.reopened.Add(1)
	caddy.Log().Named(ownLogger).Error("the journal was moved, removed or cut, and is written on in a new file",
		zap.String("path", j.path))
}

// isCut reports whether the file is shorter than what was written to it. The caller holds
// j.mu.
func (j *journal) isCut() bool {
	info, err := j.file.Stat()
	return err == nil && info.Mode().IsRegular() && info.Size() < j.size
}

// isAt reports whether an open file is the one at a path.
func isAt(file *os.File, path string) bool {
	ours, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(ours, there)
}

// sync forces what was written to the disk. A disk that fails closes the doors; what can't
// be forced, such as a device, is left alone.
func (j *journal) sync() {
	j.mu.Lock()
	file, isDirty := j.file, j.isDirty
	j.isDirty = false
	j.mu.Unlock()
	if !isDirty {
		return
	}
	err := file.Sync()
	for _, harmless := range []error{os.ErrClosed, syscall.EINVAL, syscall.ENOTSUP} {
		if errors.Is(err, harmless) {
			return
		}
	}
	if err != nil && !j.isClosed.Swap(true) {
		caddy.Log().Named(ownLogger).Error("the disk does not take the journal", zap.Error(err))
	}
}

// writeLast keeps in the lock how far this process has written: should the end of the journal
// be lost, the next boot line says how much that was. The caller holds j.mu.
func (j *journal) writeLast(number uint64) {
	_, _ = j.lock.WriteAt(fmt.Appendf(nil, lastLineFormat, j.boot, number), 0)
}

// readLast returns what another process has kept in the lock. The caller holds j.mu.
func (j *journal) readLast() *lastLine {
	text, err := io.ReadAll(io.NewSectionReader(j.lock, 0, 1<<10))
	var last lastLine
	if err != nil {
		return nil
	}
	if _, err := fmt.Fscanf(bytes.NewReader(text), lastLineFormat, &last.Boot, &last.Seq); err != nil {
		return nil
	}
	return &last
}
