package jsonstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sort"
	"testing"
)

const (
	wContent = FirstWord + iota
	wDone
	wMessage
	wOutputTokens
	wUsage
)

var vocabulary = map[string]Word{
	"content": wContent, "done": wDone, "message": wMessage, "output_tokens": wOutputTokens, "usage": wUsage,
}

// collector keeps what leaves emits.
type collector struct {
	seen []string
}

func (c *collector) Visit(path *Path, depth int, v Leaf) {
	text := string(v.Text)
	if len(v.Text) >= LeafBytes {
		text = "long"
	}
	c.seen = append(c.seen, fmt.Sprintf("%v %t %s %d", path[:min(depth, PathDepth)], v.IsString, text, sizeOf(v)))
}

func sizeOf(v Leaf) int64 {
	if v.IsString {
		return v.Size
	}
	return 0
}

// expected walks the same document with encoding/json's tokens.
func expected(text []byte) []string {
	var v any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if decoder.Decode(&v) != nil {
		return nil
	}
	var seen []string
	walk(v, nil, &seen)
	sort.Strings(seen)
	return seen
}

func walk(v any, path []Word, seen *[]string) {
	shown := path[:min(len(path), PathDepth)]
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			walk(value, append(slices.Clip(path), vocabulary[name]), seen)
		}
	case []any:
		for _, value := range v {
			walk(value, append(slices.Clip(path), Item), seen)
		}
	case string:
		*seen = append(*seen, fmt.Sprintf("%v true %d", shown, len(v)))
	default:
		*seen = append(*seen, fmt.Sprintf("%v false", shown))
	}
}

// sizes drops the text of what was seen: encoding/json does not keep its spelling.
func sizes(text []byte, split int) []string {
	s := sizer{}
	l := Reader{Visitor: &s, Vocabulary: vocabulary}
	for len(text) > split {
		l.Feed(text[:split])
		text = text[split:]
	}
	l.Feed(text)
	l.Feed([]byte("\n"))
	sort.Strings(s.seen)
	return s.seen
}

type sizer struct{ seen []string }

func (s *sizer) Visit(path *Path, depth int, v Leaf) {
	shown := path[:min(depth, PathDepth)]
	if v.IsString {
		s.seen = append(s.seen, fmt.Sprintf("%v true %d", shown, v.Size))
		return
	}
	s.seen = append(s.seen, fmt.Sprintf("%v false", shown))
}

// hasTwice says whether an object names a member twice: encoding/json keeps the last.
func hasTwice(text []byte, start int) bool {
	members, _, err := AppendMembers(nil, text, start, 0)
	seen := map[string]bool{}
	for _, m := range members {
		name := string(AppendDecoded(nil, m.Name))
		if seen[name] || bytes.IndexByte(m.Name, '\\') >= 0 {
			return true
		}
		seen[name] = true
	}
	return err != nil
}

func sameLeaves(t *testing.T, text []byte) {
	t.Helper()
	if checkJSON(text) != nil {
		l := Reader{Visitor: new(collector), Vocabulary: vocabulary}
		l.Feed(text) // must not crash
		return
	}
	for i, c := range text {
		if c == '{' && hasTwice(text, i) {
			return
		}
	}
	for _, split := range []int{1, 3, len(text) + 1} {
		want, got := fmt.Sprint(expected(text)), fmt.Sprint(sizes(text, split))
		if want != got {
			t.Errorf("%q in pieces of %d:\nwant %s\ngot  %s", text, split, want, got)
		}
	}
}

// TestLeavesAgree: every scalar of a document is emitted once, under the names that lead to
// it, whatever pieces the document comes in.
func TestLeavesAgree(t *testing.T) {
	for _, text := range documents {
		sameLeaves(t, []byte(text))
	}
	for _, name := range []string{"chat", "v1-chat", "v1-messages", "v1-responses", "embed"} {
		answer, err := os.ReadFile("../../testdata/samples/" + name + ".http")
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := bytes.Cut(bytes.ReplaceAll(answer, []byte("\r\n"), []byte("\n")), []byte("\n\n"))
		sameLeaves(t, body)
	}
}

func FuzzLeaves(f *testing.F) {
	for _, text := range documents {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) { sameLeaves(t, text) })
}

// TestLeavesText: short scalars are emitted as they are spelled.
func TestLeavesText(t *testing.T) {
	c := new(collector)
	l := Reader{Visitor: c, Vocabulary: vocabulary}
	l.Feed([]byte(`{"done":true,"message":{"content":"a\"b"},"usage":{"output_tokens":12 }}`))
	want := fmt.Sprintf(`[[%d] false true 0 [%d %d] true a\"b 3 [%d %d] false 12 0]`,
		wDone, wMessage, wContent, wUsage, wOutputTokens)
	equal(t, want, fmt.Sprint(c.seen), "leaves")
}
