package wordtable

import (
	"fmt"
	"strings"
	"testing"
)

// scoredPieces is a vocabulary of scores: some letters and a mark, "ab" and "abc".
func scoredPieces() Vocabulary {
	v := Vocabulary{Kind: kindSPM}
	for b := range 256 {
		addPiece(&v, fmt.Sprintf("<0x%02X>", b), 6)
	}
	for _, token := range []string{spaceMark, "a", "b", "c", "x", "ß", "!", "ab", "abc"} {
		addPiece(&v, token, tokenNormal)
	}
	return v
}

func addPiece(v *Vocabulary, token string, kind int) {
	v.Scores = append(v.Scores, -float64(len(v.Tokens)))
	v.Tokens, v.Types = append(v.Tokens, token), append(v.Types, kind)
}

// TestScored: a word of SPM costs what its merges leave, wherever no token has it and what stands
// beside it.
func TestScored(t *testing.T) {
	table := build(t, scoredPieces())
	for text, want := range map[string]int{
		"! xabc!":      1 + 1 + 3 + 1,
		"!xabc!":       1 + 1 + 2 + 1,
		"! xßabc!":     1 + 1 + 4 + 1,
		"! xabc":       1 + 1 + 5,         // what follows is not known
		"xabc!":        1 + 4 + 1,         // what precedes
		"!  xabc!":     1 + 1 + 2 + 5 + 1, // two spaces may merge first
		"> xabc!":      1 + 1 + 5 + 1,     // behind a mark there is one more
		"! xabcq!":     1 + 1 + 6 + 1,     // a letter that is no token
		"! xabcд!":     1 + 1 + 7 + 1,     // likewise
		"! xabcש!":     1 + 1 + 7 + 1,     // a letter beyond those that are kept
		"! xabc abc !": 1 + 1 + 3 + 2 + 1 + 1,
	} {
		equal(t, want, table.own(text), text)
	}
	equal(t, 1+1+81+1, table.own("! "+strings.Repeat("x", 80)+"!"), "a long word")
	budget := 3
	equal(t, 1+1+5+1, table.Bound([]byte("! xabc!"), &budget), "without a budget")
}

// TestScoredIsAlone: a word of SPM is not priced by its merges where others could cross its ends,
// or where their order is not known.
func TestScoredIsAlone(t *testing.T) {
	const text, byMerges, byBytes = "!xabc! xabc!", 1 + 1 + 2 + 1 + 3 + 1, 1 + 1 + 4 + 1 + 5 + 1
	for name, c := range map[string]struct {
		token string
		kind  int
		want  int
	}{
		"a token of digits":             {"12", tokenNormal, byMerges},
		"a merge that comes later":      {"xa", tokenNormal, byMerges},
		"across the end":                {"c!", tokenNormal, byBytes},
		"across the start":              {"!x", tokenNormal, byMerges + 2},
		"across the space before":       {"!" + spaceMark, tokenNormal, byMerges + 2},
		"across the space behind":       {"c" + spaceMark, tokenNormal, byMerges},
		"a mark that begins a word":     {"a11", tokenControl, byBytes},
		"a mark that ends one":          {"11a", tokenControl, byBytes},
		"a mark that takes a space":     {spaceMark + "11", tokenControl, byBytes},
		"a mark that leaves a space":    {"11" + spaceMark, tokenControl, byBytes},
		"a mark of spaces":              {spaceMark + spaceMark, tokenUserDefined, byMerges},
		"a mark of its own":             {"111", tokenControl, byMerges},
		"a word that is no text":        {"xx", 5, byBytes},
		"one with a space":              {spaceMark + "xx", 5, byBytes},
		"no text, but merges may do it": {"c!", 2, byBytes},
		"no text, and none does":        {"cd!!d", 2, byMerges},
	} {
		v := scoredPieces()
		addPiece(&v, c.token, c.kind)
		equal(t, c.want, build(t, v).own(text), name)
	}
	v := scoredPieces()
	v.Scores[len(v.Scores)-1] = v.Scores[len(v.Scores)-2]
	equal(t, byBytes, build(t, v).own(text), "two tokens of one score")
}

// TestRunsAreMerged: spaces cost what merges leave of them where that is more than the longest
// tokens would be, and the last of them may belong to them, not to the word.
func TestRunsAreMerged(t *testing.T) {
	v := scoredPieces()
	for _, length := range []int{2, 4, 3, 5, 6, 7} { // four merge to two twos, and then to one
		addPiece(&v, strings.Repeat(spaceMark, length), tokenNormal)
	}
	m, err := newMerger(&v)
	if err != nil {
		t.Fatal(err)
	}
	table := build(t, v)
	isMore := false
	for spaces := 1; spaces <= maxRun; spaces++ {
		merged := m.count(strings.Repeat(" ", spaces))
		isMore = isMore || merged > ceil(spaces, 7)
		if got := table.own("!" + strings.Repeat(" ", spaces)); got < 2+merged {
			t.Errorf("%d spaces are %d tokens, bound %d", spaces, merged, got-2)
		}
		text := "!" + strings.Repeat(" ", spaces) + "abc!"
		if got, truth := table.own(text), m.count(text); got < truth {
			t.Errorf("%d spaces and a word are %d tokens, bound %d", spaces, truth, got)
		}
	}
	equal(t, true, isMore, "merges that leave more")
}
