package gateway

import (
	"encoding/base64"
	"hash/crc32"
	"net/http"
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

// takeKey returns the well-formed key that a request carries, "" if there is none, and leaves it
// as the request's only credential, in one header: authz need not find it again, and can't find
// another. What is no key is none: clients send empty values and those of other services beside
// ours. ok is false if there are two keys: who picks one of them may pick the wrong one.
// A signature (see signed) counts as a key, and stays in no header. A key in the path (see target) is
// one beside those in headers.
func takeKey(h http.Header, t target) (key string, ok bool) {
	ok = true
	if isKey(t.key) {
		key = t.key
	}
	for _, name := range credentialHeaders {
		for _, value := range h[name] {
			isSignature := false
			if name == "Authorization" {
				if isSignature = isSigned(value); !isSignature {
					value = authorizationKey(value)
				}
			}
			if isSignature || isKey(value) {
				ok = ok && (key == "" || key == value)
				key = value
			}
		}
		delete(h, name)
	}
	if !ok {
		return "", false
	}
	if len(key) == keyBytes {
		h.Set("Authorization", t.credential(key))
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
