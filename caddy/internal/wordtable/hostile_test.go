package wordtable

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
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

// everyPart is a vocabulary of scores that holds each part of a long text: each can be made of any
// two of the others.
func everyPart(length int) Vocabulary {
	v := scoredPieces()
	dice := rand.New(rand.NewPCG(1, 1))
	text := make([]byte, length)
	for i := range text {
		text[i] = "abcd"[dice.IntN(4)]
	}
	known := map[string]bool{}
	for _, token := range v.Tokens {
		known[token] = true
	}
	for from := range text {
		for to := from + 1; to <= len(text); to++ {
			if token := string(text[from:to]); !known[token] {
				known[token] = true
				addPiece(&v, token, tokenNormal)
			}
		}
	}
	return v
}

// TestHostileAnswer: what is cut short, has more parts than any vocabulary or a number that is none
// is not read: it could take all memory.
func TestHostileAnswer(t *testing.T) {
	whole, err := json.Marshal(map[string]any{"model_info": bytePairs("hello")})
	must(t, err)
	for end := range whole {
		if _, err = ReadShow(whole[:end]); err == nil {
			t.Fatalf("an answer cut at %d was read", end)
		}
	}
	for name, answer := range map[string]string{
		"empty tokens":   `{"model_info":{"tokenizer.ggml.tokens":[""` + strings.Repeat(`,""`, 1<<23) + `]}}`,
		"scores":         `{"model_info":{"tokenizer.ggml.scores":[0` + strings.Repeat(`,0`, 1<<23) + `]}}`,
		"messages":       `{"messages":[{}` + strings.Repeat(`,{}`, 1<<23) + `]}`,
		"a great number": `{"model_info":{"tokenizer.ggml.scores":[1e999]}}`,
		"NaN":            `{"model_info":{"tokenizer.ggml.scores":[NaN]}}`,
		"a deep list":    `{"model_info":` + strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20) + `}`,
	} {
		if _, err = ReadShow([]byte(answer)); err == nil {
			t.Errorf("%s: it was read", name)
		}
	}
}

// TestHostileWork: a vocabulary that takes more merging, or more memory for it, than any in use gets
// no words.
func TestHostileWork(t *testing.T) {
	many := everyPart(320)
	if _, err := newMerger(&many); err == nil {
		t.Error("every pair of tokens was taken")
	}
	v := bytePairs("hello", " hello")
	m, err := newMerger(&v)
	must(t, err)
	p := parts{words: map[string]byte{}, cross: make([]byte, crossBytes), chars: make([]byte, charsBytes)}
	m.left = 20
	if err = p.takeTokens(&v, m); err == nil {
		t.Error("there was no end to the work")
	}
	m.left = maxWork
	p.takeText(strings.Repeat("a", maxTokenBytes), m, false)
	equal(t, maxWork, m.left, "what is left after a token that is never looked up")
}

// TestHostileTemplate: marks of a vocabulary that no template has a use for don't make it slow: a
// template that is too long, or has too many of them, costs what its bytes do.
func TestHostileTemplate(t *testing.T) {
	v := Vocabulary{Kind: kindBPE}
	for i := range maxReplaced + 1 {
		v.Tokens, v.Types = append(v.Tokens, fmt.Sprintf("<%d>", i)), append(v.Types, tokenControl)
	}
	equal(t, "<1>", v.withoutMarks("<1>"), "a template with too many marks")
	v.Tokens, v.Types = v.Tokens[1:], v.Types[1:]
	equal(t, "\x00", v.withoutMarks("<1>"), "a template with as many as may be")
	v.Tokens[0] = strings.Repeat("a", maxTokenBytes+1)
	equal(t, v.Tokens[0], v.withoutMarks(v.Tokens[0]), "a mark that is too long")
	long := strings.Repeat("<2>", maxTemplateBytes)
	equal(t, len(long), len(v.withoutMarks(long)), "a template that is too long")
}

// FuzzBuild: whatever a backend says of a model, its table can be built, and bounds each text by no
// more than six tokens a byte.
func FuzzBuild(f *testing.F) {
	for _, v := range []Vocabulary{bytePairs("hello", " hello", "漢"), scoredPieces(), everyPart(6)} {
		answer, err := json.Marshal(map[string]any{
			"template": "{{ range .Messages }}<|im|>{{ .Content }}{{ end }}", "system": "hello", "model_info": v,
		})
		must(f, err)
		f.Add(answer)
	}
	f.Add([]byte(`{"template":"{% if tools %}{{","model_info":{"tokenizer.ggml.model":"bert"}}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		show, err := ReadShow(answer)
		if err != nil {
			return
		}
		table, err := Build(show)
		if (err == nil) != table.HasWords() {
			t.Errorf("words: %t, %v", table.HasWords(), err)
		}
		const text = "hello  hello 漢\xff it's\n</s>"
		if got := table.own(text); got < 1 || got > 1+6*len(text) {
			t.Errorf("the bound of a text is %d", got)
		}
	})
}
