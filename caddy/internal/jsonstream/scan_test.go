package jsonstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// documents are valid and broken JSON, for tables and as seeds of the fuzzers.
var documents = []string{
	``, ` `, `{}`, `[]`, `null`, `true`, `tru`, `nul`, `0`, `-0`, `01`, `-`, `1.`, `1.5e+3`, `1e`, `.5`,
	`"`, `"a`, `"a"`, `"\u12"`, `"\u00e9\n\/\""`, `"\x"`, "\"\x01\"", `"\ud83d\ude00"`, `"\ud83d"`,
	`{"a":1}`, ` { "a" : [ 1 , 2 ] , "b" : { "c" : null } } `, `{"a":1,}`, `{,}`, `[,]`, `[1,]`, `[1 2]`,
	`{"a"}`, `{"a":}`, `{"a" 1}`, `{a:1}`, `{"a":1}}`, `{"a":1} x`, `{"a":1}{"b":2}`, "\ufeff{}",
	`{"a":"\u0000"}`, "{\"a\":\"\xff\"}", `{"a":1.0E-2,"b":-1}`, `[[[[[[]]]]]]`, `{"a":[{"b":[{}]}]}`,
	`{"model":"x","Model":"y"}`, `{"ſtream":true}`, `{"usage":{"input_tokens":1}}`,
}

// checkJSON takes what encoding/json takes, in UTF-8 and of bounded depth.
func checkJSON(b []byte) error {
	end, err := SkipValue(b, SkipSpace(b, 0), 0)
	if err != nil {
		return err
	}
	if SkipSpace(b, end) != len(b) || !utf8.Valid(b) {
		return ErrSyntax
	}
	return nil
}

func agree(t *testing.T, text []byte) {
	t.Helper()
	err := checkJSON(text)
	if errors.Is(err, ErrDepth) {
		return
	}
	if want := json.Valid(text) && utf8.Valid(text); want != (err == nil) {
		t.Errorf("%q: encoding/json says %v, we say %v", text, want, err)
	}
}

// TestScanAgrees: the scanner takes exactly what encoding/json takes.
func TestScanAgrees(t *testing.T) {
	for _, text := range documents {
		agree(t, []byte(text))
		for i := range len(text) {
			agree(t, []byte(text[:i]))
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, text := range documents {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		agree(t, text)
		sameMembers(t, text)
	})
}

// sameMembers: the members of an object are those that encoding/json finds.
func sameMembers(t *testing.T, text []byte) {
	t.Helper()
	if checkJSON(text) != nil || bytes.TrimSpace(text)[0] != '{' {
		return
	}
	members, _, err := AppendMembers(nil, text, SkipSpace(text, 0), 0)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	var want map[string]json.RawMessage
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	got := map[string]json.RawMessage{}
	for _, m := range members {
		got[string(AppendDecoded(nil, m.Name))] = text[m.Value:m.End]
	}
	equal(t, len(want), len(got), "members")
	for name, value := range want {
		equal(t, string(value), string(got[name]), "member "+name)
	}
}

// TestScanDepth: 128 levels pass, 129 do not, whatever they are made of.
func TestScanDepth(t *testing.T) {
	for _, level := range []string{"[|]", `{"a":|}`} {
		open, shut, _ := strings.Cut(level, "|")
		for depth, want := range map[int]error{MaxDepth: nil, MaxDepth + 1: ErrDepth} {
			text := strings.Repeat(open, depth) + "1" + strings.Repeat(shut, depth)
			equal(t, want, checkJSON([]byte(text)), text[:20])
		}
	}
}

// TestDecoded: a string is the one that encoding/json decodes it to.
func TestDecoded(t *testing.T) {
	for _, text := range documents {
		sameString(t, []byte(text))
	}
	sameString(t, []byte(`"<&>\u2028 \u001f\ud83d\ude00 \ud83dx \udc00 é 漢 😀"`))
	sameString(t, []byte("\"\u2028\u2029\""))
}

func sameString(t *testing.T, text []byte) {
	t.Helper()
	var want string
	if checkJSON(text) != nil || len(text) == 0 || text[0] != '"' || json.Unmarshal(text, &want) != nil {
		return
	}
	raw := bytes.TrimSpace(text)
	raw = raw[1 : len(raw)-1]
	equal(t, want, string(AppendDecoded(nil, raw)), "text "+string(raw))
}

// TestPlain: every byte at every place of texts of several words, after bytes that are nearly one to stop at
// and before any, is stopped at where it must be and nowhere else.
func TestPlain(t *testing.T) {
	before := []byte{0x20, 0x21, 0x23, 0x5b, 0x5d, 0x7f, 0x80, 0xa2, 0xdc, 0xff, 'a', 0x80 | 0x1f}
	behind := []byte{'"', '\\', 0, 0x1f, 'a', 0xff}
	for length := 1; length <= 25; length++ {
		for at := range length {
			for value := range 256 {
				text := bytes.Repeat(before[(at+value)%len(before):][:1], length)
				for i := at + 1; i < length; i++ {
					text[i] = behind[(i+value+length)%len(behind)]
				}
				text[at] = byte(value)
				want := 0
				for want < length && text[want] != '"' && text[want] != '\\' && text[want] >= 0x20 {
					want++
				}
				if got := plain(text); got != want {
					t.Fatalf("%q: stopped at %d, not at %d", text, got, want)
				}
			}
		}
	}
}

func FuzzString(f *testing.F) {
	for _, text := range documents {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) { sameString(t, text) })
}

func equal[T comparable](t testing.TB, want, got T, what string) {
	t.Helper()
	if want != got {
		t.Errorf("%s: want %v, got %v", what, want, got)
	}
}
