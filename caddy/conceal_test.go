package gateway

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestConcealed: of a key in a value of a client only the lookup is kept (C3), as authz has it.
func TestConcealed(t *testing.T) {
	var samples map[string]string
	must(t, json.Unmarshal([]byte(golden(t, "concealed")), &samples))
	for text, want := range samples {
		equal(t, want, concealed(text), text)
	}
}

// TestConcealedStart: a bound holds for what is left, also where a key stands across it.
func TestConcealedStart(t *testing.T) {
	for beside := range maxPathBytes + 10 {
		path := "/" + strings.Repeat("a", beside) + testKey()
		shown := newExchange(&http.Request{}, readTarget(path)).path
		want := path[:beside+1] + "nz_3bVSxmba***"
		equal(t, want[:min(len(want), maxPathBytes)], shown, path)
	}
}

// TestConcealedWithin: what stands beside a key is kept where it has a meaning.
func TestConcealedWithin(t *testing.T) {
	key := testKey()
	for text, want := range map[string]string{
		"a nz_finetune of nz_team/alice and nz_customer_000123": "a nz_finetune of nz_team/alice and nz_customer_000123",
		"of " + key + " and " + key[:12] + ", it is said":       "of nz_3bVSxmba*** and nz_3bVSxmba***, it is said",
		key + key + "?": "nz_3bVSxmba***?", key[:12] + "%41" + key[13:] + " x": "nz_3bVSxmba*** x",
		"of " + strings.ToUpper(key) + ", it is said": "of NZ_3BVSXMBA***, it is said",
		"of %6e" + key[1:] + " it is said":            "of ***", "nz_3bV%53" + key[7:] + " x": "nz_3bV***",
		"a=" + base64.StdEncoding.EncodeToString([]byte("me:"+key)) + "; b": "a=***; b",
		"100%25 of 5%": "100%25 of 5%", "%" + strings.Repeat("25", 20) + "41": "***",
	} {
		equal(t, want, concealedWithin(text), text)
	}
}

// TestConcealedName: end users stay apart, unless their names could be the most of a key.
func TestConcealedName(t *testing.T) {
	key := testKey()
	for text, want := range map[string]string{
		"alice": "alice", "nz_team/alice": "nz_team/alice", "nz_customer_000123": "nz_customer_000123",
		key: "nz_3bVSxmba***", key[:12]: "nz_3bVSxmba***", "mine " + key + "x": "mine nz_3bVSxmba***",
		key[:9] + "/" + key[9:]: "nz_3bVSxm***", "nz%5f" + key[3:6] + "%2f" + key[6:]: "nz***",
	} {
		equal(t, want, concealedName(text), text)
	}
}

// TestConcealedQuery: the other parts of a query pass as they are.
func TestConcealedQuery(t *testing.T) {
	key := testKey()
	for text, want := range map[string]string{
		"": "", "beta=true&a=%20b_c": "beta=true&a=%20b_c", "key=" + key + "&a=b": "key=nz_3bVSxmba***&a=b",
		"a=b&key=%6Ez_" + key[3:30] + "&c": "a=b&key=***&c", key: "nz_3bVSxmba***",
		"next=/k/nz_3bV/Sxmba" + key[11:] + "&c": "next=/k/nz_3bV***&c",
	} {
		equal(t, want, concealedQuery(text), text)
	}
}

// TestConcealHeaders: a header that has a key in its name does not pass.
func TestConcealHeaders(t *testing.T) {
	key := testKey()
	h := http.Header{
		"X-Mine": {"a_b", "mine " + key}, http.CanonicalHeaderKey(key): {"x"}, "%6ez_" + key[3:]: {"x"},
		"X_mine": {"100%25"},
	}
	concealHeaders(h)
	equalJSON(t, http.Header{"X-Mine": {"a_b", "mine nz_3bVSxmba***"}, "X_mine": {"100%25"}}, h, "headers")
}

// spellings write a key in the ways in which clients, shells and browsers do, or an attacker would.
var spellings = []func(r *rand.Rand, key string) string{
	func(_ *rand.Rand, key string) string { return key },
	func(_ *rand.Rand, key string) string { return strings.ToLower(key) },
	func(_ *rand.Rand, key string) string { return strings.ToUpper(key) },
	func(r *rand.Rand, key string) string { return key + key[:r.IntN(len(key))] },
	func(r *rand.Rand, key string) string { return inPieces(r, key, "/") },
	func(r *rand.Rand, key string) string { return inPieces(r, key, "%2F") },
	func(_ *rand.Rand, key string) string { return base64.StdEncoding.EncodeToString([]byte(key)) },
	func(r *rand.Rand, key string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("?~>e", r.IntN(5)) + ":" + key + "~~"))
	},
}

func inPieces(r *rand.Rand, key, between string) string {
	for range 1 + r.IntN(4) {
		at := 3 + r.IntN(len(key)-3)
		key = key[:at] + between + key[at:]
	}
	return key
}

// escaped escapes some letters, and what comes of that once more.
func escaped(r *rand.Rand, text string) string {
	for range r.IntN(4) {
		var out strings.Builder
		for i := range len(text) {
			switch r.IntN(6) {
			case 0:
				_, _ = fmt.Fprintf(&out, "%%%02x", text[i])
			case 1:
				_, _ = fmt.Fprintf(&out, "%%%02X", text[i])
			default:
				_ = out.WriteByte(text[i])
			}
		}
		text = out.String()
	}
	return text
}

// TestNoSpellingShows: wherever a key is cut, however it is spelled and escaped, and whatever stands beside
// it, no five letters of its secret are left in a row, whatever the bound.
func TestNoSpellingShows(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	secret := func() string { // of letters alone, which nothing else here has so many of
		text := make([]byte, keyBytes-lookupBytes)
		for i := range text {
			text[i] = base62Alphabet[10+r.IntN(52)]
		}
		return string(text)
	}
	beside := []string{"", "/", "/api/", "a=", "me ", "x", ".", "/%41/", "nz_", "/v1/"}
	for range 20_000 {
		key := fmt.Sprintf("%s%08d%s", keyPrefix, r.IntN(1e8), secret())
		cut := key[:lookupBytes+1+r.IntN(keyBytes-lookupBytes)]
		spelled := escaped(r, spellings[r.IntN(len(spellings))](r, cut))
		text := beside[r.IntN(len(beside))] + spelled + beside[r.IntN(len(beside))]
		for _, got := range []string{
			concealed(text), readTarget("/" + text).logged(), concealedQuery(text + "&" + text),
			concealedStart(text, 1+r.IntN(60)), newExchange(&http.Request{Method: text}, readTarget("/"+text)).path,
			newExchange(&http.Request{Method: text}, readTarget("/")).method,
		} {
			if left := shownOf(got, key, 5); left != "" {
				t.Fatalf("seed %d: of %s in %s is left %s: %s", seed, key, text, left, got)
			}
		}
		equal(t, concealed(text), concealed(concealed(text)), "once is enough: "+text)
	}
}

// shownOf returns so many letters of a key's secret that a text shows in any of the spellings, "" for none.
func shownOf(text, key string, letters int) string {
	text, _ = unescaped(text)
	var all strings.Builder
	_, _ = all.WriteString(text)
	for _, run := range base64Text.FindAllString(text, -1) {
		for from := range 4 {
			decoded, _ := base64.RawStdEncoding.DecodeString(urlAlphabet.Replace(run)[from:])
			_, _ = fmt.Fprintf(&all, "\n%s", decoded)
		}
	}
	forms := strings.ToLower(all.String())
	secret := strings.ToLower(key[lookupBytes:])
	for i := range len(secret) - letters + 1 {
		if part := secret[i : i+letters]; strings.Contains(forms, part) {
			return part
		}
	}
	return ""
}

func FuzzConcealed(f *testing.F) {
	f.Add("/", testKey(), "/api/chat")
	f.Add("a=", "%6ez_"+testKey()[3:], "&%25%32")
	f.Add("nz", "_3bVSxmba0123", base64.StdEncoding.EncodeToString([]byte("x:"+testKey())))
	f.Fuzz(func(t *testing.T, before, key, behind string) {
		text := before + key + behind
		for _, once := range []string{concealed(text), concealedWithin(text)} {
			plain, ok := unescaped(once)
			if !ok || keyText.MatchString(plain) || base64Key(plain) >= 0 {
				t.Errorf("%q shows %q", text, once)
			}
		}
		if twice := concealed(concealed(text)); twice != concealed(text) {
			t.Errorf("%q is concealed as %q, and then as %q", text, concealed(text), twice)
		}
	})
}

// TestNothingOfAKeyIsKept: a part of a key in any place of a request reaches no backend, and neither authz,
// nor the journal, nor Caddy's log have it: of a path or a method that is not known, nor have they of a name.
func TestNothingOfAKeyIsKept(t *testing.T) {
	s := sharedStack(t)
	key := testKey()
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		g := newGrant(a)
		g.EndUser, g.Model = true, "m"
		if a.Problem != nil || findRoute(a.Method, a.Path).class == unknown {
			deny(w, a, http.StatusNotFound, "path_unknown")
			return
		}
		giveGrant(w, r, g)
	})
	for _, part := range []string{
		key[:20], key[:32], key[:48], key + "x", key[:9] + "/" + key[9:], "%6ez_" + key[3:], "%256ez_" + key[3:30],
		base64.StdEncoding.EncodeToString([]byte("x:" + key)),
	} {
		body, err := json.Marshal(map[string]any{"model": part, "user": part, "messages": []string{}})
		must(t, err)
		a := s.post(t, "/v1/chat/completions?a="+part+"&b=c", string(body), "X-Mine", part, "User-Agent", "mine "+part)
		equal(t, 200, a.status, part)
		h := s.upstream.last(t)
		equal(t, false, holdsPart(h.uri+fmt.Sprint(h.header), key), "what the backend gets")
		equal(t, true, strings.HasSuffix(h.uri, "&b=c"), "the rest of the query: "+h.uri)

		padding := "/" + strings.Repeat("a", maxPathBytes-30) + "/"
		for _, head := range []string{
			"GET /" + part, "GET " + padding + part, "GET /api/tags/" + part, "GET /v1/models/x/" + part,
			"GET /api/chat//" + part + "/", "GET http://x:" + part + "@a/", url.PathEscape(part) + " /api/chat",
			"X" + strings.Map(tokenChar, part)[:18] + " /api/tags", strings.Map(tokenChar, part)[:19] + " /api/tags",
		} {
			a := s.raw(t, head+" HTTP/1.1\r\nHost: "+strings.Map(tokenChar, part)+"\r\nReferer: "+part+"\r\n\r\n")
			equal(t, true, a.status >= 400, head)
			equal(t, false, holdsPart(a.body+fmt.Sprint(a.header), key), "the answer to "+head)
		}
	}
	for _, l := range s.lines(t) {
		equal(t, false, holdsPart(l.raw, key), l.raw)
	}
	equal(t, false, holdsPart(s.stderr.String(), key), "Caddy's log")
	s.authz.mu.Lock()
	defer s.authz.mu.Unlock()
	for _, asked := range s.authz.asks {
		if findRoute(asked.Method, asked.Path).class == unknown {
			equal(t, false, holdsPart(asked.Method+" "+asked.Path, key), asked.Path)
		}
	}
}

// tokenChar keeps what may stand in a method.
func tokenChar(c rune) rune {
	if c == '/' || c == '=' {
		return '-'
	}
	return c
}

// TestModelsByName: a model that a backend has is recorded under its name, whatever that looks like; what
// was asked for in its place is concealed.
func TestModelsByName(t *testing.T) {
	s := sharedStack(t)
	name := "nz_finetune2:latest"
	a := s.post(t, "/api/chat", `{"model":"`+name+`","messages":[]}`)
	equal(t, name, *s.record(t, a.id).Model, "granted under its own name")
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		g := newGrant(a)
		g.Model = name
		giveGrant(w, r, g)
	})
	a = s.post(t, "/api/chat", `{"model":"`+testKey()+`","messages":[]}`)
	equal(t, name, *s.record(t, a.id).Model, "granted in place of another")
	equal(t, "nz_3bVSxmba***", *s.record(t, a.id).ModelAsked, "asked for")
	s.authz.set(t, func(w http.ResponseWriter, _ *http.Request, a ask) { deny(w, a, 404, "model_unknown") })
	a = s.post(t, "/api/chat", `{"model":"`+name+`","messages":[]}`)
	equal(t, "nz_finetune***", *s.record(t, a.id).Model, "refused")
}
