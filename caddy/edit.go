package gateway

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"neuronetz-gateway/caddy/internal/jsonstream"
)

// change is what becomes of one member of an object: another value, or none.
type change struct {
	name  string
	value []byte // nil drops the member
}

// edited returns the body with the Grant applied: fields dropped, the output capped, usage
// asked for. Every other member keeps its bytes, and a body that needs no change is not
// touched, so that backends read what clients wrote.
func (q *request) edited(g *grant, kind api) []byte {
	var top, options []change
	for _, path := range g.Drop {
		if name, ok := strings.CutPrefix(path, fieldOptions+"."); ok {
			options = append(options, change{name: name})
			continue
		}
		top = append(top, change{name: path})
	}
	for path, value := range g.Set {
		lowered := strconv.AppendInt(nil, value, 10)
		switch name, isOption := strings.CutPrefix(path, fieldOptions+"."); {
		case !q.has(path): // what a client did not ask for is not added
		case isOption:
			options = append(options, change{name, lowered})
		default:
			top = append(top, change{name, lowered})
		}
	}
	if g.Model != "" {
		name, _ := json.Marshal(g.Model) //nolint:errchkjson // a string has a JSON
		top = append(top, change{fieldModel, name})
	}
	// Written even where the client sent one: that may be a fraction, or larger than granted.
	if limit := q.limit(g); limit != nil {
		top, options = capChanges(kind, strconv.AppendInt(nil, *limit, 10), top, options)
	}
	if q.wantsUsage(kind) && !q.hasUsage {
		value := q.rewritten(fieldStreamOp, q.streamOp, []change{{fieldUsage, []byte("true")}})
		top = append(top, change{fieldStreamOp, value})
	}
	// Options that are to be dropped from a body without options need none.
	if _, ok := find(q.members, fieldOptions); ok || hasValue(options) {
		if q.differs(q.options, options) {
			top = append(top, change{fieldOptions, q.rewritten(fieldOptions, q.options, options)})
		}
	}
	if !q.differs(q.members, top) {
		return q.body
	}
	return rewrite(q.body, q.members, top)
}

// has reports whether the body has a field of the Grant: one at the top, or `options.` and a name.
func (q *request) has(path string) bool {
	members := q.members
	name, isOption := strings.CutPrefix(path, fieldOptions+".")
	if isOption {
		members = q.options
	}
	_, ok := findFold(members, name)
	return ok
}

// changed names the fields that the Grant drops or lowers, for the client: it would wonder about
// an answer to less than it asked for.
func (q *request) changed(g *grant) string {
	var names []string
	for _, path := range g.Drop {
		if q.has(path) {
			names = append(names, path)
		}
	}
	for path := range g.Set {
		if q.has(path) {
			names = append(names, path)
		}
	}
	if g.Model != "" {
		names = append(names, fieldModel)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// limit returns the output cap that holds for this request, nil without one: the smaller of
// the Grant's and the client's own.
func (q *request) limit(g *grant) *int64 {
	if g.MaxOutput == nil || (q.maxOutput != nil && *q.maxOutput < *g.MaxOutput) {
		return q.maxOutput
	}
	return g.MaxOutput
}

// wantsUsage reports whether this is a stream of an API that reports usage only on request.
func (q *request) wantsUsage(kind api) bool {
	return *q.stream && (kind == apiV1Chat || kind == apiV1Completions)
}

// capChanges adds the cap where the API expects it: among the options, or at the top.
func capChanges(kind api, limit []byte, top, options []change) (newTop, newOptions []change) {
	switch kind {
	case apiChat, apiGenerate:
		return top, append(options, change{fieldPredict, limit})
	case apiV1Chat, apiV1Completions, apiMessages:
		return append(top, change{fieldTokens, limit}), options
	case apiResponses:
		return append(top, change{fieldRespCap, limit}), options
	default:
		return top, options
	}
}

// rewritten returns the object of that name with changes, or a new one if there is none.
func (q *request) rewritten(name string, members []jsonstream.Member, changes []change) []byte {
	m, ok := find(q.members, name)
	if !ok || q.body[m.Value] != '{' {
		return rewrite(nil, nil, changes)
	}
	return rewrite(q.body, members, changes)
}

// differs reports whether changes change anything.
func (q *request) differs(members []jsonstream.Member, changes []change) bool {
	for _, c := range changes {
		m, ok := findFold(members, c.name)
		if ok != (c.value != nil) || (ok && !bytes.Equal(q.body[m.Value:m.End], c.value)) {
			return true
		}
	}
	return false
}

// hasValue reports whether one of changes sets a member.
func hasValue(changes []change) bool {
	for _, c := range changes {
		if c.value != nil {
			return true
		}
	}
	return false
}

// rewrite writes the object of these members anew, with changes; new members come last. The
// source of every other member is kept, its whitespace included.
func rewrite(b []byte, members []jsonstream.Member, changes []change) []byte {
	size := 2 + 64*len(changes)
	if len(members) > 0 {
		size += members[len(members)-1].End - members[0].Start
	}
	out := append(make([]byte, 0, size), '{')
	for _, m := range members {
		value := b[m.Value:m.End]
		if c := changeOf(changes, m.Name); c != nil {
			value = c.value
		}
		if value != nil {
			out = append(append(out, b[m.Start:m.Value]...), value...)
			out = append(out, ',')
		}
	}
	for _, c := range changes {
		if _, ok := findFold(members, c.name); !ok && c.value != nil {
			out = append(strconv.AppendQuote(out, c.name), ':')
			out = append(append(out, c.value...), ',')
		}
	}
	if out[len(out)-1] == ',' {
		out = out[:len(out)-1]
	}
	return append(out, '}')
}

// changeOf returns the last change of that name, nil without one: a cap stands over the
// dropping of its field.
func changeOf(changes []change, name []byte) *change {
	for i := len(changes) - 1; i >= 0; i-- {
		if bytes.EqualFold([]byte(changes[i].name), name) {
			return &changes[i]
		}
	}
	return nil
}

// findFold returns the member of that name in any case, as encoding/json would find it.
func findFold(members []jsonstream.Member, name string) (jsonstream.Member, bool) {
	for _, m := range members {
		if bytes.EqualFold(m.Name, []byte(name)) {
			return m, true
		}
	}
	return jsonstream.Member{}, false
}
