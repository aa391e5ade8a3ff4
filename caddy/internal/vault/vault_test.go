package vault

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/nacl/box"
)

const (
	requestID = "019ab5c0-1c00-7000-8000-000000000001"
	tenantID  = "5f64c1de-6a27-4a35-8f43-5f7b6f3a2c11"
	keyID     = "b2b1f9a0-52a5-4c2a-9f0f-1c8ad6a3b8a1"
)

var start = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// world is a vault, the time that passes in it, and who has the private key.
type world struct {
	*Vault

	settings        Settings
	ticks           chan time.Time // the worker looks whenever one is sent
	public, private *[32]byte
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	public, private, err := box.GenerateKey(rand.Reader)
	must(t, err)
	w := &world{
		ticks: make(chan time.Time), public: public, private: private,
		settings: Settings{filepath.Join(dir, "spool"), filepath.Join(dir, "vault.pub"), 1 << 20, 1 << 24},
	}
	after := func(d time.Duration) <-chan time.Time {
		if d == lookEvery {
			return w.ticks
		}
		return time.After(d)
	}
	w.Vault = New(func() time.Time { return start }, after, rand.Reader)
	writeKey(t, w.settings.PublicKeys, public)
	return w
}

func writeKey(t *testing.T, path string, keys ...*[32]byte) {
	t.Helper()
	var text strings.Builder
	for _, key := range keys {
		text.WriteString(publicPrefix + base64.StdEncoding.EncodeToString(key[:]) + "\n")
	}
	must(t, os.WriteFile(path, []byte(text.String()), 0o600))
}

func (w *world) watch() { w.Watch(w.settings, zap.NewNop()) }

// look has the worker look, once it has kept what was sent before.
func (w *world) look() { w.ticks <- start }

// keep keeps a request and its answer.
func (w *world) keep(prompt string, answers ...string) {
	w.keepAs(requestID, prompt, answers...)
}

func (w *world) keepAs(id, prompt string, answers ...string) {
	entry := w.Open(Meta{id, tenantID, keyID, start, start.Add(time.Hour)})
	entry.Prompt([]byte(prompt))
	for _, each := range answers {
		entry.Answer([]byte(each))
	}
	entry.Close()
	w.Flush(time.Minute)
}

// opened is a text as it comes out of the spool.
type opened struct {
	text   string
	pieces int
	ends   flags
}

// open opens what has been handed over, in its order, and checks what each piece is bound to.
func (w *world) open(t *testing.T) (texts [2]opened) {
	t.Helper()
	ready, err := filepath.Glob(filepath.Join(w.settings.Spool, "*"+readySuffix))
	must(t, err)
	for _, path := range ready {
		text, err := os.ReadFile(path)
		must(t, err)
		for each := range bytes.Lines(text) {
			var l line
			if json.Unmarshal(each, &l) != nil || l.ID != requestID {
				continue // torn, or of another request
			}
			plain, ok := box.OpenAnonymous(nil, l.Box, w.public, w.private)
			if !ok {
				t.Fatal("a piece can't be opened")
			}
			found, isBoth := &texts[l.Direction%uint8(both)], l.Direction == uint8(both)
			head := []byte{'N', 'Z', 'P', '1', 15: 0}
			copy(head[4:], []byte{0x01, 0x9a, 0xb5, 0xc0, 0x1c, 0, 0x70, 0, 0x80, 0, 0, 0})
			equal(t, string(head), string(plain[:16]), "magic and id")
			equal(t, [2]byte{l.Direction, l.Flags}, [2]byte(plain[36:38]), "direction and flags")
			equal(t, []byte{0, 0, 0, byte(found.pieces)}, plain[38:headBytes], "index")
			equal(t, uint32(found.pieces), l.Index, "index outside")
			equal(t, start.Add(time.Hour).Unix(), l.Expires, "expiry")
			if isBoth {
				content, length := plain[headBytes:len(plain)-lengthBytes], binary.BigEndian.Uint32(plain[len(plain)-lengthBytes:])
				texts = [2]opened{{string(content[:length]), 1, flags(l.Flags)}, {string(content[length:]), 1, flags(l.Flags)}}
				continue
			}
			found.text += string(plain[headBytes:])
			found.pieces++
			found.ends |= flags(l.Flags)
		}
	}
	return texts
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, want, got any, what string) {
	t.Helper()
	if a, b := fmt.Sprint(want), fmt.Sprint(got); a != b {
		t.Errorf("%s: want %s, got %s", what, a, b)
	}
}

// TestPieces: what is opened is what was kept, in pieces of one size, and each end is said.
func TestPieces(t *testing.T) {
	for _, size := range []int{0, 1, PieceBytes - 1, PieceBytes, PieceBytes + 1, 3 * PieceBytes} {
		w := newWorld(t)
		w.watch()
		text := strings.Repeat("ab", size/2) + strings.Repeat("c", size%2)
		w.keep(text, "first", text)
		found := w.open(t)
		if found[prompt].text != text || found[answer].text != "first"+text {
			t.Errorf("%d bytes: not what was kept", size)
		}
		equal(t, isLast, found[prompt].ends, "prompt's end")
		equal(t, isLast, found[answer].ends, "answer's end")
		equal(t, max(1, (size+PieceBytes-1)/PieceBytes), found[prompt].pieces, "pieces")
		equal(t, 0, w.Lost(), "lost")
		equal(t, 0, w.lent.Load(), "lent")
	}
}

// TestNoTextOnDisk: nothing in the spool holds the text, and only its owner may read it.
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
}

// TestLongRequest: the prompt of a request that runs on does not wait for the end of its answer.
func TestLongRequest(t *testing.T) {
	w := newWorld(t)
	w.watch()
	entry := w.Open(Meta{requestID, tenantID, keyID, start.Add(-heldFor), start.Add(time.Hour)})
	entry.Prompt([]byte("prompt"))
	entry.Answer([]byte("an "))
	w.Flush(time.Minute)
	equal(t, 0, w.open(t)[prompt].pieces, "pieces before its time")
	entry.of.At = start.Add(-2 * heldFor)
	entry.Answer([]byte("answer"))
	w.Flush(time.Minute)
	equal(t, opened{"prompt", 1, isLast}, w.open(t)[prompt], "prompt")
	entry.Close()
	w.Flush(time.Minute)
	equal(t, [2]opened{{"prompt", 1, isLast}, {"an answer", 1, isLast}}, w.open(t), "both")
	equal(t, 0, w.lent.Load(), "lent")
}

// TestCut: a text beyond the greatest size is kept up to it, and says so.
func TestCut(t *testing.T) {
	w := newWorld(t)
	w.settings.EntryBytes = PieceBytes + 100
	w.watch()
	w.keep(strings.Repeat("p", 2*PieceBytes), "short")
	found := w.open(t)
	equal(t, PieceBytes+100, len(found[prompt].text), "kept")
	equal(t, isLast|isCut, found[prompt].ends, "prompt")
	equal(t, opened{"short", 1, isLast}, found[answer], "answer")
	w.keep(strings.Repeat("p", PieceBytes+100))
	equal(t, 0, w.Lost(), "what is cut is not lost")
}

// TestNoMemory: beyond the pieces that are lent at most nothing waits: the text says that it ends early.
func TestNoMemory(t *testing.T) {
	w := newWorld(t)
	entry := func() *Entry { return w.Open(Meta{requestID, tenantID, keyID, start, start.Add(time.Hour)}) }
	equal(t, true, entry() == nil, "without a key")
	equal(t, 1, w.Lost(), "lost")
	key, err := readKeys(w.settings.PublicKeys)
	must(t, err)
	w.key.Store(&key[0])
	w.entryBytes.Store(1 << 30)
	running := entry()
	for range maxPieces/2 - 1 {
		if entry() == nil {
			t.Fatal("there is memory for it")
		}
	}
	equal(t, true, entry() == nil, "without memory")
	running.Prompt(make([]byte, 2*PieceBytes))
	running.Answer([]byte("an answer"))
	running.Close()
	equal(t, 3, w.Lost(), "lost")
	equal(t, isLast|isLost, (<-w.queue).ends, "prompt")
	equal(t, isLast, (<-w.queue).ends, "answer")
}

// TestSpoolFull: beyond its bound pieces are dropped and counted; there is room again once metering
// has taken some.
func TestSpoolFull(t *testing.T) {
	w := newWorld(t)
	w.settings.SpoolBytes = 3 * PieceBytes
	w.watch()
	w.keep(strings.Repeat("p", 10*PieceBytes))
	equal(t, true, w.Lost() > 0, "lost")
	w.look()
	lost := w.Lost()
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

func must2[T any](value T, _ error) T { return value }

// TestRotation: the first key of the file seals, from the next look on; without a file nothing is kept.
func TestRotation(t *testing.T) {
	w := newWorld(t)
	w.watch()
	former := *w
	public, private, err := box.GenerateKey(rand.Reader)
	must(t, err)
	writeKey(t, w.settings.PublicKeys, public, w.public)
	w.look()
	w.look() // the one before has been done
	w.public, w.private = public, private
	w.keep("new")
	equal(t, "new", w.open(t)[prompt].text, "opened with the new key")
	must(t, os.Remove(w.settings.PublicKeys))
	w.look()
	w.look()
	equal(t, true, former.Open(Meta{ID: requestID, Tenant: tenantID}) == nil, "without a key")
}

// TestKeyFiles: what is no public key is refused in one sentence, a private key with the reason.
func TestKeyFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault.pub")
	point := func(b ...byte) string { return publicPrefix + base64.StdEncoding.EncodeToString(b) }
	public, private, err := box.GenerateKey(rand.Reader)
	must(t, err)
	whole := point(public[:]...)
	for text, want := range map[string]string{
		"":                         "holds no public key",
		"ssh-ed25519 AAAA":         "holds no public key",
		whole[:len(whole)-2]:       "holds no public key",
		point(make([]byte, 32)...): "holds no public key", // of low order
		point(append([]byte{1}, make([]byte, 31)...)...):                             "holds no public key",
		strings.Repeat(whole+"\n", 3):                                                "more than two",
		strings.Repeat(whole+"\n", 1000):                                             "holds no public key",
		whole + "\n" + privatePrefix + base64.StdEncoding.EncodeToString(private[:]): "holds a private key, by which",
	} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if _, err := readKeys(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
		if (Settings{Spool: "there", PublicKeys: path}).Check() == nil {
			t.Errorf("%q is taken", text)
		}
	}
	must(t, os.WriteFile(path, []byte(whole+"\n"+whole+"\n"), 0o600))
	keys, err := readKeys(path)
	must(t, err)
	equal(t, 2, len(keys), "keys")
	keys, err = readKeys(path + ".none")
	equal(t, true, len(keys) == 0 && err == nil, "no file is no problem")
}
