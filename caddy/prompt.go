package gateway

import (
	"bytes"

	"neuronetz-gateway/caddy/internal/jsonstream"
)

// prompt is what of a request a model would have to read, bounded from above: a token is
// never less than one byte of it. authz reserves tokens by it before the model counts them,
// so it may be too large, never too small.
type prompt struct {
	bytes    int // of text, decoded, and of JSON as a template would write it
	images   int
	messages int // also input items and prompts
	tools    int
}

// countPrompt counts the members of a request body, which has been checked. What it does
// not know it counts as text, so that a field that a later Ollama reads is never free.
func countPrompt(body []byte, members []jsonstream.Member) prompt {
	var p prompt
	for _, m := range members {
		p.member(body[m.Value:m.End], string(m.Name))
	}
	return p
}

// member counts one member of the body.
func (p *prompt) member(v []byte, name string) {
	switch name {
	case "model", "options", "stream_options", "keep_alive", "encoding_format", "user", "metadata":
		// Not for the model to read.
	case "messages":
		p.messages += elements(v)
		p.list(v)
	case "input", "prompt":
		p.messages += max(1, elements(v))
		p.list(v)
	case "system", "instructions": // a template may repeat it
		p.messages++
		before := p.bytes
		p.text(v, 0)
		p.bytes += p.bytes - before
	case "images":
		p.images += elements(v)
	case "context": // tokens of an earlier answer, at least a byte each
		p.bytes += elements(v)
	case "tools":
		p.tools += elements(v)
		p.bytes += jsonstream.MarshalledBytes(v)
	case "suffix", "template":
		p.text(v, 0)
	default:
		if v[0] == '{' || v[0] == '[' || v[0] == '"' {
			p.bytes += jsonstream.MarshalledBytes(v)
		}
	}
}

// list counts messages, input items or prompts; those of the system twice, since a template
// may repeat them.
func (p *prompt) list(v []byte) {
	if v[0] != '[' {
		p.text(v, 0)
		return
	}
	for i := jsonstream.SkipSpace(v, 1); v[i] != ']'; {
		before := p.bytes
		var isSystem bool
		i, isSystem = p.text(v, i)
		if isSystem {
			p.bytes += p.bytes - before
		}
		i = skipComma(v, i)
	}
}

// text counts the strings of the value at v[i] as they read, decoded, and returns the place
// behind it, and whether it is a message of the system. Numbers and literals are no text.
func (p *prompt) text(v []byte, i int) (end int, isSystem bool) {
	switch v[i] {
	case '"':
		end, _ = jsonstream.SkipString(v, i)
		p.bytes += jsonstream.DecodedBytes(v[i+1 : end-1])
		return end, false
	case '[':
		for i = jsonstream.SkipSpace(v, i+1); v[i] != ']'; i = skipComma(v, i) {
			i, _ = p.text(v, i)
		}
		return i + 1, false
	case '{':
		return p.object(v, i)
	}
	end, _ = jsonstream.SkipValue(v, i, 0)
	return end, false
}

// object counts the members of a message or of a part of one, as text does.
func (p *prompt) object(v []byte, i int) (end int, isSystem bool) {
	for i = jsonstream.SkipSpace(v, i+1); v[i] != '}'; i = skipComma(v, i) {
		name, at, _ := jsonstream.ScanName(v, i)
		kind := part(name)
		if kind == partText {
			i, _ = p.text(v, at)
			continue
		}
		i, _ = jsonstream.SkipValue(v, at, 0)
		value := v[at:i]
		switch kind {
		case partRole:
			isSystem = string(value) == `"system"` || string(value) == `"developer"`
		case partImages:
			p.images += elements(value)
		case partImage:
			p.images++
		case partArguments:
			p.bytes += jsonstream.MarshalledBytes(value)
		}
	}
	return i + 1, isSystem
}

// Kinds of members of a message.
const (
	partText      = iota // counted as the text in it; unknown members as well
	partRole             // not counted
	partType             // not counted
	partImages           // a list, an image each
	partImage            // one image
	partArguments        // JSON, which a template writes anew
)

// partNames are the members of messages, by the names of all dialects.
var partNames = map[string]int{
	"content": partText, "text": partText, "role": partRole, "type": partType,
	"images": partImages, "image_url": partImage, "input_audio": partImage, "source": partImage,
	"arguments": partArguments, "input": partArguments,
}

// part returns the kind of a member of a message, in any spelling that encoding/json
// accepts: an image that is spelled oddly must not be counted as few bytes of text.
func part(name []byte) int {
	if kind, ok := partNames[string(name)]; ok {
		return kind
	}
	decoded := name
	if bytes.IndexByte(name, '\\') >= 0 {
		decoded = jsonstream.AppendDecoded(nil, name)
	}
	for known, kind := range partNames {
		if len(decoded) <= 3*len(known) && bytes.EqualFold(decoded, []byte(known)) {
			return kind
		}
	}
	return partText
}

// elements returns the number of elements of an array, 0 for any other value.
func elements(v []byte) int {
	if v[0] != '[' {
		return 0
	}
	n := 0
	for i := jsonstream.SkipSpace(v, 1); v[i] != ']'; i = skipComma(v, i) {
		i, _ = jsonstream.SkipValue(v, i, 0)
		n++
	}
	return n
}

// skipComma passes the comma at v[i], if there is one, in JSON that has been checked.
func skipComma(v []byte, i int) int {
	i = jsonstream.SkipSpace(v, i)
	if v[i] == ',' {
		i = jsonstream.SkipSpace(v, i+1)
	}
	return i
}
