// Package wordtable bounds from above how many tokens a text has, without the model's
// tokenizer: a word that the vocabulary holds whole is one token, a few others have a proven
// price, and all else is a token a byte.
//
// A Table is built from what a backend says of a model, kept in a file, and read from there.
package wordtable

import (
	"encoding/binary"
	"unicode"
)

// A table is one run of bytes, in a file as in memory; numbers are little-endian:
//
//	header  magic, the kind, the sizes of what follows, and the prices of the framing
//	runs    the price of 0 to 64 spaces, a byte each
//	ends    a bit for each byte behind which SPM may put a space
//	glued   bits for bytes beside which SPM may merge across the end of a word
//	cross   a bit for each byte before a lead byte: a token may straddle the two
//	chars   a bit for each character that is a token
//	lengths the bytes of each token, two bytes each
//	merges  the token of each byte or character, what each merge makes, and a hash table of their pairs
//	slots   places of words in the blob, by the hash of the word; 0 is empty
//	blob    words: length, flags, bytes
//	sum     a hash of all before it
const (
	magic       = "nzwords3"
	maxRun      = 64 // spaces; llama.cpp cuts longer runs
	maxWord     = 64 // bytes; a longer word is never looked up
	maxProbes   = 64
	leadBytes   = 64
	crossBytes  = 256 * leadBytes / 8
	charsBytes  = (unicode.MaxRune + 1) / 8
	headerBytes = len(magic) + 11*4
	runsBytes   = maxRun + 1
	endsBytes   = 256 / 8
	fixedBytes  = headerBytes + runsBytes + 4*endsBytes + crossBytes + charsBytes
	sumBytes    = 32
	byteIDs     = 4 * 256
	charIDs     = 4 * (lastCyrillic + 1)
)

// Flags of a word.
const (
	flagBare   = 1 // the word is a token
	flagSpaced = 2 // a space and the word are one
)

// Flags of a table.
const (
	flagSPM = 1 << iota
	flagWordPiece
	flagUnknown // of no known tokenizer: what is not ASCII may cost six tokens a byte
	flagMerges  // a word can be merged
	flagWords   // there are words at all
)

// Framing is what a model's template adds to a prompt, in tokens.
type Framing struct {
	Base       int // of a prompt
	Tools      int // of a prompt with tools, besides
	PerMessage int
	SystemText int // how often the text of the system is printed, 1 or 2
	Image      int // of an image, 0 if it may have as many as the context takes
}

// Table is the vocabulary of a model, as far as bounds need it. It is immutable.
type Table struct {
	Framing Framing

	data    []byte // all of it; what follows are parts
	runs    []byte
	ends    []byte
	glued   []byte
	cross   []byte
	chars   []byte
	lengths []byte
	merges  merges
	slots   []byte
	blob    []byte
	mask    uint32
	flags   uint32
}

// Size is how many bytes it takes.
func (t *Table) Size() int { return len(t.data) }

// HasWords reports whether a text can cost less than a token a byte.
func (t *Table) HasWords() bool { return t.flags&flagWords != 0 }

// WithoutWords returns the same table, by which each byte of a text is a token, and an image is as
// many as the context takes.
func (t *Table) WithoutWords() *Table {
	plain := *t
	plain.Framing.Image = 0
	plain.flags &^= flagWords
	return &plain
}

// view finds the parts of a table in its bytes, which have been checked.
func view(data []byte) *Table {
	at := len(magic)
	next := func() int {
		n := binary.LittleEndian.Uint32(data[at:])
		at += 4
		return int(n)
	}
	t := &Table{data: data}
	t.flags = uint32(next()) //nolint:gosec // it was one
	tokens, slots, blob := next(), next(), next()
	t.Framing = Framing{next(), next(), next(), next(), next()}
	into, pairs := next(), next()
	at = headerBytes
	part := func(size int) []byte {
		at += size
		return data[at-size : at : at]
	}
	t.runs, t.ends, t.glued = part(runsBytes), part(endsBytes), part(3*endsBytes)
	t.cross, t.chars = part(crossBytes), part(charsBytes)
	t.lengths = part(2 * tokens)
	if t.flags&flagMerges != 0 {
		t.merges = merges{part(idsBytes(t.flags&flagSPM != 0)), part(4 * into), part(8 * pairs)}
	}
	t.slots, t.blob = part(4*slots), part(blob)
	t.mask = uint32(slots) - 1 //nolint:gosec // a power of two
	return t
}

// word returns the flags of a word, 0 if the vocabulary does not hold it.
func (t *Table) word(w []byte) byte {
	if len(w) > maxWord || len(t.slots) == 0 {
		return 0
	}
	for i := hash(w) & t.mask; ; i = (i + 1) & t.mask {
		at := binary.LittleEndian.Uint32(t.slots[4*i:])
		if at == 0 {
			return 0
		}
		entry := t.blob[at:]
		if int(entry[0]) == len(w) && string(entry[2:2+len(w)]) == string(w) {
			return entry[1]
		}
	}
}

// isEnd reports whether SPM may put a space of its own behind a byte, or the start (-1).
func (t *Table) isEnd(b int) bool {
	return t.flags&flagSPM != 0 && (b < 0 || t.ends[b>>3]&(1<<(b&7)) != 0)
}

// isChar reports whether a character is a token.
func (t *Table) isChar(r rune) bool { return t.chars[r>>3]&(1<<(r&7)) != 0 }

// isCross reports whether a token may hold the end of one character and the begin of another.
func (t *Table) isCross(before, lead byte) bool {
	i := int(before)*leadBytes + int(lead) - 0xc0
	return lead >= 0xc0 && t.cross[i>>3]&(1<<(i&7)) != 0
}

// TokenBytes returns the length of a token's text, and the greatest length for an unknown one.
func (t *Table) TokenBytes(id int) int {
	if id < 0 || id >= len(t.lengths)/2 {
		return maxTokenBytes
	}
	return int(binary.LittleEndian.Uint16(t.lengths[2*id:]))
}

// hash places a word. A hostile vocabulary may make words collide: build bounds how often.
func hash(w []byte) uint32 {
	h := uint32(2166136261)
	for _, b := range w {
		h = (h ^ uint32(b)) * 16777619
	}
	return h ^ h>>15
}
