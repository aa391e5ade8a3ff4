package gateway

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"
)

// TestTakeKey: every carrier works, what is no key is none, two keys are a problem, and what goes
// on is one header with the key.
func TestTakeKey(t *testing.T) {
	key := testKey()
	other := keyOf("nz_3bVSxmbb")
	basic := func(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }
	for _, c := range []struct {
		name   string
		header http.Header
		want   string
		ok     bool
	}{
		{"none", http.Header{}, "", true},
		{"bearer", http.Header{"Authorization": {"Bearer " + key}}, key, true},
		{"scheme in any case", http.Header{"Authorization": {"bEaReR " + key}}, key, true},
		{"x-api-key", http.Header{"X-Api-Key": {key}}, key, true},
		{"api-key", http.Header{"Api-Key": {key}}, key, true},
		{"basic", http.Header{"Authorization": {basic("anyone:" + key)}}, key, true},
		{"basic without user", http.Header{"Authorization": {basic(":" + key)}}, key, true},
		{"key as user", http.Header{"Authorization": {basic(key + ":")}}, "", true},
		{"broken basic", http.Header{"Authorization": {"Basic ???"}}, "", true},
		{"no scheme", http.Header{"Authorization": {key}}, "", true},
		{"two spaces", http.Header{"Authorization": {"Bearer  " + key}}, "", true},
		{"tab", http.Header{"Authorization": {"Bearer\t" + key}}, "", true},
		{"empty", http.Header{"Authorization": {""}}, "", true},
		{"two in one", http.Header{"Authorization": {"Bearer " + key + ", Bearer " + key}}, "", true},
		{"short", http.Header{"X-Api-Key": {key[:48]}}, "", true},
		{"long", http.Header{"X-Api-Key": {key + "0"}}, "", true},
		{"wrong check", http.Header{"X-Api-Key": {key[:48] + "?"}}, "", true},
		{"changed", http.Header{"X-Api-Key": {key[:20] + "Z" + key[21:]}}, "", true},
		{"not base62", http.Header{"X-Api-Key": {"nz_3bVSxmb\xff" + key[11:]}}, "", true},
		{"two lines", http.Header{"Authorization": {"Bearer " + key, "Bearer " + key}}, key, true},
		{"two keys", http.Header{"Authorization": {"Bearer " + key}, "X-Api-Key": {other}}, "", false},
		{"two keys in two lines", http.Header{"X-Api-Key": {other, key}}, "", false},
		{"three keys, two the same", http.Header{"X-Api-Key": {key, other, key}}, "", false},
		{"key and junk", http.Header{"Authorization": {"Bearer x"}, "X-Api-Key": {key}}, key, true},
		{"key and nothing", http.Header{"Authorization": {"Bearer " + key}, "X-Api-Key": {""}}, key, true},
		{"another service's", http.Header{"Authorization": {"Bearer " + key}, "X-Api-Key": {"sk-ant-1"}}, key, true},
		{"twice the same", http.Header{"Authorization": {"Bearer " + key}, "X-Api-Key": {key}}, key, true},
	} {
		got, ok := takeKey(c.header, target{})
		equal(t, c.want, got, c.name)
		equal(t, c.ok, ok, c.name)
		left := http.Header{}
		if c.want != "" {
			left.Set("Authorization", "Bearer "+c.want)
		}
		equal(t, fmt.Sprint(left), fmt.Sprint(c.header), c.name)
	}
}

// TestKeyCheck: the check is base62 of the CRC32, padded to six.
func TestKeyCheck(t *testing.T) {
	equal(t, "000000", keyCheck(""), "of nothing")
	equal(t, 6, len(keyCheck("nz_")), "length")
	equal(t, true, isKey(testKey()), testKey())
}
