package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"
	"testing"
)

// collector keeps what leaves tells.
type collector struct {
	told []string
}

func (c *collector) visit(path *[pathDepth]word, depth int, v leaf) {
	text := string(v.text)
	if len(v.text) >= leafBytes {
		text = "long"
	}
	c.told = append(c.told, fmt.Sprintf("%v %t %s %d", path[:min(depth, pathDepth)], v.isString, text, sizeOf(v)))
}

func sizeOf(v leaf) int64 {
	if v.isString {
		return v.size
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
	var told []string
	walk(v, nil, &told)
	sort.Strings(told)
	return told
}

func walk(v any, path []word, told *[]string) {
	shown := path[:min(len(path), pathDepth)]
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			walk(value, append(path[:len(path):len(path)], words[name]), told)
		}
	case []any:
		for _, value := range v {
			walk(value, append(path[:len(path):len(path)], item), told)
		}
	case string:
		*told = append(*told, fmt.Sprintf("%v true %d", shown, len(v)))
	default:
		*told = append(*told, fmt.Sprintf("%v false", shown))
	}
}

// sizes drops the text of what was told: encoding/json does not keep its spelling.
func sizes(text []byte, split int) []string {
	s := sizer{}
	l := leaves{visitor: &s}
	for len(text) > split {
		l.feed(text[:split])
		text = text[split:]
	}
	l.feed(text)
	l.feed([]byte("\n"))
	sort.Strings(s.told)
	return s.told
}

type sizer struct{ told []string }

func (s *sizer) visit(path *[pathDepth]word, depth int, v leaf) {
	shown := path[:min(depth, pathDepth)]
	if v.isString {
		s.told = append(s.told, fmt.Sprintf("%v true %d", shown, v.size))
		return
	}
	s.told = append(s.told, fmt.Sprintf("%v false", shown))
}

// hasTwice says whether an object names a member twice: encoding/json keeps the last.
func hasTwice(text []byte, start int) bool {
	members, _, err := appendMembers(nil, text, start, 0)
	seen := map[string]bool{}
	for _, m := range members {
		name := string(appendDecoded(nil, m.name))
		if seen[name] || bytes.IndexByte(m.name, '\\') >= 0 {
			return true
		}
		seen[name] = true
	}
	return err != nil
}

func sameLeaves(t *testing.T, text []byte) {
	t.Helper()
	if checkJSON(text) != nil {
		l := leaves{visitor: new(collector)}
		l.feed(text) // must not crash
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

// TestLeavesAgree: every scalar of a document is told once, under the names that lead to
// it, whatever pieces the document comes in.
func TestLeavesAgree(t *testing.T) {
	for _, text := range documents {
		sameLeaves(t, []byte(text))
	}
	for _, name := range []string{"chat", "v1-chat", "v1-messages", "v1-responses", "embed"} {
		sameLeaves(t, []byte(readSample(t, name).body))
	}
}

func FuzzLeaves(f *testing.F) {
	for _, text := range documents {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) { sameLeaves(t, text) })
}

// TestLeavesText: short scalars are told as they are spelled.
func TestLeavesText(t *testing.T) {
	c := new(collector)
	l := leaves{visitor: c}
	l.feed([]byte(`{"done":true,"message":{"content":"a\"b"},"usage":{"output_tokens":12 }}`))
	want := fmt.Sprintf(`[[%d] false true 0 [%d %d] true a\"b 3 [%d %d] false 12 0]`,
		wDone, wMessage, wContent, wUsage, wOutputTokens)
	equal(t, want, fmt.Sprint(c.told), "leaves")
}

// TestLeavesAllocateNothing: reading a frame costs no allocation.
func TestLeavesAllocateNothing(t *testing.T) {
	for kind, frame := range benchFrames {
		u := newUsage(kind, true)
		read := func() { u.readLine([]byte(frame)) }
		read()
		if n := testing.AllocsPerRun(100, read); n > 0 {
			t.Errorf("%v allocations in %s", n, frame)
		}
	}
}

var benchFrames = map[api]string{
	apiChat: `{"model":"toy","created_at":"2026-11-23T06:25:23.065158915Z",` +
		`"message":{"role":"assistant","content":"Rayleigh"},"done":false}` + "\n",
	apiV1Chat: `{"id":"chatcmpl-309","object":"chat.completion.chunk","created":1795415123,` +
		`"model":"toy","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":` +
		`{"role":"assistant","content":"Rayleigh"},"finish_reason":null}]}`,
}

func BenchmarkFrame(b *testing.B) {
	for kind, frame := range benchFrames {
		b.Run(fmt.Sprint(kind), func(b *testing.B) {
			u, text := newUsage(kind, true), []byte(frame)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				u.readLine(text)
			}
		})
	}
}
