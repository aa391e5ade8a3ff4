package gateway

import (
	"bytes"

	"neuronetz-gateway/caddy/internal/jsonstream"
)

// prompt is what of a request a model would have to read.
type prompt struct {
	bytes    int // of text, decoded: what ratios are learned by
	wide     int // of these bytes, beyond ASCII
	images   int
	messages int // also input items and prompts
	tools    int
	bounds   map[string]int64 // see meter
}

// Tokens that what stands around a text may cost, whichever template or renderer writes it.
const (
	baseTokens      = 64  // of a prompt
	baseToolTokens  = 320 // of the instructions for tools, besides
	objectTokens    = 40  // of a message, a part of one, a call of a tool
	inputTokens     = 4   // of a text to embed: the marks around it
	toolTokens      = 64
	nameTokens      = 9  // of the name of a member that is written as JSON or in tags
	argumentTokens  = 20 // of an argument of a call, besides
	lineTokens      = 3  // of each line of a tool's description, which may stand in a comment
	exponentTokens  = 25 // of a number that is written anew, with all its digits
	exponentInText  = 22 // of such a number in a text that is read as JSON
	unknownIDTokens = 1024
)

// countPrompt prices the members of a request body, which has been checked, by what is known
// of the models that it may mean. What is not known to be no text counts as text, so that a
// field that a later Ollama reads is never free.
func countPrompt(body []byte, members []jsonstream.Member, kind api, models []modelTable) prompt {
	isEmbedding := kind == apiEmbed || kind == apiEmbeddings || kind == apiV1Embeddings
	p := pricer{meter: newMeter(models), isEmbedding: isEmbedding}
	for _, m := range members {
		p.member(body[m.Value:m.End], string(m.Name))
	}
	p.bytes, p.wide = p.textBytes, p.beyondASCII
	p.bounds = p.result(p.tools, p.images)
	return p.prompt
}

// pricer walks through a body once.
type pricer struct {
	prompt
	meter

	isEmbedding bool
}

// member prices one member of the body.
func (p *pricer) member(v []byte, name string) {
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
		p.system(func() { p.message(v, 0) })
	case "images":
		p.images += elements(v)
	case "context":
		p.ids(v)
	case "tools":
		p.tools += elements(v)
		p.each(v, func(v []byte) {
			p.fixed += toolTokens
			p.json(v, 0, nameTokens)
		})
	case "suffix", "template":
		p.message(v, 0)
	default:
		if v[0] == '{' || v[0] == '[' || v[0] == '"' {
			p.json(v, 0, nameTokens)
		}
	}
}

// each visits the elements of a list; any other value is one.
func (p *pricer) each(v []byte, visit func(v []byte)) {
	if v[0] != '[' {
		visit(v)
		return
	}
	for i := jsonstream.SkipSpace(v, 1); v[i] != ']'; {
		end, _ := jsonstream.SkipValue(v, i, 0)
		visit(v[i:end])
		i = skipComma(v, end)
	}
}

// list prices messages, input items or prompts; those of the system apart, since a template
// may repeat them.
func (p *pricer) list(v []byte) {
	p.each(v, func(v []byte) {
		switch {
		case isSystem(v):
			p.system(func() { p.message(v, 0) })
		case p.isEmbedding && v[0] == '"':
			p.fixed += inputTokens
			p.text(v[1:len(v)-1], asText)
		default:
			p.message(v, 0)
		}
	})
}

// isSystem reports whether a message has the role of the system, in any of its spellings.
func isSystem(v []byte) bool {
	return eachMember(v, func(name, v []byte) string {
		isRole := isNamed(name, "role") && v[0] == '"'
		if isRole && (isNamed(v[1:len(v)-1], "system") || isNamed(v[1:len(v)-1], "developer")) {
			return placeRole
		}
		return ""
	}) != ""
}

// message prices the value at v[i], a message or a part of one, and returns the place behind it.
func (p *pricer) message(v []byte, i int) (end int) {
	switch v[i] {
	case '"':
		end, _ = jsonstream.SkipString(v, i)
		p.fixed += objectTokens
		p.objects++
		p.text(v[i+1:end-1], asText)
		return end
	case '[':
		for i = jsonstream.SkipSpace(v, i+1); v[i] != ']'; i = skipComma(v, i) {
			i = p.message(v, i)
		}
		return i + 1
	case '{':
		return p.object(v, i)
	}
	return p.scalar(v, i)
}

// object prices the members of a message or of a part of one.
func (p *pricer) object(v []byte, i int) (end int) {
	p.fixed += objectTokens
	p.objects++
	for i = jsonstream.SkipSpace(v, i+1); v[i] != '}'; i = skipComma(v, i) {
		name, at, _ := jsonstream.ScanName(v, i)
		kind := part(name)
		switch kind {
		case partText:
			i = p.part(v, at, asText)
			continue
		case partUnknown:
			p.fixed += nameTokens
			p.text(name, asJSON)
			i = p.part(v, at, asJSON)
			continue
		case partName:
			i = p.part(v, at, asJSON)
			continue
		}
		i, _ = jsonstream.SkipValue(v, at, 0)
		value := v[at:i]
		switch kind {
		case partImages:
			p.images += elements(value)
		case partImage:
			p.images++
		case partArguments:
			p.arguments(value)
		}
	}
	return i + 1
}

// part prices a member of a message, whose strings stand in no message of their own.
func (p *pricer) part(v []byte, i, how int) (end int) {
	if v[i] != '"' {
		return p.message(v, i)
	}
	end, _ = jsonstream.SkipString(v, i)
	p.text(v[i+1:end-1], how)
	return end
}

// Kinds of members of a message.
const (
	partUnknown   = iota
	partText      // its name is not for the model to read
	partName      // likewise, but a template may write its value as JSON
	partImages    // a list, an image each
	partImage     // one image
	partArguments // JSON, which a template writes anew
)

// partNames are the members of messages, by the names of all dialects.
var partNames = map[string]int{
	"content": partText, "text": partText, "role": partText, "type": partText, "name": partName,
	"thinking": partText, "reasoning": partText, "reasoning_content": partText, "summary": partText,
	"tool_calls": partText, "function": partText, "output": partText, "status": partText,
	"id": partName, "call_id": partName, "tool_call_id": partName, "tool_use_id": partName, "tool_name": partName,
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
	return partUnknown
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
