package gateway

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"neuronetz-gateway/caddy/internal/jsonstream"
)

const (
	maxModelBytes = 256
	// maxMembers and maxNameBytes bound the members of one object and their names: no API knows
	// as many or as long ones, and comparing them would buy a client seconds of CPU.
	maxMembers   = 256
	maxNameBytes = 256
	// greatestCount is the greatest number of tokens that any part takes (bounds.json of the
	// contract). A client's greater cap is clamped to it: metering refused the journal lines
	// of a request with a greater one, and so it was free.
	greatestCount = 1 << 40
)

// Fields that decide something here.
const (
	fieldModel    = "model"
	fieldStream   = "stream"
	fieldOptions  = "options"
	fieldStreamOp = "stream_options"
	fieldUsage    = "include_usage"
	fieldPredict  = "num_predict"
	fieldTokens   = "max_tokens"
	fieldChatCap  = "max_completion_tokens" // Ollama ignores it
	fieldRespCap  = "max_output_tokens"
)

// knownFields are the top-level fields that decide something here. encoding/json, which
// Ollama reads with, accepts them in any case: "MODEL" would name the model that runs, while
// we had checked another.
var knownFields = []string{
	fieldModel, fieldStream, fieldOptions, fieldStreamOp, fieldTokens, fieldChatCap, fieldRespCap,
	"keep_alive", "name", "messages", "prompt", "input", "system", "instructions", "images",
	"context", "tools", "suffix", "template",
}

// capFields are where a client of an API limits its output; in Ollama's own API that is the
// option num_predict. The smallest counts: Ollama honours one of them, by its version.
var capFields = map[api][]string{
	apiV1Chat:        {fieldTokens, fieldChatCap},
	apiV1Completions: {fieldTokens},
	apiResponses:     {fieldRespCap},
	apiMessages:      {fieldTokens},
}

// request is what the guard understood of a body.
type request struct {
	// The body, and where its members are. Dropped when the request goes on.
	body     []byte
	members  []jsonstream.Member // of the body
	options  []jsonstream.Member // of its options, by their places in the body
	streamOp []jsonstream.Member // of its stream_options, likewise

	// What it asks for, nil where it does not.
	model     *string
	stream    *bool  // effective: the API's default if the body does not set it
	maxOutput *int64 // the smallest cap
	hasUsage  bool   // the usage of a stream

	endUser string // that the client names, "" for none

	field string // of the problem, where it has a place

	asked  *asked // what it wants of the GPU, nil before the body has been read
	prompt prompt // what it costs to read
}

// readRequest understands the body of an API, or names the problem with it; what it returns
// besides a problem is only what had been read by then.
func readRequest(body []byte, kind api) (request, problem) {
	q := request{body: body}
	if found := q.scan(); found != noProblem {
		return q, found
	}
	for _, m := range q.members {
		if !q.take(m, kind) {
			return q, problemField
		}
	}
	if !q.readCaps(kind) {
		return q, problemField
	}
	if q.field = unknownKind(body, q.members, kind); q.field != "" {
		return q, problemKind
	}
	q.stream = effectiveStream(q.stream, kind)
	q.asked = q.readAsked(kind)
	q.endUser = q.readEndUser(kind)
	q.prompt = countPrompt(body, q.members, kind, process.tables.of(q.model))
	return q, noProblem
}

// effectiveStream returns whether the answer streams: as asked, else by the API's default, and
// never where the API has no streams.
func effectiveStream(asked *bool, kind api) *bool {
	isNative := kind == apiChat || kind == apiGenerate
	switch {
	case kind == apiEmbed || kind == apiEmbeddings || kind == apiV1Embeddings || kind == apiShow:
		asked = new(bool)
	case asked == nil:
		asked = &isNative
	}
	return asked
}

// scan checks the form of the body and of the objects in it whose members decide something.
// What Ollama would read in another way than we do is a problem, never a guess: to check
// one request and run another is to check nothing.
func (q *request) scan() problem {
	b := q.body
	start := jsonstream.SkipSpace(b, 0)
	if start >= len(b) || b[start] != '{' {
		return problemNotJSON
	}
	members, end, err := jsonstream.AppendMembers(nil, b, start, 0)
	switch {
	case errors.Is(err, jsonstream.ErrDepth):
		return problemTooDeep
	case err != nil || jsonstream.SkipSpace(b, end) != len(b) || !utf8.Valid(b):
		return problemNotJSON
	}
	q.members = members
	if found := checkNames(members, knownFields); found != noProblem {
		return found
	}
	for _, m := range members {
		found := noProblem
		switch string(m.Name) {
		case fieldOptions:
			q.options, found = nested(b, m, fieldPredict)
		case fieldStreamOp:
			q.streamOp, found = nested(b, m, fieldUsage)
		}
		if found != noProblem {
			return found
		}
	}
	return noProblem
}

// nested returns the members of an object in the body; null has none.
func nested(b []byte, m jsonstream.Member, known string) ([]jsonstream.Member, problem) {
	switch {
	case b[m.Value] == 'n':
		return nil, noProblem
	case b[m.Value] != '{':
		return nil, problemField
	}
	members, _, _ := jsonstream.AppendMembers(nil, b, m.Value, 0)
	return members, checkNames(members, []string{known})
}

// checkNames refuses names of which Ollama would read another than we do: written twice,
// with escapes, or as a case variant of one that decides something. Its time is linear.
func checkNames(members []jsonstream.Member, known []string) problem {
	if len(members) > maxMembers {
		return problemField
	}
	earlier := make(map[string]struct{}, len(members))
	for _, m := range members {
		if len(m.Name) > maxNameBytes || bytes.IndexByte(m.Name, '\\') >= 0 {
			return problemField
		}
		folded := foldName(m.Name)
		if _, isTwice := earlier[folded]; isTwice {
			return problemDuplicate
		}
		earlier[folded] = struct{}{}
		for _, name := range known {
			if string(m.Name) != name && strings.EqualFold(string(m.Name), name) {
				return problemField
			}
		}
	}
	return noProblem
}

// foldName returns a name that is equal for all names which bytes.EqualFold, and with it
// encoding/json, takes for the same: each rune is the smallest of those that fold to each other.
func foldName(name []byte) string {
	return string(bytes.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, name))
}

// take takes what one member asks for; false if it has the wrong type.
func (q *request) take(m jsonstream.Member, kind api) bool {
	v := q.body[m.Value:m.End]
	switch string(m.Name) {
	case fieldModel:
		return q.readModel(v)
	case "name": // the older name of the model in /api/show
		if kind == apiShow && q.model == nil {
			return q.readModel(v)
		}
	case fieldStream:
		switch v[0] {
		case 'n': // null: the default
		case 't', 'f':
			isStream := v[0] == 't'
			q.stream = &isStream
		default:
			return false
		}
	}
	return true
}

// readModel takes the model's name; null and "" are none.
func (q *request) readModel(v []byte) bool {
	if v[0] == 'n' {
		return true
	}
	if v[0] != '"' || len(v) > 6*maxModelBytes+2 {
		return false
	}
	model := string(jsonstream.AppendDecoded(nil, v[1:len(v)-1]))
	if model != "" {
		q.model = &model
	}
	return len(model) <= maxModelBytes
}

// readCaps finds the smallest output cap of the client, and whether it asks for the usage of
// a stream.
func (q *request) readCaps(kind api) bool {
	for _, m := range q.streamOp {
		if string(m.Name) == fieldUsage {
			q.hasUsage = q.body[m.Value] == 't'
		}
	}
	if kind == apiChat || kind == apiGenerate {
		return q.readCap(q.options, fieldPredict, false)
	}
	for _, name := range capFields[kind] {
		if !q.readCap(q.members, name, true) {
			return false
		}
	}
	return true
}

// readCap takes one cap, if it is the smallest so far; false if it is no number.
func (q *request) readCap(members []jsonstream.Member, name string, isWhole bool) bool {
	m, ok := find(members, name)
	if !ok {
		return true
	}
	n, ok := parseCap(q.body[m.Value:m.End], isWhole)
	if n > 0 && (q.maxOutput == nil || n < *q.maxOutput) {
		q.maxOutput = &n
	}
	return ok
}

// parseCap reads a cap as Ollama does, 0 or less if it caps nothing; options may be
// fractions, which are cut, the fields of OpenAI and Anthropic may not.
func parseCap(v []byte, isWhole bool) (n int64, ok bool) {
	if v[0] == 'n' {
		return 0, true
	}
	if v[0] != '-' && (v[0] < '0' || v[0] > '9') {
		return 0, false
	}
	f, _ := strconv.ParseFloat(string(v), 64)
	if isWhole && bytes.ContainsAny(v, ".eE") {
		return 0, false
	}
	return int64(max(-1, min(f, greatestCount))), true
}

// find returns the member of exactly that name.
func find(members []jsonstream.Member, name string) (jsonstream.Member, bool) {
	for _, m := range members {
		if string(m.Name) == name {
			return m, true
		}
	}
	return jsonstream.Member{}, false
}
