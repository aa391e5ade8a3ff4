package gateway

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// signedLine is the Authorization of a client that signs, as in the contract's sample.
func signedLine(t testing.TB) (line string, sample ask) {
	t.Helper()
	must(t, json.Unmarshal([]byte(golden(t, "ask-signed")), &sample))
	return sample.Signed.Key + ":" + sample.Signed.Signature, sample
}

// TestIsSigned: an Authorization line is a signature if it has an Ed25519 public key and 64 bytes
// of a signature in strict base64, and nothing else is.
func TestIsSigned(t *testing.T) {
	line, _ := signedLine(t)
	equal(t, true, isSigned(line), "the sample")
	for name, spoiled := range map[string]string{
		"empty": "", "short": line[:len(line)-1], "long": line + "=", "a scheme": "Bearer " + line,
		"another algorithm":  strings.Replace(line, "AAAAC3", "AAAAB3", 1),
		"no colon":           strings.Replace(line, ":", "+", 1),
		"bits in the end":    line[:len(line)-3] + "h==",
		"no base64 in key":   line[:40] + "-" + line[41:],
		"no base64 in rest":  line[:100] + "_" + line[101:],
		"padding too early":  line[:len(line)-4] + "A===",
		"a line break in it": line[:100] + "\n" + line[101:],
	} {
		equal(t, false, isSigned(spoiled), name)
	}
}

// TestTakeSigned: a signature is a key that stays in no header, and no second one may stand beside it.
func TestTakeSigned(t *testing.T) {
	line, _ := signedLine(t)
	other := line[:len(line)-5] + "B" + line[len(line)-4:]
	for _, c := range []struct {
		name   string
		header http.Header
		want   string
		ok     bool
	}{
		{"alone", http.Header{"Authorization": {line}}, line, true},
		{"twice", http.Header{"Authorization": {line, line}}, line, true},
		{"and junk", http.Header{"Authorization": {line}, "X-Api-Key": {"sk-ant-1"}}, line, true},
		{"in another header", http.Header{"X-Api-Key": {line}}, "", true},
		{"as a token", http.Header{"Authorization": {"Bearer " + line}}, "", true},
		{"and a key", http.Header{"Authorization": {line}, "X-Api-Key": {testKey()}}, "", false},
		{"and a token", http.Header{"Authorization": {line, "Bearer " + testKey()}}, "", false},
		{"and another", http.Header{"Authorization": {line, other}}, "", false},
	} {
		got, ok := takeKey(c.header, target{})
		equal(t, c.want, got, c.name)
		equal(t, c.ok, ok, c.name)
		equal(t, 0, len(c.header), c.name+": headers that are left")
	}
}

// TestTimestamp: the time is the one `ts` of a query, in the one form that a client can have signed.
func TestTimestamp(t *testing.T) {
	for query, want := range map[string]int64{
		"ts=1764115086": 1764115086, "ts=0": 0, "x=1&ts=7": 7, "ts=99999999999": 99999999999,
		"": -1, "ts=": -1, "ts=-1": -1, "ts=+7": -1, "ts=07": -1, "ts=7.0": -1, "ts=7&ts=7": -1, "TS=7": -1,
		"ts=0x7": -1, "ts=%37": 7, "ts=100000000000": -1, "ts=7;ts=8": -1, "ts=%zz": -1, "ts= 7": -1,
	} {
		got := timestamp(query)
		if want < 0 {
			equal(t, true, got == nil, query)
		} else {
			equal(t, true, got != nil && *got == want, query)
		}
	}
}

// TestHandle: the public handle of a key that signs is the one that authz gives it.
func TestHandle(t *testing.T) {
	_, sample := signedLine(t)
	equal(t, *sample.Lookup, sample.Signed.handle(), "handle")
}

// TestSignedAsk: what authz needs to verify is in each Ask; neither it nor the backend gets the
// signature in a header or a query, and each signature is asked for before its body is read.
func TestSignedAsk(t *testing.T) {
	s := startStack(t)
	t.Cleanup(s.stop)
	line, sample := signedLine(t)
	query := "?ts=" + strconv.FormatInt(*sample.Signed.TS, 10)
	for i := range 2 {
		a := s.send(t, http.MethodPost, "/api/chat"+query, `{"model":"m"}`, "Authorization", line)
		equal(t, http.StatusOK, a.status, a.body)
		equal(t, i+1, len(s.authz.aboutKeys()), "Asks about the key")
		for _, got := range []ask{s.authz.last(t), s.authz.aboutKeys()[i]} {
			equalJSON(t, sample.Signed, got.Signed, "signed")
			equal(t, *sample.Lookup, *got.Lookup, "lookup")
			equal(t, "/api/chat", got.Path, "path")
		}
		seen := s.upstream.last(t)
		equal(t, "/api/chat", seen.uri, "what the backend is asked for")
		equal(t, "", seen.header.Get("Authorization"), "the backend's credentials")
		equal(t, *sample.Lookup, *s.record(t, a.id).Lookup, "the record's handle")
	}
	a := s.send(t, http.MethodPost, "/api/chat"+query, `{"model":"m"}`, "Authorization", line, "X-Api-Key", testKey())
	equal(t, problemCredential, *s.authz.last(t).Problem, a.body)
}
