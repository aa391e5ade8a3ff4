package gateway

import "strings"

// class is who answers a route.
type class int

const (
	unknown class = iota // authz, with a refusal
	metered              // a backend, with a Grant
	read                 // authz
	public               // without an Ask: health, readiness, the banner, the page of a key's holder
)

// dialect is the family of clients that a path is for; errors have its shape.
type dialect int

const (
	ollama dialect = iota
	openai
	anthropic
)

// api is one shape of requests and answers.
type api int

const (
	apiNone api = iota
	apiChat
	apiGenerate
	apiEmbed
	apiEmbeddings
	apiV1Chat
	apiV1Completions
	apiV1Embeddings
	apiResponses
	apiMessages
	apiShow
)

// route is one method and path that the gateway knows.
type route struct {
	class   class
	dialect dialect
	api     api
}

// routes is every method and path that is not refused: what is not here is unknown, so that
// a route that a later Ollama adds is closed until it is metered. authz has the same table,
// and testdata/contract/routes.json binds the two.
var routes = map[string]route{
	"POST /api/chat":                              {metered, ollama, apiChat},
	"POST /api/generate":                          {metered, ollama, apiGenerate},
	"POST /api/embed":                             {metered, ollama, apiEmbed},
	"POST /api/embeddings":                        {metered, ollama, apiEmbeddings},
	"POST /v1/chat/completions":                   {metered, openai, apiV1Chat},
	"POST /v1/completions":                        {metered, openai, apiV1Completions},
	"POST /v1/embeddings":                         {metered, openai, apiV1Embeddings},
	"POST /v1/responses":                          {metered, openai, apiResponses},
	"POST /v1/messages":                           {metered, anthropic, apiMessages},
	"GET /api/version":                            {read, ollama, apiNone},
	"HEAD /api/version":                           {read, ollama, apiNone},
	"GET /api/tags":                               {read, ollama, apiNone},
	"HEAD /api/tags":                              {read, ollama, apiNone},
	"GET /api/ps":                                 {read, ollama, apiNone},
	"POST /api/show":                              {read, ollama, apiShow},
	"GET /v1/models":                              {read, openai, apiNone},
	"HEAD /v1/models":                             {read, openai, apiNone},
	"GET /v1/models/{id}":                         {read, openai, apiNone},
	"POST /v1/messages/count_tokens":              {read, anthropic, apiMessages},
	"GET /api/status":                             {read, ollama, apiNone},
	"GET /api/experimental/model-recommendations": {read, ollama, apiNone},
	"GET /v1/usage":                               {read, openai, apiNone},
	"GET /v1/limits":                              {read, openai, apiNone},
	"GET /me":                                     {public, ollama, apiNone},
	"GET /healthz":                                {public, ollama, apiNone},
	"GET /readyz":                                 {public, ollama, apiNone},
	"GET /":                                       {public, ollama, apiNone},
	"HEAD /":                                      {public, ollama, apiNone},
}

// modelsPrefix begins the one path that is not compared whole.
const modelsPrefix = "/v1/models/"

// findRoute compares bytes: paths are never decoded, cleaned or folded, because the router
// of the backend reads them differently than we would (/api%2Fpull, /api//pull).
func findRoute(method, path string) route {
	if id, ok := strings.CutPrefix(path, modelsPrefix); ok && isModelID(id) {
		path = modelsPrefix + "{id}"
	}
	if found, ok := routes[method+" "+path]; ok {
		return found
	}
	return route{dialect: dialectOf(path)}
}

// dialectOf returns the dialect that an error on an unknown path is worded in.
func dialectOf(path string) dialect {
	switch {
	case path == "/v1/messages", strings.HasPrefix(path, "/v1/messages/"):
		return anthropic
	case strings.HasPrefix(path, "/v1/"):
		return openai
	}
	return ollama
}

// maxModelID is the longest model's name in a path, in bytes.
const maxModelID = 160

// isModelID reports whether s is a model's name that needs no escaping in a path; it may
// have a host and a namespace before it (hf.co/x/y:tag).
func isModelID(s string) bool {
	if s == "" || len(s) > maxModelID || s[0] == '/' || s[len(s)-1] == '/' || strings.Contains(s, "//") {
		return false
	}
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && strings.IndexByte("._:/-", s[i]) < 0 {
			return false
		}
	}
	return true
}

// modelEscapes are the escapes that SDKs put into a model's name in a path.
var modelEscapes = strings.NewReplacer("%2F", "/", "%2f", "/", "%3A", ":", "%3a", ":")

// plainModelPath undoes the escapes of a model's name. It does so for no other path: this one
// is answered by authz and never reaches a backend, where a router would read it differently.
func plainModelPath(path string) string {
	if id, ok := strings.CutPrefix(path, modelsPrefix); ok {
		return modelsPrefix + modelEscapes.Replace(id)
	}
	return path
}

// paths is every path that is compared whole.
var paths = func() map[string]bool {
	found := map[string]bool{}
	for name := range routes {
		_, path, _ := strings.Cut(name, " ")
		found[path] = !strings.HasPrefix(path, modelsPrefix)
	}
	return found
}()

// cleanPath returns the known path from which one differs by doubled and trailing slashes alone,
// false if there is none. Ollama redirects such a request, so clients come to rely on it.
func cleanPath(path string) (string, bool) {
	if len(path) > maxPathBytes || !strings.HasPrefix(path, "/") ||
		!strings.HasSuffix(path, "/") && !strings.Contains(path, "//") {
		return "", false
	}
	segments := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	clean := "/" + strings.Join(segments, "/")
	return clean, clean != path && paths[clean]
}

// isTarget reports whether a request target is in origin form (RFC 9112, 3.2.1) and has a
// path of one spelling only: no escapes, no empty or dotted segments.
func isTarget(path string) bool {
	if !strings.HasPrefix(path, "/") {
		return false
	}
	for i := range len(path) {
		if !isAlphanumeric(path[i]) && strings.IndexByte("/._:~-", path[i]) < 0 {
			return false
		}
	}
	return !strings.Contains(path, "//") && !strings.Contains(path+"/", "/./") &&
		!strings.Contains(path+"/", "/../")
}

func isAlphanumeric(c byte) bool {
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
}
