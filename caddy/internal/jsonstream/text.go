package jsonstream

import (
	"unicode/utf16"
	"unicode/utf8"
)

// AppendDecoded appends the text of a string, given as it stands between its quotes. A lone
// surrogate reads as U+FFFD, as encoding/json reads it.
func AppendDecoded(text, s []byte) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			text = append(text, s[i])
			continue
		}
		r, length := decodeEscape(s[i:])
		text = utf8.AppendRune(text, r)
		i += length - 1
	}
	return text
}

// decodeEscape reads the escape sequence, or the surrogate pair of two (RFC 8259, 7), that s
// begins with, and returns how many bytes of s that were.
func decodeEscape(s []byte) (r rune, length int) {
	if s[1] != 'u' {
		return rune(simpleEscapes[s[1]]), 2
	}
	r = hexRune(s[2:6])
	if !utf16.IsSurrogate(r) {
		return r, 6
	}
	if len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
		if pair := utf16.DecodeRune(r, hexRune(s[8:12])); pair != utf8.RuneError {
			return pair, 12
		}
	}
	return utf8.RuneError, 6
}

// simpleEscapes are the escapes of one character.
var simpleEscapes = [256]byte{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

// hexRune returns the value of hex digits, which have been checked.
func hexRune(s []byte) rune {
	var r rune
	for _, c := range s {
		switch {
		case isDigit(c):
			c -= '0'
		case c >= 'a':
			c -= 'a' - 10
		default:
			c -= 'A' - 10
		}
		r = r<<4 | rune(c)
	}
	return r
}
