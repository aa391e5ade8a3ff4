package wordtable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
)

// What a vocabulary may hold at most. The largest in use have 262,144 tokens, of at most some
// hundred bytes; a backend can send anything.
const (
	MaxShowBytes  = 128 << 20 // of an answer of /api/show; the largest in use have 30 MB
	maxParts      = 1 << 22   // of such an answer: each takes memory, though it may have only two bytes
	maxTokens     = 1 << 19
	maxMerges     = 1 << 20
	maxPairs      = 1 << 21 // of tokens that can be merged; Gemma 3 has 514,906
	maxTokenBytes = 1024
)

// Kinds of tokens, as llama.cpp numbers them.
const (
	tokenNormal      = 1
	tokenControl     = 3
	tokenUserDefined = 4
)

// Kinds of tokenizers, by their names in a GGUF file.
const (
	kindBPE       = "gpt2"
	kindSPM       = "llama"
	kindWordPiece = "bert"
)

// spaceMark stands for a space in the tokens of all kinds but gpt2.
const spaceMark = "\u2581"

// Show is what Ollama's /api/show says of a model when asked with `verbose`, as far as it
// decides how many tokens a prompt has.
type Show struct {
	Template string `json:"template"`
	System   string `json:"system"`
	Renderer string `json:"renderer"`
	Messages []struct {
		Content string `json:"content"`
	} `json:"messages"`
	Vocabulary Vocabulary `json:"model_info"`
	Projector  Projector  `json:"projector_info"`
}

// Vocabulary is the tokenizer of a model: its tokens, and by what they are merged.
//
//nolint:tagliatelle // the names are those of a GGUF file
type Vocabulary struct {
	gemma3

	Kind   string    `json:"tokenizer.ggml.model"`
	Cut    string    `json:"tokenizer.ggml.pre"` // how a text is cut before it is merged
	Tokens []string  `json:"tokenizer.ggml.tokens"`
	Types  []int     `json:"tokenizer.ggml.token_type"`
	Merges []string  `json:"tokenizer.ggml.merges"`
	Scores []float64 `json:"tokenizer.ggml.scores"`
	// Prefix is whether SPM puts a space before a text, and behind each mark in it. It does so
	// unless the file says otherwise.
	Prefix *bool `json:"tokenizer.ggml.add_space_prefix"`
}

// ReadShow reads an answer of /api/show.
func ReadShow(answer []byte) (*Show, error) {
	if len(answer) > MaxShowBytes {
		return nil, fmt.Errorf("the answer has %d bytes, more than %d", len(answer), MaxShowBytes)
	}
	if count := bytes.Count(answer, []byte{','}); count > maxParts {
		return nil, fmt.Errorf("the answer has %d parts, more than %d", count, maxParts)
	}
	var s Show
	if err := json.Unmarshal(answer, &s); err != nil {
		return nil, fmt.Errorf("the answer is no JSON of /api/show: %w", err)
	}
	return &s, nil
}

// check refuses what no honest tokenizer is: then every byte has to count as a token.
func (v *Vocabulary) check() error {
	switch {
	case v.Kind != kindBPE && v.Kind != kindSPM && v.Kind != kindWordPiece:
		return fmt.Errorf("the tokenizer %.40q has no rule", v.Kind)
	case len(v.Tokens) == 0:
		return errors.New("no tokens were sent")
	case len(v.Tokens) > maxTokens:
		return fmt.Errorf("%d tokens are more than %d", len(v.Tokens), maxTokens)
	case len(v.Merges) > maxMerges:
		return fmt.Errorf("%d merges are more than %d", len(v.Merges), maxMerges)
	case v.Types != nil && len(v.Types) != len(v.Tokens):
		return fmt.Errorf("%d tokens have %d types", len(v.Tokens), len(v.Types))
	case v.Kind == kindBPE && len(v.Merges) == 0:
		return errors.New("no merges were sent")
	case v.Kind == kindSPM && len(v.Scores) != len(v.Tokens):
		return fmt.Errorf("%d tokens have %d scores", len(v.Tokens), len(v.Scores))
	}
	for _, score := range v.Scores {
		if math.IsNaN(score) || math.IsInf(score, 0) {
			return errors.New("a score is no number")
		}
	}
	return v.checkTokens()
}

// checkTokens refuses tokens that are too long or given twice, and a vocabulary that has no
// token for some byte: a text with it would cost more than its bytes.
func (v *Vocabulary) checkTokens() error {
	known := make(map[string]struct{}, len(v.Tokens))
	for i, token := range v.Tokens {
		if len(token) > maxTokenBytes {
			return fmt.Errorf("token %d has %d bytes, more than %d", i, len(token), maxTokenBytes)
		}
		if _, isTwice := known[token]; isTwice && v.isText(i) {
			return fmt.Errorf("token %d is given twice", i)
		}
		known[token] = struct{}{}
	}
	var needed []string
	switch v.Kind {
	case kindBPE:
		for b := range 256 {
			needed = append(needed, string(byteRunes[b]))
		}
	case kindSPM:
		needed = append(needed, spaceMark)
		for b := range 256 {
			needed = append(needed, fmt.Sprintf("<0x%02X>", b))
		}
	}
	for _, token := range needed {
		if _, ok := known[token]; !ok {
			return fmt.Errorf("the token %q is missing", token)
		}
	}
	return nil
}

// isType reports whether a token is of a kind; without kinds all are normal.
func (v *Vocabulary) isType(i, kind int) bool {
	if v.Types == nil {
		return kind == tokenNormal
	}
	return v.Types[i] == kind
}

// isMark reports whether a token is cut out of a text before all else.
func (v *Vocabulary) isMark(i int) bool {
	return v.isType(i, tokenControl) || v.isType(i, tokenUserDefined)
}

// isText reports whether ordinary text can become this token.
func (v *Vocabulary) isText(i int) bool {
	return v.isType(i, tokenNormal) || v.isType(i, tokenUserDefined)
}

// text returns what a token stands for; ok is false for one that is no text of its own.
func (v *Vocabulary) text(i int) (text string, ok bool) {
	token := v.Tokens[i]
	switch {
	case !v.isText(i):
		return "", false
	case v.Kind != kindBPE:
		return strings.ReplaceAll(token, spaceMark, " "), !isByteToken(token)
	case v.isType(i, tokenUserDefined): // stands in the text as it is
		return token, true
	}
	return decodeBytes(token)
}

// hasPrefix reports whether a space is put before texts.
func (v *Vocabulary) hasPrefix() bool { return v.Kind == kindSPM && (v.Prefix == nil || *v.Prefix) }

// isByteToken reports whether a token stands for a byte that no other token covers.
func isByteToken(token string) bool {
	return len(token) == 6 && strings.HasPrefix(token, "<0x") && token[5] == '>'
}

// byteRunes are the characters by which the tokens of gpt2 spell bytes: printable ones as they
// are, the others from U+0100 on. runeBytes is the way back.
var byteRunes, runeBytes = mapBytes()

func mapBytes() (runes [256]rune, back map[rune]byte) {
	back = make(map[rune]byte, 256)
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if b < '!' || b > '~' && b < 0xa1 || b == 0xad {
			r = next
			next++
		}
		runes[b], back[r] = r, byte(b)
	}
	return runes, back
}

// decodeBytes returns the bytes that a token of gpt2 spells; ok is false if it spells none.
func decodeBytes(token string) (text string, ok bool) {
	out := make([]byte, 0, len(token))
	for _, r := range token {
		b, ok := runeBytes[r]
		if !ok {
			return "", false
		}
		out = append(out, b)
	}
	return string(out), true
}
