package gateway

import (
	"encoding/base64"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// A client may put its key where none belongs: whole, cut, with more behind it or in pieces, in another
// case, in escapes or in base64. Nothing of it is kept, shown or passed on but the lookup. That is found in
// the whole text, before it is cut to a bound: what a bound leaves of a key looks like none.
const (
	concealment = "***"

	// maxUnescapings is how often escapes are undone in a search for a key; beyond that there is one.
	maxUnescapings = 8
)

var (
	escape = regexp.MustCompile(`%[0-9a-fA-F]{2}`)

	// keyText matches more of a key than its lookup, and what hangs on it.
	keyText = regexp.MustCompile(`[nN][zZ]_[0-9A-Za-z]{9}[0-9A-Za-z_%]*`)
	// keyStart matches a lookup, or as much of one as there is.
	keyStart = regexp.MustCompile(`[nN][zZ]_[0-9A-Za-z]{0,8}`)
	// keyPieces matches likewise where something may stand between the letters.
	keyPieces = regexp.MustCompile(`(?s)[nN][zZ]_(?:[^0-9A-Za-z]*[0-9A-Za-z]){9}`)

	// keyMost matches so much in pieces that it would be the most of a key.
	keyMost = regexp.MustCompile(`(?s)[nN][zZ]_(?:[^0-9A-Za-z]*[0-9A-Za-z]){20}`)

	// keyBase64 matches what the prefix is in base64, by the three places where it can begin.
	keyBase64 = regexp.MustCompile(`bnpf|[2GWm]56X|uel[89]`)
	// base64Text matches what is long enough to be more of a key than its lookup, in base64 (RFC 4648, 4 and 5).
	base64Text = regexp.MustCompile(`[0-9A-Za-z+/_-]{16,}(?:%[0-9A-Za-z+/_%=-]*|=*)`)
)

// concealed returns a value of the client, such as a path or a model's name, without a key: behind its
// lookup nothing is left, since a key may be in pieces.
func concealed(s string) string {
	if !mayBeginKey(s) {
		return s
	}
	plain, ok := unescaped(s)
	if ok && !keyPieces.MatchString(plain) && base64Key(plain) < 0 {
		return s
	}
	if at := escape.FindStringIndex(s); at != nil {
		s = s[:at[0]]
	}
	if at := base64Key(s); at >= 0 {
		s = s[:at]
	}
	if at := keyStart.FindStringIndex(s); at != nil {
		s = s[:at[1]]
	}
	return s + concealment
}

// concealedName returns the name of an end user without a key. One such as nz_team/alice is none: it takes
// the most of a key in pieces, or more than a lookup in one.
func concealedName(s string) string {
	s = concealedWithin(s)
	if plain, ok := unescaped(s); !ok || keyMost.MatchString(plain) {
		return concealed(s)
	}
	return s
}

// concealedWithin returns a text, such as a message of a log, without the keys in it. What stands between
// and behind them stays.
func concealedWithin(s string) string {
	if !mayBeginKey(s) {
		return s
	}
	s = keyText.ReplaceAllStringFunc(s, func(key string) string { return key[:lookupBytes] + concealment })
	s = base64Text.ReplaceAllStringFunc(s, func(text string) string {
		if isBase64Key(text) {
			return concealment
		}
		return text
	})
	if plain, ok := unescaped(s); !ok || keyText.MatchString(plain) || base64Key(plain) >= 0 {
		return s[:escape.FindStringIndex(s)[0]] + concealment
	}
	return s
}

// concealedStart returns as much of a concealed value as is kept.
func concealedStart(s string, most int) string {
	s = concealed(s)
	return s[:min(len(s), most)]
}

// concealedQuery returns a query of which each part is concealed.
func concealedQuery(query string) string {
	if !mayBeginKey(query) {
		return query
	}
	parts := strings.Split(query, "&")
	for i, part := range parts {
		parts[i] = concealed(part)
	}
	return strings.Join(parts, "&")
}

// concealHeaders conceals the values of headers, and removes those that have a key in their names.
func concealHeaders(h http.Header) {
	for name, values := range h {
		if concealed(name) != name {
			delete(h, name)
		}
		for i := range values {
			values[i] = concealed(values[i])
		}
	}
}

// mayBeginKey reports quickly whether a key could begin in a text.
func mayBeginKey(s string) bool {
	return strings.IndexByte(s, '_') >= 0 || strings.IndexByte(s, '%') >= 0 ||
		strings.Contains(s, "bnpf") || strings.Contains(s, "56X") || strings.Contains(s, "uel")
}

// base64Key returns where in a text a key stands in base64, or something with a key in it; -1 if none does.
func base64Key(s string) int {
	if !keyBase64.MatchString(s) {
		return -1
	}
	for _, at := range base64Text.FindAllStringIndex(s, -1) {
		if isBase64Key(s[at[0]:at[1]]) {
			return at[0]
		}
	}
	return -1
}

// isBase64Key reports whether there is a key in what base64Text matches, which need not be its beginning.
func isBase64Key(text string) bool {
	if !keyBase64.MatchString(text) {
		return false
	}
	text, _, _ = strings.Cut(urlAlphabet.Replace(text), "%")
	text = strings.TrimRight(text, "=")
	for from := range 4 {
		digits := text[from:]
		if len(digits)%4 == 1 {
			digits = digits[:len(digits)-1]
		}
		decoded, _ := base64.RawStdEncoding.DecodeString(digits)
		if keyText.Match(decoded) {
			return true
		}
	}
	return false
}

var urlAlphabet = strings.NewReplacer("-", "+", "_", "/")

// unescaped undoes the escapes of a text, and those that come to light by that; false if there is no end.
func unescaped(s string) (plain string, ok bool) {
	for range maxUnescapings {
		if !escape.MatchString(s) {
			return s, true
		}
		s = escape.ReplaceAllStringFunc(s, func(text string) string {
			c, _ := strconv.ParseUint(text[1:], 16, 8)
			return string([]byte{byte(c)})
		})
	}
	return s, false
}
