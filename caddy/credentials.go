package gateway

import (
	"encoding/base64"
	"hash/crc32"
	"net/http"
	"regexp"
	"strings"
)

// A key is nz_, a public lookup of 8, a secret of 32 and a check of 6, all base62: a typing
// error is found without a database, and scanners of repositories can find leaked keys.
const (
	keyPrefix      = "nz_"
	keyBytes       = 49
	lookupBytes    = 11 // with the prefix
	checkBytes     = 6
	base62Alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// credentialHeaders are where the SDKs of the three dialects and Azure's send a key. They
// are removed before a request reaches a backend.
var credentialHeaders = []string{"Authorization", "X-Api-Key", "Api-Key"}

// findKey returns the well-formed key that a request carries, "" if there is none; ok is
// false if it carries more than one line of a kind, or two that disagree: who picks one of
// them may pick another than the next reader.
func findKey(h http.Header) (key string, ok bool) {
	// Two headers with the same key are one credential: some SDKs send both.
	found := false
	for _, name := range credentialHeaders {
		lines := h[name]
		if len(lines) > 1 {
			return "", false
		}
		if len(lines) == 0 {
			continue
		}
		value := lines[0]
		if name == "Authorization" {
			value = authorizationKey(value)
		}
		if found && value != key {
			return "", false
		}
		key, found = value, true
	}
	if !isKey(key) {
		return "", true
	}
	return key, true
}

// authorizationKey returns the token of a Bearer line (RFC 6750) or the password of a Basic
// line (RFC 7617), "" for another scheme.
func authorizationKey(line string) string {
	scheme, rest, _ := strings.Cut(line, " ")
	switch strings.ToLower(scheme) {
	case "bearer":
		return rest
	case "basic":
		decoded, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return ""
		}
		_, password, _ := strings.Cut(string(decoded), ":")
		return password
	}
	return ""
}

// isKey reports whether s has the form and the check of a key; authz knows whether it is one.
func isKey(s string) bool {
	if len(s) != keyBytes || !strings.HasPrefix(s, keyPrefix) {
		return false
	}
	for i := len(keyPrefix); i < keyBytes; i++ {
		if !isAlphanumeric(s[i]) {
			return false
		}
	}
	return keyCheck(s[:keyBytes-checkBytes]) == s[keyBytes-checkBytes:]
}

// keyText matches a key, or one whose check was cut off, wherever a client put it by mistake.
var keyText = regexp.MustCompile(`nz_[0-9A-Za-z_]{40,}`)

// concealed returns a text of the client with no more of a key in it than its lookup.
func concealed(s string) string {
	if !strings.Contains(s, keyPrefix) {
		return s
	}
	return keyText.ReplaceAllStringFunc(s, func(key string) string { return key[:lookupBytes] + "***" })
}

// keyCheck returns the check of a key without one: its CRC32 in base62.
func keyCheck(s string) string {
	sum := crc32.ChecksumIEEE([]byte(s))
	var check [checkBytes]byte
	for i := checkBytes - 1; i >= 0; i-- {
		check[i] = base62Alphabet[sum%62]
		sum /= 62
	}
	return string(check[:])
}
