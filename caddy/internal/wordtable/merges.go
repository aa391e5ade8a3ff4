package wordtable

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// merger applies the merges of a tokenizer to a text, as llama.cpp does without cutting it
// first: that shows which tokens a text can become at all.
type merger struct {
	ids   map[string]int32
	pairs map[[2]int32]merge
	bytes [256]int32 // the token of a byte, -1 if none
	isSPM bool
	left  int     // pairs that may still be looked at
	list  []int32 // of the text at hand; below 0 a character of so many bytes that is no token
}

// maxWork is how many pairs are looked at for one vocabulary; Gemma 3 takes 64 million.
const maxWork = 1 << 29

// merge joins two tokens to one; the one with the smallest rank goes first.
type merge struct {
	rank float64
	into int32
}

// none is the id of a piece that is no token.
const none = -1

func newMerger(v *Vocabulary) (*merger, error) {
	m := &merger{ids: make(map[string]int32, len(v.Tokens)), isSPM: v.Kind == kindSPM, left: maxWork}
	for i, token := range v.Tokens {
		m.ids[token] = int32(i)
	}
	for b := range m.bytes {
		m.bytes[b] = m.id(string(byteRunes[b]))
	}
	if m.isSPM {
		m.pairs = make(map[[2]int32]merge, 2*len(v.Tokens))
		for i := range v.Tokens {
			if v.isText(i) && !isByteToken(v.Tokens[i]) {
				m.splits(v.Tokens[i], -v.Scores[i])
			}
			if len(m.pairs) > maxPairs {
				return nil, fmt.Errorf("more than %d pairs of tokens can be merged", maxPairs)
			}
		}
		return m, nil
	}
	m.pairs = make(map[[2]int32]merge, len(v.Merges))
	for rank, text := range v.Merges {
		left, right, ok := strings.Cut(text, " ")
		pair := [2]int32{m.id(left), m.id(right)}
		into := m.id(left + right)
		if !ok || pair[0] == none || pair[1] == none || into == none {
			return nil, fmt.Errorf("merge %d is not of tokens", rank)
		}
		if _, isTwice := m.pairs[pair]; isTwice {
			return nil, errors.New("a merge is given twice")
		}
		m.pairs[pair] = merge{float64(rank), into}
	}
	return m, nil
}

// id returns the id of a token, none if there is no such token.
func (m *merger) id(token string) int32 {
	if id, ok := m.ids[token]; ok {
		return id
	}
	return none
}

// splits adds the merges that make a token: SPM joins any two pieces that are one together.
func (m *merger) splits(token string, rank float64) {
	into := m.ids[token]
	for i := range token {
		if i == 0 {
			continue
		}
		left, right := m.id(token[:i]), m.id(token[i:])
		if left != none && right != none {
			m.pairs[[2]int32{left, right}] = merge{rank, into}
		}
	}
}

// count returns how many tokens a text becomes that nothing cuts.
func (m *merger) count(text string) int {
	m.list = m.list[:0]
	if m.isSPM {
		for _, r := range strings.ReplaceAll(text, " ", spaceMark) {
			id := m.id(string(r))
			if id == none { // in bytes, which merge with nothing
				id = -int32(utf8.RuneLen(r)) //nolint:gosec // at most four
			}
			m.list = append(m.list, id)
		}
	} else {
		for i := range len(text) {
			m.list = append(m.list, m.bytes[text[i]])
		}
	}
	for m.join() {
	}
	n := len(m.list)
	for _, id := range m.list {
		if id < 0 {
			n -= int(id) + 1
		}
	}
	return n
}

// join makes the first merge in the list; false if none is left, or no more work may be done.
func (m *merger) join() bool {
	if m.left -= len(m.list); m.left < 0 {
		return false
	}
	best, at := merge{rank: math.Inf(1)}, none
	for i := range len(m.list) - 1 {
		if found, ok := m.pairs[[2]int32{m.list[i], m.list[i+1]}]; ok && found.rank < best.rank {
			best, at = found, i
		}
	}
	if at == none {
		return false
	}
	m.list[at] = best.into
	m.list = slices.Delete(m.list, at+1, at+2)
	return true
}
