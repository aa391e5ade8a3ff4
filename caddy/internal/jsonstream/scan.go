// Package jsonstream reads JSON where encoding/json would do too much: it finds the members
// of an object by their places in the source, so that an edit keeps every other byte, and it
// reads the scalars of an answer that arrives in pieces without holding or allocating
// anything. What it accepts is exactly what encoding/json accepts, in UTF-8 and nested at
// most MaxDepth levels deep; the tests compare the two.
//
// It knows nothing of Caddy, HTTP or Ollama.
package jsonstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
)

// MaxDepth is how deep values may nest. Deeper JSON is of no use to a model, and the
// encoding/json of the backend would recurse for it (a denial of service: RFC 8259, 9).
const MaxDepth = 128

var (
	// ErrSyntax reports text that is not JSON.
	ErrSyntax = errors.New("not one JSON value")
	// ErrDepth reports values that nest deeper than MaxDepth.
	ErrDepth = errors.New("nested too deeply")
)

// Member is one name and value of an object, by their places in the source.
type Member struct {
	Name  []byte // between the quotes, as sent
	Start int    // of the name's first quote
	Value int    // of the value
	End   int    // behind the value
}

// AppendMembers appends the members of the object that begins at b[i], and returns the
// place behind it. The object counts as standing depth levels deep. It returns ErrSyntax or
// ErrDepth for what it does not accept; what has been appended is then of no use.
func AppendMembers(list []Member, b []byte, i, depth int) ([]Member, int, error) {
	if depth >= MaxDepth {
		return list, i, ErrDepth
	}
	i = SkipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return list, i + 1, nil
	}
	for {
		m, end, err := scanMember(b, i, depth+1)
		if err != nil {
			return list, i, err
		}
		list = append(list, m)
		next, closed, err := skipSeparator(b, end, '}')
		if err != nil || closed {
			return list, next, err
		}
		i = next
	}
}

// scanMember reads the name, the colon and the value at b[i].
func scanMember(b []byte, i, depth int) (Member, int, error) {
	name, value, err := ScanName(b, i)
	if err != nil {
		return Member{}, i, err
	}
	end, err := SkipValue(b, value, depth)
	return Member{Name: name, Start: i, Value: value, End: end}, end, err
}

// ScanName reads the name and the colon at b[i], and returns the name between its quotes and
// the place of the value.
func ScanName(b []byte, i int) (name []byte, value int, err error) {
	if i >= len(b) || b[i] != '"' {
		return nil, i, ErrSyntax
	}
	end, err := SkipString(b, i)
	if err != nil {
		return nil, i, err
	}
	colon := SkipSpace(b, end)
	if colon >= len(b) || b[colon] != ':' {
		return nil, i, ErrSyntax
	}
	return b[i+1 : end-1], SkipSpace(b, colon+1), nil
}

// skipSeparator passes the comma behind a value, or the end of its object or array.
func skipSeparator(b []byte, i int, end byte) (next int, closed bool, err error) {
	i = SkipSpace(b, i)
	if i >= len(b) {
		return i, false, ErrSyntax
	}
	switch b[i] {
	case end:
		return i + 1, true, nil
	case ',':
		return SkipSpace(b, i+1), false, nil
	}
	return i, false, ErrSyntax
}

// SkipValue returns the place behind the JSON value that begins at b[i], which counts as
// standing depth levels deep.
func SkipValue(b []byte, i, depth int) (int, error) {
	if i >= len(b) {
		return i, ErrSyntax
	}
	switch c := b[i]; {
	case c == '"':
		return SkipString(b, i)
	case c == '{':
		return skipObject(b, i, depth)
	case c == '[':
		return skipArray(b, i, depth)
	case c == '-' || isDigit(c):
		return skipNumber(b, i)
	case c == 't':
		return skipLiteral(b, i, "true")
	case c == 'f':
		return skipLiteral(b, i, "false")
	case c == 'n':
		return skipLiteral(b, i, "null")
	}
	return i, ErrSyntax
}

// skipObject returns the place behind the object that begins at b[i].
func skipObject(b []byte, i, depth int) (int, error) {
	if depth >= MaxDepth {
		return i, ErrDepth
	}
	i = SkipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1, nil
	}
	for {
		_, end, err := scanMember(b, i, depth+1)
		if err != nil {
			return i, err
		}
		next, closed, err := skipSeparator(b, end, '}')
		if err != nil || closed {
			return next, err
		}
		i = next
	}
}

// skipArray returns the place behind the array that begins at b[i].
func skipArray(b []byte, i, depth int) (int, error) {
	if depth >= MaxDepth {
		return i, ErrDepth
	}
	i = SkipSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1, nil
	}
	for {
		end, err := SkipValue(b, i, depth+1)
		if err != nil {
			return i, err
		}
		next, closed, err := skipSeparator(b, end, ']')
		if err != nil || closed {
			return next, err
		}
		i = next
	}
}

// SkipString returns the place behind the string whose opening quote is b[i]. Control
// characters must be escaped, and only the escapes of RFC 8259, 7, are ones; whether the
// bytes are UTF-8 is for the caller to check, once for the whole text.
func SkipString(b []byte, i int) (int, error) {
	for i++; ; {
		i += plain(b[i:])
		if i == len(b) {
			return i, ErrSyntax
		}
		switch b[i] {
		case '"':
			return i + 1, nil
		case '\\':
			n := escapeLength(b[i:])
			if n == 0 {
				return i, ErrSyntax
			}
			i += n
		default:
			return i, ErrSyntax
		}
	}
}

// A byte in each place of a word, and the highest bit of each.
const (
	eachByte = 0x0101010101010101
	highBits = 0x80 * eachByte
)

// plain counts the bytes before the first quote, backslash or control character, eight at a time: in a word
// each of these leaves the high bit of its byte set, and only bytes behind the first may have it set without
// being one (Bit Twiddling Hacks, "Determine if a word has a byte less than n").
func plain(b []byte) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		word := binary.LittleEndian.Uint64(b[i:])
		quote, backslash := word^('"'*eachByte), word^('\\'*eachByte)
		found := (quote-eachByte)&^quote | (backslash-eachByte)&^backslash | (word-0x20*eachByte)&^word
		if found &= highBits; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(b) && b[i] != '"' && b[i] != '\\' && b[i] >= 0x20 {
		i++
	}
	return i
}

// escapeLength returns the length of the escape sequence that b begins with, 0 if it is none.
func escapeLength(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) >= 6 && isHex(b[2]) && isHex(b[3]) && isHex(b[4]) && isHex(b[5]) {
			return 6
		}
	}
	return 0
}

// skipNumber returns the place behind the number that begins at b[i], by the grammar of RFC
// 8259, 6: no leading zeros, no +, digits on both sides of the point.
func skipNumber(b []byte, i int) (int, error) {
	if b[i] == '-' {
		i++
	}
	switch {
	case i < len(b) && b[i] == '0':
		i++
	default:
		var ok bool
		if i, ok = skipDigits(b, i); !ok {
			return i, ErrSyntax
		}
	}
	if i < len(b) && b[i] == '.' {
		var ok bool
		if i, ok = skipDigits(b, i+1); !ok {
			return i, ErrSyntax
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		var ok bool
		if i, ok = skipDigits(b, i); !ok {
			return i, ErrSyntax
		}
	}
	return i, nil
}

// skipDigits passes digits; ok is false if there is none.
func skipDigits(b []byte, i int) (end int, ok bool) {
	start := i
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	return i, i > start
}

// skipLiteral passes one of true, false and null.
func skipLiteral(b []byte, i int, word string) (int, error) {
	if !bytes.HasPrefix(b[i:], []byte(word)) {
		return i, ErrSyntax
	}
	return i + len(word), nil
}

// SkipSpace returns the place of the first byte from b[i] on that is not whitespace.
func SkipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isHex(c byte) bool {
	return isDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')
}
