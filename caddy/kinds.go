package gateway

import (
	"bytes"
	"slices"
	"strings"

	"neuronetz-gateway/caddy/internal/jsonstream"
)

// kinds are the values by which a body chooses what it holds. Anything else is a problem: an
// item of an unknown kind could make Ollama run a second generation that no cap of ours
// reaches and no usage reports (compaction_trigger and web_search do), or be read as text that
// nobody has counted. testdata/contract/kinds.json lists them, beside those of Ollama's that
// are refused on purpose; a test against Ollama's own sources finds new ones.
type kinds struct {
	items   []string // "type" of an input item; null where the API has none
	parts   []string // "type" of a part of a message's content
	tools   []string // "type" of a tool
	roles   []string // "role" of a message, in any case
	formats []string // "type" of the format of the answer
}

// allowedKinds has the APIs whose bodies hold messages. In all of them a kind may be left out:
// Ollama then takes a plain message, function or text.
var allowedKinds = map[api]kinds{
	apiChat: {
		tools: []string{"function"},
		roles: []string{"assistant", "control", "developer", "system", "tool", "user"},
	},
	apiV1Chat: {
		parts:   []string{"image_url", "input_audio", "text"},
		tools:   []string{"function"},
		roles:   []string{"assistant", "developer", "function", "system", "tool", "user"},
		formats: []string{"json_object", "json_schema", "text"},
	},
	apiResponses: {
		items: []string{
			"agent_message", "function_call", "function_call_output", "message", "reasoning",
			"tool_search_call", "tool_search_output",
		},
		parts:   []string{"encrypted_content", "input_file", "input_image", "input_text", "output_text"},
		tools:   []string{"function", "namespace", "tool_search"},
		roles:   []string{"assistant", "developer", "system", "user"},
		formats: []string{"json_object", "json_schema", "text"},
	},
	apiMessages: {
		parts: []string{"image", "redacted_thinking", "text", "thinking", "tool_result", "tool_use"},
		tools: []string{"custom", "function"},
		roles: []string{"assistant", "system", "user"},
	},
}

// Places of a kind, as a refused client reads them.
const (
	placeItem   = "input.type"
	placePart   = "content.type"
	placeTool   = "tools.type"
	placeRole   = "role"
	placeFormat = "format.type"
)

// unknownKind returns the place of a kind that is not allowed, "" if all of them are. The body
// has been checked; names in it are compared as encoding/json does, in any case and with
// escapes, and of a name given twice each value counts.
func unknownKind(body []byte, members []jsonstream.Member, kind api) string {
	allowed, ok := allowedKinds[kind]
	if !ok {
		return ""
	}
	for _, m := range members {
		if place := allowed.field(m.Name, body[m.Value:m.End]); place != "" {
			return place
		}
	}
	return ""
}

// field checks one top-level field of a body.
func (k kinds) field(name, v []byte) string {
	switch {
	case isNamed(name, "messages"), isNamed(name, "input"):
		return eachElement(v, k.item)
	case isNamed(name, "system"):
		return k.content(v)
	case isNamed(name, "tools"):
		return eachElement(v, k.tool)
	case isNamed(name, "response_format"):
		return k.format(v)
	case isNamed(name, "text"):
		return eachMember(v, func(name, v []byte) string {
			if isNamed(name, "format") {
				return k.format(v)
			}
			return ""
		})
	}
	return ""
}

// item checks a message, or an item of the input of /v1/responses.
func (k kinds) item(v []byte) string {
	return eachMember(v, func(name, v []byte) string {
		switch {
		case isNamed(name, "type") && k.items != nil:
			return oneOf(v, k.items, placeItem)
		case isNamed(name, "role"):
			return oneOf(v, k.roles, placeRole)
		case isNamed(name, "content"), isNamed(name, "output"):
			return k.content(v)
		case isNamed(name, "tools"):
			return eachElement(v, k.tool)
		}
		return ""
	})
}

// content checks the parts of a message's content, and those inside the result of a tool.
func (k kinds) content(v []byte) string {
	return eachElement(v, func(v []byte) string {
		return eachMember(v, func(name, v []byte) string {
			switch {
			case isNamed(name, "type"):
				return oneOf(v, k.parts, placePart)
			case isNamed(name, "content"):
				return k.content(v)
			}
			return ""
		})
	})
}

// tool checks a tool, and the tools of a namespace.
func (k kinds) tool(v []byte) string {
	return eachMember(v, func(name, v []byte) string {
		switch {
		case isNamed(name, "type"):
			return oneOf(v, k.tools, placeTool)
		case isNamed(name, "tools"):
			return eachElement(v, k.tool)
		}
		return ""
	})
}

// format checks the format of the answer.
func (k kinds) format(v []byte) string {
	return eachMember(v, func(name, v []byte) string {
		if isNamed(name, "type") {
			return oneOf(v, k.formats, placeFormat)
		}
		return ""
	})
}

// oneOf returns the place if v is neither null nor one of the strings, in any case.
func oneOf(v []byte, allowed []string, place string) string {
	if v[0] == 'n' {
		return ""
	}
	if v[0] == '"' {
		text := strings.ToLower(string(jsonstream.AppendDecoded(nil, v[1:len(v)-1])))
		if text == "" || slices.Contains(allowed, text) {
			return ""
		}
	}
	return place
}

// isNamed compares a name in JSON with one of ours as encoding/json does.
func isNamed(name []byte, ours string) bool {
	if bytes.IndexByte(name, '\\') >= 0 {
		name = jsonstream.AppendDecoded(nil, name)
	}
	return bytes.EqualFold(name, []byte(ours))
}

// eachElement visits the elements of an array until one has something to say; any other value
// has no elements.
func eachElement(v []byte, visit func(v []byte) string) string {
	if v[0] != '[' {
		return ""
	}
	for i := jsonstream.SkipSpace(v, 1); v[i] != ']'; {
		end, _ := jsonstream.SkipValue(v, i, 0)
		if place := visit(v[i:end]); place != "" {
			return place
		}
		i = skipComma(v, end)
	}
	return ""
}

// eachMember visits the members of an object likewise; any other value has no members.
func eachMember(v []byte, visit func(name, v []byte) string) string {
	if v[0] != '{' {
		return ""
	}
	for i := jsonstream.SkipSpace(v, 1); v[i] != '}'; {
		name, at, _ := jsonstream.ScanName(v, i)
		end, _ := jsonstream.SkipValue(v, at, 0)
		if place := visit(name, v[at:end]); place != "" {
			return place
		}
		i = skipComma(v, end)
	}
	return ""
}
