package gateway

import (
	"bytes"
	"errors"
)

// maxDepth is how deep the values of a request may nest. Deeper JSON is of no use to a
// model, and encoding/json behind us would recurse for it.
const maxDepth = 128

var (
	errSyntax = errors.New("not one JSON value")
	errDepth  = errors.New("nested too deeply")
)

// member is one name and value of an object, by their places in the source.
type member struct {
	name              []byte // between the quotes, as sent
	start, value, end int    // of the name's quote, of the value, behind the value
}

// appendMembers appends the members of the object that begins at b[i], and returns the
// place behind it.
func appendMembers(list []member, b []byte, i, depth int) ([]member, int, error) {
	if depth >= maxDepth {
		return list, i, errDepth
	}
	i = skipSpace(b, i+1)
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
func scanMember(b []byte, i, depth int) (member, int, error) {
	name, value, err := scanName(b, i)
	if err != nil {
		return member{}, i, err
	}
	end, err := skipValue(b, value, depth)
	return member{name: name, start: i, value: value, end: end}, end, err
}

// scanName reads the name and the colon at b[i], and returns the place of the value.
func scanName(b []byte, i int) (name []byte, value int, err error) {
	if i >= len(b) || b[i] != '"' {
		return nil, i, errSyntax
	}
	end, err := skipString(b, i)
	if err != nil {
		return nil, i, err
	}
	colon := skipSpace(b, end)
	if colon >= len(b) || b[colon] != ':' {
		return nil, i, errSyntax
	}
	return b[i+1 : end-1], skipSpace(b, colon+1), nil
}

// skipSeparator passes the comma behind a value, or the end of its object or array.
func skipSeparator(b []byte, i int, end byte) (next int, closed bool, err error) {
	i = skipSpace(b, i)
	if i >= len(b) {
		return i, false, errSyntax
	}
	switch b[i] {
	case end:
		return i + 1, true, nil
	case ',':
		return skipSpace(b, i+1), false, nil
	}
	return i, false, errSyntax
}

// skipValue returns the place behind the JSON value that begins at b[i].
func skipValue(b []byte, i, depth int) (int, error) {
	if i >= len(b) {
		return i, errSyntax
	}
	switch c := b[i]; {
	case c == '"':
		return skipString(b, i)
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
	return i, errSyntax
}

func skipObject(b []byte, i, depth int) (int, error) {
	if depth >= maxDepth {
		return i, errDepth
	}
	i = skipSpace(b, i+1)
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

func skipArray(b []byte, i, depth int) (int, error) {
	if depth >= maxDepth {
		return i, errDepth
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1, nil
	}
	for {
		end, err := skipValue(b, i, depth+1)
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

func skipString(b []byte, i int) (int, error) {
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1, nil
		case c < 0x20:
			return i, errSyntax
		case c == '\\':
			n := escapeLength(b[i:])
			if n == 0 {
				return i, errSyntax
			}
			i += n - 1
		}
	}
	return i, errSyntax
}

// escapeLength is the length of the escape sequence that b begins with, 0 if it is none.
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
			return i, errSyntax
		}
	}
	if i < len(b) && b[i] == '.' {
		var ok bool
		if i, ok = skipDigits(b, i+1); !ok {
			return i, errSyntax
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		var ok bool
		if i, ok = skipDigits(b, i); !ok {
			return i, errSyntax
		}
	}
	return i, nil
}

func skipDigits(b []byte, i int) (int, bool) {
	start := i
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	return i, i > start
}

func skipLiteral(b []byte, i int, word string) (int, error) {
	if !bytes.HasPrefix(b[i:], []byte(word)) {
		return i, errSyntax
	}
	return i + len(word), nil
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isHex(c byte) bool {
	return isDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')
}
