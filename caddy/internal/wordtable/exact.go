package wordtable

import (
	"encoding/binary"
	"math/bits"
	"unicode"
	"unicode/utf8"
)

// exactCuts are the ways to cut a text (tokenizer.ggml.pre) in which a word, a run of letters,
// is merged by itself, or with the one character before it. How often its merges leave it in
// pieces is then what it costs, and no longer a matter of its bytes.
var exactCuts = map[string]bool{
	"llama-bpe": true, "llama4": true, "qwen2": true, "deepseek-r1-qwen": true, "gpt-2": true, "gpt-4o": true,
	"deepseek-v3": true, "tekken": true,
}

const (
	tokenBits = 19
	rankBits  = 20
	maxPiece  = maxWord + utf8.UTFMax
	noRank    = 1 << rankBits

	maxPairProbes = 1024
)

// takeMerges takes the merges of a vocabulary, if words are merged by themselves: a mark that
// begins or ends with a letter could cut one.
func (p *parts) takeMerges(v *Vocabulary, m *merger) {
	if v.Kind == kindSPM {
		p.takeScored(v, m)
		return
	}
	if !exactCuts[v.Cut] {
		return
	}
	for i, token := range v.Tokens {
		first, _ := utf8.DecodeRuneInString(token)
		last, _ := utf8.DecodeLastRuneInString(token)
		if v.isMark(i) && (unicode.IsLetter(first) || unicode.IsLetter(last)) {
			return
		}
	}
	for _, id := range m.bytes {
		p.merges = binary.LittleEndian.AppendUint32(p.merges, uint32(id)) //nolint:gosec // checked: each has one
	}
	p.takePairs(m)
}

// takePairs takes the merges by a hash of their two tokens; each rank makes one token.
func (p *parts) takePairs(m *merger) {
	ranks := 0
	for _, to := range m.pairs {
		ranks = max(ranks, int(to.rank)+1)
	}
	into := make([]byte, 4*ranks)
	slots := len(m.pairs) + len(m.pairs)/4 + 1
	pairs := make([]byte, 8*slots)
	for pair, to := range m.pairs {
		rank := uint64(to.rank)
		binary.LittleEndian.PutUint32(into[4*rank:], uint32(to.into)) //nolint:gosec // a token
		key := uint64(pair[0])<<tokenBits | uint64(pair[1])           //nolint:gosec // both are tokens
		i, probes := place64(key, slots), 0
		for binary.LittleEndian.Uint64(pairs[8*i:]) != 0 {
			i = (i + 1) % slots
			if probes++; probes > maxPairProbes { // not by chance: it would cost CPU at every word
				p.merges = nil
				return
			}
		}
		binary.LittleEndian.PutUint64(pairs[8*i:], (key<<rankBits|rank)+1)
	}
	p.flags |= flagMerges
	p.merges = append(append(p.merges, into...), pairs...)
	p.mergeCount, p.pairs = ranks, slots
}

// place64 returns the slot of a pair.
func place64(key uint64, slots int) int {
	high, _ := bits.Mul64(key*0x9e3779b97f4a7c15, uint64(slots)) //nolint:gosec // of a table
	return int(high)                                             //nolint:gosec // below slots
}

// merges is the part of a table that merges are looked up in.
type merges struct {
	bytes []byte // the token of each byte, of SPM of each character up to lastCyrillic
	into  []byte // the token that each merge makes, by its rank
	pairs []byte // merges by a hash of their two tokens
}

// rank returns the rank of the merge of two tokens, noRank if there is none.
func (m *merges) rank(left, right uint32) uint32 {
	key, slots := uint64(left)<<tokenBits|uint64(right), len(m.pairs)/8
	for i := place64(key, slots); ; i = (i + 1) % slots {
		entry := binary.LittleEndian.Uint64(m.pairs[8*i:])
		if entry == 0 {
			return noRank
		}
		if (entry-1)>>rankBits == key {
			return uint32((entry - 1) & (1<<rankBits - 1))
		}
	}
}

// count returns how many tokens two pieces are that are merged together, at most maxPiece bytes.
func (m *merges) count(first, second []byte) int {
	var ids [maxPiece]uint32
	n := 0
	for _, piece := range [][]byte{first, second} {
		for _, b := range piece {
			ids[n] = binary.LittleEndian.Uint32(m.bytes[4*int(b):])
			n++
		}
	}
	return m.join(ids[:n])
}

// join merges tokens until none can be, and returns how many are left.
func (m *merges) join(ids []uint32) int {
	var ranks [maxPiece]uint32
	n := len(ids)
	for i := range n - 1 {
		ranks[i] = m.rank(ids[i], ids[i+1])
	}
	for n > 1 {
		best := 0
		for i := 1; i < n-1; i++ {
			if ranks[i] < ranks[best] {
				best = i
			}
		}
		if ranks[best] == noRank {
			break
		}
		ids[best] = binary.LittleEndian.Uint32(m.into[4*ranks[best]:])
		copy(ids[best+1:], ids[best+2:n])
		copy(ranks[best+1:], ranks[best+2:n])
		n--
		if best < n-1 {
			ranks[best] = m.rank(ids[best], ids[best+1])
		}
		if best > 0 {
			ranks[best-1] = m.rank(ids[best-1], ids[best]) //nolint:gosec // best is above 0
		}
	}
	return n
}

// exact prices a word by its merges, and reports whether it may be: it is of one script, is
// not cut by its case, and what follows does not belong to it.
func (s *scan) exact(w []byte, end int, isASCII bool, humps int) (tokens int, ok bool) {
	if s.flags&(flagMerges|flagSPM) == flagMerges|flagSPM {
		return s.scored(w, end)
	}
	if s.flags&flagMerges == 0 || len(w) > maxWord || *s.budget < len(w) || s.isJoined(end) ||
		!isASCII && !isOneScript(w) {
		return 0, false
	}
	*s.budget -= len(w)
	tokens = s.glued(w)
	if humps > 0 {
		tokens = max(tokens, s.parts(w))
	}
	return tokens, true
}

// glued prices a word by its merges, with the space before it, or with the character before it
// and without, whichever costs more.
func (s *scan) glued(w []byte) int {
	switch {
	case s.spaces > 0:
		return s.merges.count([]byte{' '}, w)
	case s.prev == -1: // behind what is not known
		return 1 + s.merges.count(nil, w)
	}
	tokens := max(s.merges.count(nil, w), s.merges.count(s.char, w)-s.paid)
	if i := asciiLetters(w); i > 0 && i < len(w) { // deepseek-v3 takes a mark with ASCII letters alone
		tokens = max(tokens, s.merges.count(s.char, w[:i])-s.paid+s.merges.count(nil, w[i:]))
	}
	return tokens
}

// asciiLetters returns how many letters of ASCII a word begins with.
func asciiLetters(w []byte) (n int) {
	for n < len(w) && w[n] < utf8.RuneSelf {
		n++
	}
	return n
}

// parts prices a word such as fooBar where it is cut before its capitals.
func (s *scan) parts(w []byte) (tokens int) {
	start := 0
	for i := 1; i <= len(w); i++ {
		switch {
		case i < len(w) && (w[i] >= 'a' || w[i-1] < 'a'):
			continue
		case start == 0:
			tokens = s.glued(w[:i])
		default:
			tokens += s.merges.count(nil, w[start:i])
		}
		start = i
	}
	return tokens
}

// isJoined reports whether a tokenizer may take a word together with what follows it, such as
// the end of a contraction or an accent, or what precedes it belongs to another word.
func (s *scan) isJoined(end int) bool {
	next, _ := utf8.DecodeRune(s.text[end:])
	before, _ := utf8.DecodeRune(s.char)
	return next == '\'' || unicode.IsMark(next) || s.spaces == 0 && unicode.IsMark(before)
}

// Letters whose words every tokenizer of exactCuts leaves whole: Latin, Greek and Cyrillic in
// one case, but for the first letter, or Han and Kana.
const (
	lastCyrillic = 0x52f
	firstKana    = 0x3041
	lastKana     = 0x30ff
	firstHan     = 0x4e00
	lastHan      = 0x9fa5
)

// isOneScript reports whether a word is of such letters alone.
func isOneScript(w []byte) bool {
	isEuropean, isAsian := true, true
	for i, r := range string(w) {
		isEuropean = isEuropean && r <= lastCyrillic && (i == 0 || !unicode.IsUpper(r) && !unicode.IsTitle(r))
		isAsian = isAsian && (r >= firstKana && r <= lastKana || r >= firstHan && r <= lastHan)
	}
	return isEuropean || isAsian
}
