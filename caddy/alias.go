package gateway

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// model returns the name of the model that runs, as the journal may have it: the one that authz
// has granted, else the one that the client asks for. A backend has what is granted, so that is no key
// whatever it looks like.
func (x *exchange) model() *string {
	switch {
	case x.grant == nil:
		return x.askedModel()
	case x.grant.Model == "":
		return x.request.model
	}
	return &x.grant.Model
}

// alias returns what the client calls the model, nil if that is its name.
func (x *exchange) alias() *string {
	if x.grant == nil || x.grant.Model == "" {
		return nil
	}
	return x.askedModel()
}

func (x *exchange) askedModel() *string {
	if x.request.model == nil {
		return nil
	}
	name := concealed(*x.request.model)
	return &name
}

// rename gives the model in an answer the name that the client asked for, where authz has granted
// another one by an alias. Ollama's answers name the model as the request did, once a frame, and
// before everything that a model may have written itself. A nil rename changes nothing.
type rename struct {
	from, to []byte // members of an object
	held     []byte // of a single answer: the end of what came, where from may begin
	isDone   bool   // a single answer has had its name
}

// newRename returns the rename of an answer, nil if the model runs under the name asked for.
func newRename(asked *string, granted string) *rename {
	if granted == "" || asked == nil {
		return nil
	}
	return &rename{from: modelMember(granted), to: modelMember(*asked)}
}

func modelMember(name string) []byte {
	value, _ := json.Marshal(name) //nolint:errchkjson // a string has a JSON
	return append([]byte(`"model":`), value...)
}

// frame returns a whole frame with the name that was asked for.
func (r *rename) frame(b []byte) []byte {
	if r == nil {
		return b
	}
	at := bytes.Index(b, r.from)
	if at < 0 {
		return b
	}
	return bytes.Join([][]byte{b[:at], b[at+len(r.from):]}, r.to)
}

// feed takes a piece of a single answer, and returns what of it may go on.
func (r *rename) feed(p []byte) []byte {
	if r == nil || r.isDone {
		return p
	}
	data := append(r.held, p...) //nolint:gocritic // held is taken, and made anew below
	if bytes.Contains(data, r.from) {
		r.isDone, r.held = true, nil
		return r.frame(data)
	}
	n := min(len(r.from)-1, len(data))
	for n > 0 && !bytes.HasPrefix(r.from, data[len(data)-n:]) {
		n--
	}
	r.held = bytes.Clone(data[len(data)-n:])
	return data[:len(data)-n]
}

// rest returns what is still held of an answer that has ended.
func (r *rename) rest() []byte {
	if r == nil {
		return nil
	}
	rest := r.held
	r.held = nil
	return rest
}

// digests returns those of the models that a name may mean, as its own or as an alias. Which alias
// holds for a tenant is for authz to say, so that of each one that fits has a bound.
func (s *tableSet) digests(name string) []string {
	canonical := canonicalModel(name)
	found := s.names[canonical]
	meant := [][]string{s.aliases[canonical]}
	asked := strings.ToLower(strings.TrimSpace(name))
	for _, pattern := range s.patterns {
		if strings.HasPrefix(asked, pattern[:len(pattern)-1]) {
			meant = append(meant, s.aliases[pattern])
		}
	}
	for _, digest := range slices.Concat(meant...) {
		if !slices.Contains(found, digest) {
			found = append(slices.Clip(found), digest)
		}
	}
	return found
}

// patternsOf returns the aliases with a star, the longest first.
func patternsOf(aliases map[string][]string) (patterns []string) {
	for name := range aliases {
		if strings.HasSuffix(name, "*") {
			patterns = append(patterns, name)
		}
	}
	slices.SortFunc(patterns, func(a, b string) int { return len(b) - len(a) })
	return patterns
}
