package wordtable

import (
	"encoding/binary"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// SPM merges a whole text at once, but never across a place where no token has the two characters
// that meet there: each merge makes a token. Where that holds on both sides of a word, the word is
// merged by itself, and its own merges say what it costs.

// Bits of glued: where a token has a character that ends in this byte before a space, or before
// a letter, or a letter before a character that begins with it.
const (
	beforeSpace = iota
	beforeLetter
	behindLetter
)

const noID = 1<<32 - 1

// idsBytes returns the size of the tokens that merges begin with.
func idsBytes(isSPM bool) int {
	if isSPM {
		return charIDs
	}
	return byteIDs
}

// takeScored takes the merges of SPM, if their scores put them into one order and no mark or
// token that is no text gets into a word.
func (p *parts) takeScored(v *Vocabulary, m *merger) {
	tokens := map[float64]int32{}
	for _, to := range m.pairs {
		if other, isThere := tokens[to.rank]; isThere && other != to.into {
			return // of the same score
		}
		tokens[to.rank] = to.into
	}
	for i, token := range v.Tokens {
		text := strings.ReplaceAll(token, spaceMark, " ")
		switch {
		case v.isMark(i) && meetsWords(text), !v.isText(i) && isWord(strings.TrimPrefix(text, " ")):
			return
		case v.isText(i) || m.canMake(token):
			p.takeGlued(text)
		}
	}
	scores := make([]float64, 0, len(tokens))
	for score := range tokens {
		scores = append(scores, score)
	}
	slices.Sort(scores)
	order := make(map[float64]int, len(scores))
	for i, score := range scores {
		order[score] = i
	}
	ranked := &merger{pairs: make(map[[2]int32]merge, len(m.pairs))}
	for pair, to := range m.pairs {
		ranked.pairs[pair] = merge{float64(order[to.rank]), to.into}
	}
	for r := range rune(lastCyrillic + 1) {
		id := m.id(string(r))
		if r == ' ' {
			id = m.id(spaceMark)
		}
		p.merges = binary.LittleEndian.AppendUint32(p.merges, uint32(id)) //nolint:gosec // none is noID
	}
	p.takePairs(ranked)
}

// meetsWords reports whether a mark could cut a word, or the one space before it.
func meetsWords(mark string) bool {
	first, _ := utf8.DecodeRuneInString(mark)
	last, _ := utf8.DecodeLastRuneInString(mark)
	isSpaces := len(mark) > 1 && strings.Trim(mark, " ") == ""
	return unicode.IsLetter(first) || unicode.IsLetter(last) || (first == ' ' || last == ' ') && !isSpaces
}

// canMake reports whether merges may make a token that is no text, such as </s>.
func (m *merger) canMake(token string) bool {
	isPiece := func(part string) bool { return m.id(part) != none || utf8.RuneCountInString(part) == 1 }
	for i := range token {
		if i > 0 && isPiece(token[:i]) && isPiece(token[i:]) {
			return true
		}
	}
	return false
}

// takeGlued takes the places within a token at which a word of a text may not end.
func (p *parts) takeGlued(text string) {
	set := func(kind int, b byte) { p.glued[kind*endsBytes+int(b>>3)] |= 1 << (b & 7) }
	before := utf8.RuneError
	for i, r := range text {
		switch {
		case i == 0:
		case r == ' ' && before != ' ':
			set(beforeSpace, text[i-1])
		case unicode.IsLetter(r) && !unicode.IsLetter(before) && before != ' ':
			set(beforeLetter, text[i-1])
		}
		if i > 0 && unicode.IsLetter(before) && !unicode.IsLetter(r) {
			set(behindLetter, text[i])
		}
		before = r
	}
}

// isGlued reports whether a token has such a place at a byte.
func (t *Table) isGlued(kind int, b byte) bool {
	return t.glued[kind*endsBytes+int(b>>3)]&(1<<(b&7)) != 0
}

// scored prices a word of SPM, with the one space before it, by its merges, and reports whether it
// may be: its neighbors are known, and no token has both it and them.
func (s *scan) scored(w []byte, end int) (tokens int, ok bool) {
	if len(w) > maxWord || *s.budget < len(w) || s.spaces > 1 || s.isEnd(s.prev) || end == len(s.text) ||
		s.isGlued(behindLetter, s.text[end]) {
		return 0, false
	}
	kind, before := beforeLetter, byte(s.prev) //nolint:gosec // a byte: the start is an end
	if s.spaces > 0 {
		kind = beforeSpace
	}
	if s.isGlued(kind, before) {
		return 0, false
	}
	var ids [maxPiece]uint32
	n := 0
	if s.spaces > 0 {
		ids[0], n = s.merges.id(' '), 1
	}
	for _, r := range string(w) {
		if ids[n] = s.merges.id(r); ids[n] == noID {
			return 0, false
		}
		n++
	}
	*s.budget -= len(w)
	return s.merges.join(ids[:n]), true
}

// id returns the token of a character, noID if it has none that is known here.
func (m *merges) id(r rune) uint32 {
	if r > lastCyrillic {
		return noID
	}
	return binary.LittleEndian.Uint32(m.bytes[4*r:])
}
