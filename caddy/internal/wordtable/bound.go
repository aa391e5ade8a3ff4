package wordtable

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode"
	"unicode/utf8"
)

// scan is the state of one Bound: what stands before the piece at hand.
type scan struct {
	*Table

	text   []byte
	spaces int // directly before the piece
	prev   int // the byte before those, -1 at the start
	tokens int

	char   []byte // the last character that was none of a word
	paid   int    // its price
	budget *int   // bytes of words that may still be merged
}

// MergedBytes is how much of a prompt is merged, unless its caller wants it otherwise; the words
// of the rest have the price of unknown ones. It bounds the CPU that a hostile prompt costs.
const MergedBytes = 256 << 10

// Bound returns an upper bound of the tokens that a text becomes, wherever it stands. It merges
// as many bytes of it as are left in the budget, which it lowers.
func (t *Table) Bound(text []byte, budget *int) int {
	switch {
	case !t.HasWords():
		return 1 + t.plain(text)
	case t.flags&flagWordPiece != 0:
		return 3 + t.wordPieces(text) // with the marks around it
	}
	s := scan{Table: t, text: text, prev: -1, tokens: 1, budget: budget} // 1: SPM puts a space before
	for i := 0; i < len(text); {
		if text[i] == ' ' {
			s.spaces++
			i++
			continue
		}
		i = s.piece(i)
	}
	return s.tokens + t.run(s.spaces)
}

// Plain bounds a text for a model of which nothing is known.
func Plain(text []byte) int { return 1 + unknown.plain(text) }

var unknown = &Table{flags: flagUnknown}

// unknownPrice is what a byte may cost where the tokenizer normalizes: the one character
// U+FDFA becomes eighteen. ASCII stays as it is.
const unknownPrice = 6

// plain counts a token a byte.
func (t *Table) plain(text []byte) int {
	n := len(text)
	if t.flags&flagUnknown != 0 {
		n += (unknownPrice - 1) * BeyondASCII(text)
	}
	return n
}

// BeyondASCII counts the bytes of characters that are not ASCII, eight at a time.
func BeyondASCII(text []byte) (n int) {
	for ; len(text) >= 8; text = text[8:] {
		n += bits.OnesCount64(binary.LittleEndian.Uint64(text) & 0x8080808080808080)
	}
	for _, b := range text {
		n += int(b >> 7)
	}
	return n
}

// piece prices the word or the character at text[i], with the spaces before it, and returns
// the place behind it.
func (s *scan) piece(i int) int {
	if s.spaces > 1 {
		if s.flags&flagSPM != 0 { // the last one may merge with the others first
			s.tokens += max(s.run(s.spaces-1), s.run(s.spaces))
		} else {
			s.tokens += s.run(s.spaces - 1)
		}
	}
	end, isASCII, humps := letters(s.text, i)
	if end == i {
		end = i + 1
		if s.text[i] >= utf8.RuneSelf {
			_, size := utf8.DecodeRune(s.text[i:])
			end = i + size
		}
		s.char = s.text[i:end]
		s.paid = s.raw(s.char, s.next(end))
		s.tokens += s.space() + s.paid
	} else {
		s.tokens += s.letters(s.text[i:end], end, isASCII, humps)
	}
	s.prev, s.spaces = int(s.text[end-1]), 0
	return end
}

// letters returns the end of the word at text[i], whether it is ASCII, and how many capitals
// in it follow a small letter.
func letters(text []byte, i int) (end int, isASCII bool, humps int) {
	isASCII = true
	for end = i; end < len(text); {
		b := text[end]
		if b < utf8.RuneSelf {
			if b|0x20 < 'a' || b|0x20 > 'z' {
				break
			}
			if b < 'a' && end > i && text[end-1] >= 'a' {
				humps++
			}
			end++
			continue
		}
		r, size := utf8.DecodeRune(text[end:])
		if !unicode.IsLetter(r) {
			break
		}
		isASCII = false
		end += size
	}
	return end, isASCII, humps
}

// next returns the byte at an end, 0 behind the text.
func (s *scan) next(end int) byte {
	if end < len(s.text) {
		return s.text[end]
	}
	return 0
}

// space is the price of the last space before a piece, where it is not part of a token.
func (s *scan) space() int { return min(s.spaces, 1) }

// letters prices a word, and the last space before it.
func (s *scan) letters(w []byte, end int, isASCII bool, humps int) int {
	after := s.next(end)
	flags := s.word(w)
	isBare := flags&flagBare != 0
	isWhole := flags == flagBare|flagSpaced
	isTwice := s.isEnd(s.prev) // two spaces may merge first, and none be one
	switch {
	case s.spaces == 1 && flags&flagSpaced != 0 && !isTwice, s.spaces > 0 && isWhole:
		return 1
	case s.spaces == 0 && s.prev == '\'': // 're|ason: contractions are cut off
		return s.raw(w, after)
	case s.spaces == 0 && isBare && (s.prev == -1 || s.prev == '\n') && (isWhole || !isTwice):
		return 1
	}
	if tokens, ok := s.exact(w, end, isASCII, humps); ok {
		return tokens
	}
	switch {
	case !isASCII:
		return s.space() + s.raw(w, after)
	case humps > 0:
		return s.space() + s.camel(w)
	case isBare:
		return s.space() + price(len(w))
	}
	return s.space() + len(w)
}

// price is what a word of the vocabulary may cost where something is glued to it, so that the
// tokenizer may merge across its start.
func price(n int) int { return min(n, max(3, (n+1)/2)) }

// camel prices a word of several, such as fooBar, part by part.
func (s *scan) camel(w []byte) (tokens int) {
	start := 0
	for i := 1; i <= len(w); i++ {
		if i < len(w) && (w[i] >= 'a' || w[i-1] < 'a') {
			continue
		}
		part := w[start:i]
		if s.word(part)&flagBare != 0 {
			tokens += price(len(part))
		} else {
			tokens += len(part)
		}
		start = i
	}
	return tokens
}

// raw prices text by its characters: one that is a token costs one, if no other token can
// hold a part of it; any other costs its bytes.
func (s *scan) raw(text []byte, after byte) (tokens int) {
	before := byte(max(0, s.prev)) //nolint:gosec // it is a byte
	if s.spaces > 0 {
		before = ' '
	}
	for i := 0; i < len(text); {
		if text[i] < utf8.RuneSelf {
			before = text[i]
			tokens++
			i++
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 { // what is no UTF-8 becomes U+FFFD
			before = 0xbd
			tokens += 3
			i++
			continue
		}
		end := i + size
		follows := after
		if end < len(text) {
			follows = text[end]
		}
		if s.isChar(r) && !s.isCross(before, text[i]) && !s.isCross(text[end-1], follows) {
			tokens++
		} else {
			tokens += size
		}
		before = text[end-1]
		i = end
	}
	return tokens
}

// run prices spaces that nothing follows.
func (t *Table) run(spaces int) (tokens int) {
	for ; spaces > maxRun; spaces -= maxRun {
		tokens += int(t.runs[maxRun])
	}
	return tokens + int(t.runs[spaces])
}

// wordPieces prices a text for WordPiece, which cuts at white space and punctuation, folds
// case and strips accents: only ASCII words that stand alone are looked up.
func (t *Table) wordPieces(text []byte) (tokens int) {
	for i := 0; i < len(text); {
		end, isASCII, _ := letters(text, i)
		if end == i {
			if text[i] != ' ' {
				tokens++
			}
			i++
			continue
		}
		w := text[i:end]
		isAlone := (i == 0 || isCut(text[i-1])) && (end == len(text) || isCut(text[end]))
		if isAlone && isASCII && len(w) <= maxWord && t.word(bytes.ToLower(w))&flagBare != 0 {
			tokens++
		} else {
			tokens += len(w)
		}
		i = end
	}
	return tokens
}

// isCut reports whether WordPiece cuts at an ASCII byte.
func isCut(b byte) bool {
	isDigit := b >= '0' && b <= '9'
	isLetter := b|0x20 >= 'a' && b|0x20 <= 'z'
	return b >= '!' && b <= '~' && !isDigit && !isLetter || b == ' ' || b == '\t' || b == '\n' || b == '\r'
}
