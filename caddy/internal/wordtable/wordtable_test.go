package wordtable

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bytePairs is a vocabulary of all bytes and of some words, each built from its left.
func bytePairs(words ...string) Vocabulary {
	v := Vocabulary{Kind: kindBPE}
	known := map[string]bool{}
	add := func(token string) {
		if !known[token] {
			known[token] = true
			v.Tokens = append(v.Tokens, token)
		}
	}
	for b := range 256 {
		add(string(byteRunes[b]))
	}
	for _, word := range words {
		space, rest := string(byteRunes[' ']), strings.TrimPrefix(word, " ")
		if rest != word && known[rest] {
			v.Merges = append(v.Merges, space+" "+rest)
			add(space + rest)
			continue
		}
		left := string(byteRunes[word[0]])
		for i := 1; i < len(word); i++ {
			right := string(byteRunes[word[i]])
			if !known[left+right] {
				v.Merges = append(v.Merges, left+" "+right)
			}
			left += right
			add(left)
		}
	}
	return v
}

func build(t *testing.T, v Vocabulary) *Table {
	t.Helper()
	table, err := Build(&Show{Vocabulary: v})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// TestBound: a word that the vocabulary holds costs one, whatever stands around it has its
// price, and everything else is a token a byte.
func TestBound(t *testing.T) {
	table := build(t, bytePairs("hello", " hello", "getItem", "getter", "Item", "漢", "  ", "strength"))
	for text, want := range map[string]int{
		"": 1, "hello": 2, " hello": 2, "hello hello": 3, "\nhello": 3, "Hello": 6,
		".hello": 5, ".strength": 6, "'hello": 7, "  hello": 3, "   hello": 3, "    ": 3,
		"itemItem": 8, "漢": 2, "字": 4, "漢字": 5, "a\x00hello": 6, "\xff": 4,
		strings.Repeat("a", 100): 101,
	} {
		if got := table.own(text); got != want {
			t.Errorf("%q: want %d, got %d", text, want, got)
		}
	}
}

// TestMerged: where a tokenizer merges words by themselves, a word costs what its merges leave,
// with the character before it or without, and cut at its capitals or not; but not behind an
// apostrophe, before an accent, in several scripts, or once the budget is used up.
func TestMerged(t *testing.T) {
	v := bytePairs("hello", " hello", "wor", "ld", "üb")
	v.Cut = "qwen2"
	table := build(t, v)
	for text, want := range map[string]int{
		" world": 1 + 3, "world": 1 + 1 + 2, ".world": 1 + 1 + 2, " worldworld": 1 + 5, "\tworld": 1 + 1 + 2,
		" worldHello": 1 + 1 + 2 + 5, " üb": 1 + 2, "'world": 1 + 1 + 5, " world'": 1 + 1 + 5 + 1,
		" world\u0301": 1 + 1 + 5 + 2, " übхорошо": 1 + 2 + 12, " üb漢": 1 + 1 + 2 + 3, " übÜ": 1 + 1 + 2 + 2,
		" " + strings.Repeat("world", 12): 1 + 1 + 24, " " + strings.Repeat("world", 13): 1 + 1 + 65,
	} {
		if got := table.own(text); got != want {
			t.Errorf("%q: want %d, got %d", text, want, got)
		}
	}
	budget := 9
	equal(t, 1+3+6, table.Bound([]byte(" world world"), &budget), "a budget of one word")
	equal(t, 4, budget, "what is left of it")
	v.Cut = "another"
	equal(t, 7, build(t, v).own(" world"), "a tokenizer that is not known")
	v.Cut, v.Types = "qwen2", make([]int, len(v.Tokens))
	for i := range v.Types {
		v.Types[i] = tokenNormal
	}
	v.Tokens, v.Types = append(v.Tokens, "<a"), append(v.Types, tokenControl)
	equal(t, 7, build(t, v).own(" world"), "a mark that ends within a word")
	path := filepath.Join(t.TempDir(), "a.table")
	must(t, table.Save(path))
	again, err := Open(path)
	must(t, err)
	equal(t, 4, again.own(" world"), "from a file")
}

// TestUnreachable: a word that no merges make is not one token, and neither is one that a mark
// is cut out of.
func TestUnreachable(t *testing.T) {
	v := bytePairs("hello", " hello")
	v.Tokens = append(v.Tokens, "never", "ell")
	v.Types = make([]int, len(v.Tokens))
	for i := range v.Types {
		v.Types[i] = tokenNormal
	}
	table := build(t, v)
	equal(t, 6, table.own("never"), "a word without merges")
	v.Types[len(v.Types)-1] = tokenControl
	v.Tokens[len(v.Tokens)-1] = "lo"
	for i, token := range v.Tokens[:len(v.Tokens)-1] {
		if token == "lo" {
			v.Types[i] = tokenNormal
		}
	}
	equal(t, 6, build(t, v).own("hello"), "a word with a mark in it")
}

// TestUnknown: without any knowledge a byte beyond ASCII may cost six.
func TestUnknown(t *testing.T) {
	equal(t, 1+2+18, Plain([]byte("ab漢")), "plain")
	table, err := Build(&Show{Vocabulary: Vocabulary{Kind: "t5"}})
	equal(t, false, err == nil, "an error")
	equal(t, 1+2+18, table.own("ab漢"), "of t5")
}

// TestFile: a table that was saved gives the same bounds, whatever becomes of its file while it is
// used; a file that is not whole gives none.
func TestFile(t *testing.T) {
	table, err := Build(&Show{Vocabulary: bytePairs("hello", " hello"), System: "hello hello"})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.table")
	if err = table.Save(path); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, table.Framing, again.Framing, "framing")
	equal(t, 3, again.Framing.Base, "the system's text")
	for _, text := range []string{"hello hello", " x", "", "\n"} {
		equal(t, table.own(text), again.own(text), text)
	}
	equal(t, 5, again.TokenBytes(len(again.lengths)/2-2), "the bytes of hello")
	equal(t, maxTokenBytes, again.TokenBytes(-1), "of no token")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	must(t, os.WriteFile(path, bytes.Repeat([]byte{0xff}, len(content)), 0o600)) // the same file, in place
	equal(t, 3, again.own("hello hello"), "of a file that was overwritten")
	must(t, os.Truncate(path, 0))
	equal(t, 3, again.own("hello hello"), "of a file that was emptied")
	damaged := append([]byte{}, content...)
	damaged[len(damaged)/2] ^= 1
	for name, wrong := range map[string][]byte{
		"empty": {}, "cut": content[:len(content)-1], "half": content[:len(content)/2], "a bit": damaged,
		"longer": append(append([]byte{}, content...), 0),
	} {
		if err = os.WriteFile(path, wrong, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err = Open(path); err == nil {
			t.Errorf("%s: a damaged file was opened", name)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	equal(t, 1, len(entries), fmt.Sprint("files that were left: ", err))
}

// TestFraming: text of a template counts once, for each message, or with tools, by where it
// stands; what can't be read counts for each message.
func TestFraming(t *testing.T) {
	const marked = 1 + 6 // a text of six bytes
	for template, want := range map[string]Framing{
		"": {SystemText: 1},
		`{{ range .Messages }}abcdef{{ .Content }}{{ end }}`:                                                   {0, 0, marked, 1, 0},
		`abcdef{{ range .Messages }}{{ .Content }}{{ end }}`:                                                   {marked, 0, 0, 1, 0},
		`{{ if .Tools }}abcdef{{ end }}{{ range .Messages }}{{ end }}`:                                         {0, marked, 0, 1, 0},
		`{{ range .Messages }}{{ if eq .Role "user" }}abcdef{{ else }}abc{{ end }}{{ end }}`:                   {0, 0, marked, 1, 0},
		`{{ range .Messages }}{{ if and $.Tools $last }}abcdef{{ end }}{{ end }}`:                              {0, marked, 0, 1, 0},
		`{{ range .Messages }}{{ range .ToolCalls }}abcdef{{ end }}{{ end }}`:                                  {0, 0, 0, 1, 0},
		`{{ .System }}abcdef{{ .Prompt }}`:                                                                     {33, 0, 33, 2, 0},
		`{{ .System }}{{ range .Messages }}{{ .Content }}{{ end }}`:                                            {0, 0, 0, 2, 0},
		`{{ .System }}{{ range .Messages }}{{ if eq .Role "user" }}{{ .Content }}{{ end }}{{ end }}`:           {0, 0, 0, 1, 0},
		`{{ .System }}{{ range .Messages }}{{ if eq .Role "user" }}{{ else }}{{ .Content }}{{ end }}{{ end }}`: {0, 0, 0, 2, 0},
		`{{ range .Messages }}abcdef`:                                                                          {28, 0, 28, 2, 0},
		"{% for m in messages %}\n  {{- 'abcdef' + m['role'] }}\n{% endfor %}":                                 {0, 0, marked, 1, 0},
		"{% if tools %}{{ 'abcdef' }}{% endif %}{% for m in messages %}{% endfor %}":                           {0, marked, 0, 1, 0},
		"{% for m in messages %}{{ raise_exception('abcdef') }}{% endfor %}":                                   {0, 0, 0, 1, 0},
		"{# abcdef #}{% for m in messages %}{% if loop.last %}abcdef{% endif %}{% endfor %}":                   {marked, 0, 0, 1, 0},
	} {
		table, _ := Build(&Show{Template: template, Vocabulary: Vocabulary{Kind: kindBPE}})
		equal(t, want, table.Framing, template)
	}
	table, _ := Build(&Show{Template: "abcdef", Renderer: "qwen3", Vocabulary: Vocabulary{Kind: kindBPE}})
	equal(t, Framing{SystemText: 1}, table.Framing, "a renderer in the template's place")
}

// TestReadShow: the fields are those of Ollama; what is no JSON is an error.
func TestReadShow(t *testing.T) {
	text, err := json.Marshal(map[string]any{"system": "s", "model_info": bytePairs("hello")})
	if err != nil {
		t.Fatal(err)
	}
	show, err := ReadShow(text)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, 260, len(show.Vocabulary.Tokens), "tokens")
	for _, wrong := range []string{"", "{", `{"model_info":{"tokenizer.ggml.tokens":"a"}}`, "null x"} {
		if _, err = ReadShow([]byte(wrong)); err == nil {
			t.Errorf("%q was read", wrong)
		}
	}
}

// TestBeyondASCII: bytes from 0x80 on are counted wherever they stand, and no others.
func TestBeyondASCII(t *testing.T) {
	all := make([]byte, 256)
	for value := range all {
		all[value] = byte(value)
	}
	for at := range all {
		for end := at; end <= len(all); end++ {
			equal(t, max(0, end-max(at, 0x80)), BeyondASCII(all[at:end]), string(all[at:end]))
		}
	}
}

// FuzzBound: a bound is never below one and never above a token a byte.
func FuzzBound(f *testing.F) {
	table, err := Build(&Show{Vocabulary: bytePairs("hello", " hello", "漢", "Item")})
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{"hello  hello", "漢字\xff", " it's\nItemItem"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got := table.own(string(text))
		if got < 1 || got > 1+3*len(text) {
			t.Errorf("%q: %d", text, got)
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t testing.TB, want, got T, what string) {
	t.Helper()
	if want != got {
		t.Errorf("%s: want %v, got %v", what, want, got)
	}
}
