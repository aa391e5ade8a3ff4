package gateway

import (
	"net/http"
	"regexp"
	"strings"
)

// A client that can't send a header may have its key in front of the path, /k/KEY/api/chat, if authz
// finds that this key may be there. Whoever sees such a path has the key: what stands behind it is all
// that authz, backends, journal and logs get, and a path that may hold a key in another way, or what is
// left of one, they see as hiddenPath.
const (
	inPathPrefix = "/k/"
	hiddenPath   = inPathPrefix + concealment
)

// target is what a request asks for, as the guard reads its request line.
type target struct {
	path   string // compared with the routes: as sent, without the key in front of it
	shown  string // what others may see of it
	key    string // what stands in the place of a key in it, "" for nothing
	inPath bool   // it has a key in it, or could be meant so
}

// readTarget reads a request target without its query. Behind a key, doubled and trailing slashes are
// left out at once: a redirect would repeat the key. No page is served there, since a browser names the
// address of a page to whatever that links to.
func readTarget(path string) target {
	plain := plainModelPath(path)
	if isKnownPath(plain) || !mayHoldKey(path) {
		return target{path: plain, shown: plain}
	}
	t := target{path: path, shown: hiddenPath, inPath: true}
	rest, ok := strings.CutPrefix(path, inPathPrefix)
	key, behind, _ := strings.Cut(rest, "/")
	if !ok || key == "" {
		return t
	}
	behind = plainModelPath("/" + behind)
	if clean, ok := cleanPath(behind); ok {
		behind = clean
	}
	isPage := behind != "/" && findRoute(http.MethodGet, behind).class == public
	isPlain := isKey(key) && !mayHoldKey(behind) && concealed(behind) == behind
	if !isPage && (isKnownPath(behind) || isPlain) {
		t.path, t.shown, t.key = behind, behind, key
	}
	return t
}

// rewrite makes a request with a key in its path one without, for every handler behind the guard.
func (t target) rewrite(r *http.Request) {
	if !t.inPath {
		return
	}
	if t.shown == hiddenPath {
		r.URL.RawQuery = ""
	}
	r.URL.Path, r.URL.RawPath, r.URL.Opaque = t.shown, "", ""
	r.RequestURI = r.URL.RequestURI()
}

// credential returns the header by which authz gets a key: one that it is to take from a path has a
// scheme of its own, so that an authz that knows of none refuses it.
func (t target) credential(key string) string {
	if t.inPath {
		return "Path " + key
	}
	return "Bearer " + key
}

// logged returns what a log may have.
func (t target) logged() string {
	if t.inPath && t.shown != hiddenPath {
		return hiddenPath + concealed(t.shown)
	}
	return concealed(t.shown)
}

// askedPath returns the path that authz decides about. Of one that is not known it needs no more than others.
func (x *exchange) askedPath() string {
	if x.route.class == unknown {
		return x.path
	}
	return x.target.shown
}

// isKnownPath reports whether a path is that of a route, by whatever method.
func isKnownPath(path string) bool {
	id, ok := strings.CutPrefix(path, modelsPrefix)
	return paths[path] || ok && isModelID(id)
}

// keySegment matches the /k/ of a path, or what a router could take for it.
var keySegment = regexp.MustCompile(`(?i)(^|[^0-9a-z])k([^0-9a-z]|$)`)

// mayHoldKey reports whether a path could be meant to have a key in it, however it is spelled. A key
// that stands elsewhere in plain text is for concealed.
func mayHoldKey(path string) bool {
	plain, ok := unescaped(path)
	return !ok || keySegment.MatchString(plain) || keyText.MatchString(plain) && !keyText.MatchString(path)
}
