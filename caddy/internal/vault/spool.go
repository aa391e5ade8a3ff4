package vault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	partSuffix  = ".part"  // of the file that is written
	readySuffix = ".ready" // of one that is read and removed by metering
	lockName    = "lock"

	segmentBytes = 4 << 20
)

var errSpoolFull = errors.New("the spool is full")

// spool is a folder of files of sealed pieces, of which one process writes one and metering reads
// the others. Only the worker of the vault uses it.
type spool struct {
	dir  string
	most int64 // bytes of all files

	lock *os.File // nil until the folder is ours
	file *os.File // nil while there is nothing in it
	size int64    // of file
	used int64    // of all files, when they were looked at last, and what came since
}

// take makes the folder ours, and hands over what another process has left.
func (s *spool) take() error {
	if s.lock != nil {
		return nil
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(s.dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return fmt.Errorf("another process writes prompts into %s: %w", s.dir, err)
	}
	s.lock = lock
	left, _ := filepath.Glob(filepath.Join(s.dir, "*"+partSuffix))
	for _, path := range left {
		_ = os.Rename(path, strings.TrimSuffix(path, partSuffix)+readySuffix)
	}
	return nil
}

// write appends lines, all of them or none.
func (s *spool) write(lines []byte, now time.Time) error {
	if s.used+int64(len(lines)) > s.most {
		return errSpoolFull
	}
	if err := s.begin(now); err != nil {
		return err
	}
	n, err := s.file.Write(lines)
	if err != nil {
		// What is torn all the same is no line of JSON, and metering passes over it.
		_ = s.file.Truncate(s.size)
		return err
	}
	s.size += int64(n)
	s.used += int64(n)
	if s.size >= segmentBytes {
		return s.handOver()
	}
	return nil
}

// begin opens the file that is written, unless it is open.
func (s *spool) begin(now time.Time) error {
	if s.file != nil {
		return nil
	}
	if err := s.take(); err != nil {
		return err
	}
	const how = os.O_CREATE | os.O_EXCL | os.O_APPEND | os.O_WRONLY
	file, err := os.OpenFile(s.free(now)+partSuffix, how, 0o600)
	if err != nil {
		return err
	}
	s.file, s.size = file, 0
	return nil
}

// free returns a path that no file has, but for its suffix; the names are in the order of time.
func (s *spool) free(now time.Time) string {
	for at := now.UnixNano(); ; at++ {
		path := filepath.Join(s.dir, fmt.Sprintf("%020d", at))
		if _, err := os.Lstat(path + readySuffix); err != nil {
			return path
		}
	}
}

// handOver closes the file that is written, and lets metering read it.
func (s *spool) handOver() error {
	if s.file == nil {
		return nil
	}
	path := s.file.Name()
	err := s.file.Close()
	s.file = nil
	return errors.Join(err, os.Rename(path, strings.TrimSuffix(path, partSuffix)+readySuffix))
}

// use writes into a folder from now on, "" for none, and counts what metering has left of its files.
func (s *spool) use(dir string, most int64) error {
	if s.dir != dir && s.lock != nil {
		_ = s.lock.Close()
		s.lock = nil
	}
	s.dir, s.most, s.used = dir, most, 0
	if dir == "" {
		return nil
	}
	if err := s.take(); err != nil {
		return err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		if info, err := file.Info(); err == nil {
			s.used += info.Size()
		}
	}
	return nil
}
