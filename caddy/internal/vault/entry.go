package vault

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"
)

const (
	// heldFor is how long a short prompt waits for its answer, to be sealed in one piece with it: that
	// is half the work. The prompt of a request that runs longer is safe from a crash by then.
	heldFor = time.Second

	lengthBytes = 4 // of the length of a prompt that shares a piece
)

// Entry keeps the prompt and the answer of one request. A nil Entry keeps nothing. Its methods are
// for one goroutine, and none of them waits.
type Entry struct {
	vault  *Vault
	of     *identified
	prompt text
	answer text
}

// text is one direction of an entry. It always has the piece that will be its last in hand, so that
// there is memory to say how it ends.
type text struct {
	hand  *piece // nil once it has ended
	bytes int64
}

// Open begins the entry of a request; nil if nothing can be kept of it, which is counted.
func (v *Vault) Open(meta Meta) *Entry {
	id, err := uuid.Parse(meta.ID)
	tenant, failed := uuid.Parse(meta.Tenant)
	if err != nil || failed != nil || v.key.Load() == nil {
		v.lost.Add(1)
		return nil
	}
	of := &identified{meta, id, tenant}
	first, second := v.take(), v.take()
	if first == nil || second == nil {
		v.giveBack(first)
		v.giveBack(second)
		v.lost.Add(1)
		return nil
	}
	first.of, second.of, second.way = of, of, answer
	return &Entry{vault: v, of: of, prompt: text{hand: first}, answer: text{hand: second}}
}

// Prompt keeps the whole body of the request.
func (e *Entry) Prompt(body []byte) {
	if e == nil {
		return
	}
	e.add(&e.prompt, body)
	if e.prompt.hand != nil && e.prompt.hand.index > 0 {
		e.end(&e.prompt, 0)
	}
}

// Answer keeps what was written to the client.
func (e *Entry) Answer(p []byte) {
	if e == nil {
		return
	}
	if e.prompt.hand != nil && e.vault.now().Sub(e.of.At) > heldFor {
		e.end(&e.prompt, 0)
	}
	e.add(&e.answer, p)
}

// Close ends the entry.
func (e *Entry) Close() {
	if e == nil {
		return
	}
	e.join()
	e.end(&e.prompt, 0)
	e.end(&e.answer, 0)
}

// join makes prompt and answer one piece, if they fit into one.
func (e *Entry) join() {
	p, a := e.prompt.hand, e.answer.hand
	if p == nil || a == nil || a.index > 0 || len(p.content)+len(a.content)+lengthBytes > PieceBytes {
		return
	}
	length := uint32(len(p.content)) //nolint:gosec // at most PieceBytes
	p.content = binary.BigEndian.AppendUint32(append(p.content, a.content...), length)
	p.way = both
	e.vault.giveBack(a)
	e.answer.hand = nil
}

// add appends to a text, piece by piece.
func (e *Entry) add(t *text, p []byte) {
	for len(p) > 0 && t.hand != nil {
		left := min(e.vault.entryBytes.Load()-t.bytes, int64(PieceBytes-len(t.hand.content)))
		if left > 0 {
			taken := p[:min(int64(len(p)), left)]
			t.hand.content = append(t.hand.content, taken...)
			t.bytes += int64(len(taken))
			p = p[len(taken):]
			continue
		}
		if t.bytes >= e.vault.entryBytes.Load() {
			e.end(t, isCut)
			return
		}
		next := e.vault.take()
		if next == nil {
			e.vault.lost.Add(1)
			e.end(t, isLost)
			return
		}
		next.of, next.way, next.index = e.of, t.hand.way, t.hand.index+1
		e.vault.queue <- t.hand // there is room for every piece that is lent
		t.hand = next
	}
}

// end sends the last piece of a text, once.
func (e *Entry) end(t *text, why flags) {
	if t.hand != nil {
		t.hand.ends = isLast | why
		e.vault.queue <- t.hand
		t.hand = nil
	}
}
