package gateway

import (
	"net/http"
	"strings"
	"testing"
)

// TestReadTarget: a key in front of a route is taken off it, and of every other path that could hold one,
// or a part of one, nothing is shown.
func TestReadTarget(t *testing.T) {
	key := testKey()
	for path, want := range map[string]target{
		"/api/chat":                      {"/api/chat", "/api/chat", "", false},
		"/v1/models/k/x":                 {"/v1/models/k/x", "/v1/models/k/x", "", false},
		"/":                              {"/", "/", "", false},
		"/nothing":                       {"/nothing", "/nothing", "", false},
		"/kk/x":                          {"/kk/x", "/kk/x", "", false},
		"/k/" + key + "/api/chat":        {"/api/chat", "/api/chat", key, true},
		"/k/" + key:                      {"/", "/", key, true},
		"/k/" + key + "/":                {"/", "/", key, true},
		"/k/" + key + "//api//chat/":     {"/api/chat", "/api/chat", key, true},
		"/k/" + key + "/v1/models/a%2Fb": {"/v1/models/a/b", "/v1/models/a/b", key, true},
		"/k/" + key + "/v1/models/k/x":   {"/v1/models/k/x", "/v1/models/k/x", key, true},
		"/k/" + key + "/api/pull":        {"/api/pull", "/api/pull", key, true},
		"/k/" + key + "/api%2Fpull":      {"/api%2Fpull", "/api%2Fpull", key, true},
		"/k/" + key[:30] + "/api/chat":   {"/api/chat", "/api/chat", key[:30], true},
		"/k/" + key + "0/api/tags":       {"/api/tags", "/api/tags", key + "0", true},
		"/k/%6e" + key[1:] + "/api/tags": {"/api/tags", "/api/tags", "%6e" + key[1:], true},
		"/k/" + key[:30]:                 {"/", "/", key[:30], true},
		"/k/sk-other/v1/models":          {"/v1/models", "/v1/models", "sk-other", true},
	} {
		got := readTarget(path)
		equal(t, want, got, path)
		equal(t, false, strings.Contains(got.logged(), key[11:30]), path)
	}
	for _, path := range []string{
		"/k", "/k/", "/k//" + key + "/api/tags", "//k/" + key + "/api/tags", "/K/" + key + "/api/tags",
		"/%6b/" + key + "/api/tags", "/%6B%2f" + key, "/k%2F" + key + "%2Fapi%2Ftags", "/%256b/" + key[:40],
		"/%25256b%25252f" + key, "/k%5C" + key, `/k\` + key, "/./k/" + key, "/x/../k/" + key[:30], "/k;v=1/" + key,
		"/%E2%84%AA/" + key[:30], "/k%00/" + key, "http://a/k/" + key + "/api/tags", "k/" + key + ":443",
		"/k/" + key[:20] + "/" + key[20:] + "/api/tags", "/k/" + key[:20] + "%2F" + key[20:] + "/x",
		"/k/" + key + "/me", "/k/" + key + "/healthz", "/k/" + key + "//me/", "/k/" + key + "/k/" + key + "/api/tags",
		"/k/" + key + "/" + key[:30], "/k/" + key + "/%6ez_" + key[3:30], "/k/" + key[:48] + "/api/pull",
		"/%6ez_" + key[3:] + "/api/tags", "/%25" + strings.Repeat("25", 20) + "6b/" + key[:30],
	} {
		got := readTarget(path)
		equal(t, hiddenPath, got.shown, path)
		equal(t, hiddenPath, got.logged(), path)
		equal(t, "", got.key, path)
		equal(t, false, isTarget(got.path) && findRoute("GET", got.path).class != unknown, path)
	}
}

// TestTakeKeyInPath: a key in the path is one credential, and of two different ones none is picked.
func TestTakeKeyInPath(t *testing.T) {
	key, other := testKey(), keyOf("nz_3bVSxmbb")
	signature := sshKeyPrefix + strings.Repeat("A", sshKeyBytes-len(sshKeyPrefix)) + ":" +
		strings.Repeat("A", signatureBytes-2) + "=="
	for _, c := range []struct {
		name, inPath string
		header       http.Header
		want         string
		ok           bool
	}{
		{"alone", key, http.Header{}, key, true},
		{"beside itself", key, http.Header{"X-Api-Key": {key}}, key, true},
		{"beside another", key, http.Header{"X-Api-Key": {other}}, "", false},
		{"beside another's value", key, http.Header{"Authorization": {"Bearer sk-1"}}, key, true},
		{"beside a signature", key, http.Header{"Authorization": {signature}}, "", false},
		{"no key", key[:40], http.Header{}, "", true},
		{"no key beside one", key[:40], http.Header{"Api-Key": {key}}, key, true},
	} {
		got, ok := takeKey(c.header, target{key: c.inPath, inPath: true})
		equal(t, c.want, got, c.name)
		equal(t, c.ok, ok, c.name)
		left := ""
		if c.want != "" {
			left = "Path " + c.want
		}
		equal(t, left, c.header.Get("Authorization"), c.name)
	}
}

// TestKeyInPath: authz and the backend get the path behind the key alone, answers say that no one may
// keep or repeat the address, and no log has what could be a part of a key.
func TestKeyInPath(t *testing.T) {
	s := sharedStack(t)
	s.upstream.set(t, nil)
	key, before := testKey(), s.authz.count()
	a := s.send(t, "POST", "/k/"+key+"//v1/chat/completions/?x=1", `{"model":"m"}`, "Referer", "http://a/k/"+key)
	equal(t, 200, a.status, "status")
	asked := s.authz.last(t)
	equal(t, "/v1/chat/completions", asked.Path, "path that authz gets")
	equal(t, true, asked.InPath, "what authz gets")
	equal(t, key[:lookupBytes], *asked.Lookup, "lookup")
	h := s.upstream.last(t)
	equal(t, "/v1/chat/completions?x=1", h.uri, "uri of the backend")
	for _, name := range []string{"Authorization", "Referer", "X-Forwarded-Uri"} {
		equal(t, "", h.header.Get(name), name)
	}
	equal(t, "no-referrer", a.header.Get("Referrer-Policy"), "policy")
	equal(t, "no-store", a.header.Get("Cache-Control"), "cache")
	equal(t, "/v1/chat/completions", s.record(t, a.id).Path, "path of the record")

	a = s.send(t, "GET", "/k/"+key+"/api/tags", "")
	equal(t, `{"from":"authz","path":"/api/tags"}`, a.body, "read route")
	equal(t, "Ollama is running", s.send(t, "GET", "/k/"+key+"/", "").body, "banner")
	equal(t, "", s.send(t, "GET", "/api/tags", "").header.Get("Referrer-Policy"), "policy without a key in the path")

	hits := s.upstream.count()
	for _, spelling := range []string{
		"GET /k/" + key + "/me", "POST /k/" + key + "/api/pull", "GET /K/" + key + "/api/tags",
		"GET /k//" + key + "/api/tags", "GET /%6b/" + key + "/api/tags", "GET /k%2f" + key + "%2fapi%2ftags",
		"GET /k/" + key[:45] + "/api/tags", "GET /k/" + key + "x/api/tags", "GET http://a/k/" + key + "/api/tags",
		"GET /%256b/" + key[:40] + "/api/tags", "CONNECT /k/" + key, "GET /k/" + key[:25] + "/" + key[25:] + "/api/tags",
		"GET /k/" + key + "/../../api/tags", "POST /k/" + key + "/api/chat/%zz", "GET /k/" + key[:45] + "?" + key,
		"GET /k/" + key + "/" + key[:45],
	} {
		a := s.raw(t, spelling+" HTTP/1.1\r\nHost: a\r\nReferer: http://a/k/"+key+"/\r\nContent-Length: 2\r\n\r\n{}")
		equal(t, true, a.status >= 400 || a.body == "Ollama is running", spelling)
		equal(t, false, holdsPart(a.body, key), spelling)
		equal(t, "", a.header.Get("Location"), spelling)
	}
	equal(t, hits, s.upstream.count(), "hits")
	for _, l := range s.lines(t) {
		equal(t, false, holdsPart(l.raw, key), l.raw)
	}
	equal(t, false, holdsPart(s.stderr.String(), key), "Caddy's log")
	s.authz.mu.Lock()
	defer s.authz.mu.Unlock()
	for i, asked := range s.authz.asks[before:] {
		equal(t, false, holdsPart(asked.Path+s.authz.paths[before+i], key), asked.Path)
	}
}

// holdsPart reports whether a text has any eight letters of a key's secret in a row.
func holdsPart(text, key string) bool { return shownOf(text, key, 8) != "" }
