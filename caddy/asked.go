package gateway

import (
	"math"
	"strconv"
	"time"

	"neuronetz-gateway/caddy/internal/jsonstream"
)

// asked is what a request wants of the GPU that it shares. authz grants, lowers or drops it by
// its key. null is what the body does not say, or what Ollama could not read as a number: authz
// drops that as well, so that no spelling passes by an allowance.
type asked struct {
	NumCtx      *int64 `json:"num_ctx"`
	KeepAliveS  *int64 `json:"keep_alive_s"` // without end is greatestCount
	NumGPU      *int64 `json:"num_gpu"`
	Stop        *int64 `json:"stop"`         // strings that end an answer
	Inputs      *int64 `json:"inputs"`       // texts to embed
	SchemaBytes *int64 `json:"schema_bytes"` // of the format of the answer
	Logprobs    *int64 `json:"logprobs"`     // alternatives of each token
}

// stopFields are where the APIs have the strings that end an answer; Ollama's own has them
// among the options.
var stopFields = map[api]string{
	apiV1Chat: "stop", apiV1Completions: "stop", apiMessages: "stop_sequences",
}

// schemaFields are where the APIs have the schema of an answer, which llama.cpp turns into a
// grammar before it answers.
var schemaFields = map[api]string{
	apiChat: "format", apiGenerate: "format", apiV1Chat: "response_format", apiResponses: "text",
	apiMessages: "output_config",
}

// readAsked reads what a body wants of the GPU. Names at the top are found in any case, as
// encoding/json does; those of options exactly, as Ollama does.
func (q *request) readAsked(kind api) *asked {
	a := new(asked)
	switch kind {
	case apiChat, apiGenerate, apiEmbed, apiEmbeddings:
		a.NumCtx = amount(q.valueOf(q.options, "num_ctx"), 1)
		a.NumGPU = amount(q.valueOf(q.options, "num_gpu"), 0)
		a.KeepAliveS = seconds(q.top("keep_alive"))
		a.Stop = countOf(q.valueOf(q.options, "stop"))
	default:
		a.Stop = countOf(q.top(stopFields[kind]))
	}
	if kind == apiEmbed || kind == apiV1Embeddings {
		a.Inputs = countOf(q.top("input"))
	}
	if v := q.top(schemaFields[kind]); v != nil && v[0] == '{' {
		a.SchemaBytes = new(int64(len(v)))
	}
	for _, name := range []string{"logprobs", "top_logprobs"} {
		if n := amount(q.top(name), 1); n != nil && (a.Logprobs == nil || *n > *a.Logprobs) {
			a.Logprobs = n
		}
	}
	return a
}

// top returns the value of a member of the body, nil without one.
func (q *request) top(name string) []byte {
	if m, ok := findFold(q.members, name); ok {
		return q.body[m.Value:m.End]
	}
	return nil
}

// valueOf returns the value of the member of exactly that name, nil without one.
func (q *request) valueOf(members []jsonstream.Member, name string) []byte {
	if m, ok := find(members, name); ok {
		return q.body[m.Value:m.End]
	}
	return nil
}

// amount reads a number of at least that much, nil for anything else. A fraction, which
// Ollama cuts, counts as the next whole number, and what no float can hold as the greatest.
func amount(v []byte, least float64) *int64 {
	if len(v) == 0 || (v[0] != '-' && (v[0] < '0' || v[0] > '9')) {
		return nil
	}
	f, _ := strconv.ParseFloat(string(v), 64)
	if f < least {
		return nil
	}
	return new(int64(math.Ceil(min(f, greatestCount))))
}

// seconds reads how long a model shall stay loaded, as Ollama does: a number of seconds or a
// duration of Go; what is below 0 is without end.
func seconds(v []byte) *int64 {
	switch {
	case len(v) == 0:
		return nil
	case v[0] == '-':
		return new(int64(greatestCount))
	case v[0] != '"':
		return amount(v, 0)
	}
	d, err := time.ParseDuration(string(jsonstream.AppendDecoded(nil, v[1:len(v)-1])))
	switch {
	case err != nil:
		return nil
	case d < 0:
		return new(int64(greatestCount))
	}
	return new(int64(math.Ceil(d.Seconds())))
}

// countOf returns how many elements a list has; any other value is one.
func countOf(v []byte) *int64 {
	switch {
	case len(v) == 0 || v[0] == 'n':
		return nil
	case v[0] == '[':
		return new(int64(elements(v)))
	}
	return new(int64(1))
}
