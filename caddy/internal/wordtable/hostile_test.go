package wordtable

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// TestHostile: of a vocabulary that can't be an honest one no word is believed, and every byte
// of a text counts.
func TestHostile(t *testing.T) {
	good := bytePairs("hello", " hello")
	million := bytePairs("hello")
	for i := range 1_000_000 {
		million.Tokens = append(million.Tokens, fmt.Sprintf("t%d", i))
	}
	for name, spoil := range map[string]func(*Vocabulary){
		"an unknown tokenizer": func(v *Vocabulary) { v.Kind = "t5" },
		"no tokens":            func(v *Vocabulary) { v.Tokens = nil },
		"a million tokens":     func(v *Vocabulary) { v.Tokens = million.Tokens },
		"a token of a megabyte": func(v *Vocabulary) {
			v.Tokens = append(v.Tokens, strings.Repeat("a", 1<<20))
		},
		"a token twice":       func(v *Vocabulary) { v.Tokens = append(v.Tokens, "hello") },
		"a byte less":         func(v *Vocabulary) { v.Tokens = v.Tokens[1:] },
		"no merges":           func(v *Vocabulary) { v.Merges = nil },
		"too few kinds":       func(v *Vocabulary) { v.Types = []int{1} },
		"merges of no tokens": func(v *Vocabulary) { v.Merges = append(v.Merges, "x y") },
		"a merge of nothing":  func(v *Vocabulary) { v.Merges = append(v.Merges, "") },
		"a merge twice":       func(v *Vocabulary) { v.Merges = append(v.Merges, v.Merges[0]) },
		"a tokenizer of scores without them": func(v *Vocabulary) {
			v.Kind = kindSPM
		},
		"a score that is none": func(v *Vocabulary) {
			v.Kind, v.Scores = kindSPM, make([]float64, len(v.Tokens))
			v.Scores[0] = math.NaN()
		},
	} {
		v := good
		v.Tokens, v.Merges = append([]string{}, v.Tokens...), append([]string{}, v.Merges...)
		spoil(&v)
		table, err := Build(&Show{Vocabulary: v})
		if err == nil || table.HasWords() {
			t.Errorf("%s: %v", name, err)
		}
		if got := table.own("hello hello"); got != 12 {
			t.Errorf("%s: a text has the bound %d", name, got)
		}
	}
}
