package vault

import (
	"strings"
	"testing"
	"time"
)

// TestPieces: what is opened is what was kept, in pieces of one size, and each end is said.
func TestPieces(t *testing.T) {
	for _, size := range []int{0, 1, PieceBytes / 2, PieceBytes - 1, PieceBytes, PieceBytes + 1, 3 * PieceBytes} {
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

// TestForgotten: the memory of a piece that was kept holds its text no longer.
func TestForgotten(t *testing.T) {
	w := newWorld(t)
	p := w.take()
	p.content = append(p.content, "secret"...)
	held := p.content
	w.giveBack(p)
	equal(t, string(make([]byte, len("secret"))), string(held), "memory")
}
