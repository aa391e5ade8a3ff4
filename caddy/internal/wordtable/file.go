package wordtable

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// maxFileBytes bounds what is read; the largest table in use has 5 MB.
const maxFileBytes = 64 << 20

// Save writes the table, whole or not at all.
func (t *Table) Save(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // where it was not renamed
	t.putFraming()
	sum := sha256.Sum256(t.data)
	for _, part := range [][]byte{t.data, sum[:]} {
		if _, err = f.Write(part); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if err = errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// putFraming writes the framing into the header.
func (t *Table) putFraming() {
	at := len(magic) + 4*4
	f := t.Framing
	for i, tokens := range [...]int{f.Base, f.Tools, f.PerMessage, f.SystemText, f.Image} {
		binary.LittleEndian.PutUint32(t.data[at+4*i:], uint32(tokens)) //nolint:gosec // setFraming clamps them
	}
}

// errDamaged is a file that Save has not written.
var errDamaged = errors.New("the file of the table is damaged")

// Open reads a table that Save has written. It is read, not mapped: once a mapped file is cut
// short, by whatever shares its folder, a look at it ends the process.
func Open(path string) (*Table, error) {
	f, err := os.Open(path) //nolint:gosec // in the folder of the tables, which the operator sets
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size()
	if size < int64(fixedBytes+sumBytes) || size > maxFileBytes {
		return nil, errDamaged
	}
	data := make([]byte, size)
	if _, err = io.ReadFull(f, data); err != nil {
		return nil, errors.Join(errDamaged, err)
	}
	if !isWhole(data) {
		return nil, errDamaged
	}
	return view(data[:len(data)-sumBytes]), nil
}

// isWhole reports whether the bytes are those of a table of this version.
func isWhole(data []byte) bool {
	body := data[:len(data)-sumBytes]
	sum := sha256.Sum256(body)
	if !bytes.HasPrefix(data, []byte(magic)) || !bytes.Equal(sum[:], data[len(body):]) {
		return false
	}
	number := func(i int) int { return int(binary.LittleEndian.Uint32(data[len(magic)+4*i:])) }
	size := fixedBytes + 2*number(1) + 4*number(2) + number(3)
	if number(0)&flagMerges != 0 {
		size += idsBytes(number(0)&flagSPM != 0) + 4*number(9) + 8*number(10)
	}
	return len(body) == size
}
