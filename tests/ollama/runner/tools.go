package main

import (
	"fmt"
	"hash/fnv"
	"regexp"
	"strings"
)

// place finds a name in a question such as "the weather in Paris".
var place = regexp.MustCompile(`(?:\bin|\bfor|\bat|\bof) ([A-Z][a-z]+(?: [A-Z][a-z]+)*)`)

// madeUp stands for every text that a schema asks for.
const madeUp = "value"

// toolCall is a call of a tool, with its arguments as JSON text.
type toolCall struct{ id, name, arguments string }

// chooseTool calls the last tool that the question names, else the first one; a name in the
// question becomes its text arguments.
func chooseTool(tools []any, question string) *toolCall {
	var chosen object
	for _, each := range tools {
		tool, _ := each.(object)
		function := inside(tool, "function")
		name, _ := function["name"].(string)
		if function != nil && (chosen == nil || strings.Contains(question, name)) {
			chosen = function
		}
	}
	if chosen == nil {
		return nil
	}
	arguments := object{}
	for name, schema := range inside(chosen, "parameters", "properties") {
		arguments[name] = example(schema)
		if found := place.FindStringSubmatch(question); found != nil && arguments[name] == madeUp {
			arguments[name] = found[1]
		}
	}
	text := compact(arguments)
	return &toolCall{fmt.Sprintf("call_%08x", hash(string(text))), fmt.Sprint(chosen["name"]), string(text)}
}

// example is the plainest value that a JSON schema allows.
func example(schema any) any {
	s, _ := schema.(object)
	if choices, _ := s["enum"].([]any); len(choices) > 0 {
		return choices[0]
	}
	kind := s["type"]
	if kinds, _ := kind.([]any); len(kinds) > 0 {
		kind = kinds[0]
	}
	switch kind {
	case "object":
		value := object{}
		for name, each := range inside(s, "properties") {
			value[name] = example(each)
		}
		return value
	case "array":
		return []any{example(s["items"])}
	case "integer", "number":
		return 7
	case "boolean":
		return true
	}
	return madeUp
}

// jsonAnswer is the answer to a request for JSON; empty where none was asked for.
func jsonAnswer(format string, schema any) string {
	if schema != nil {
		return strings.ReplaceAll(string(compact(example(schema))), ",", ", ")
	}
	if format != "" {
		return `{"ok": true, "n": 7}`
	}
	return ""
}

func hash(text string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(text))
	return h.Sum32()
}
