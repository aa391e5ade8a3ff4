package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

type object = map[string]any

// layout is a chat as one prompt.
type layout struct {
	prompt   string
	user     string // content of the last message of the user
	lastRole string
}

func lay(body object) layout {
	var l layout
	var b strings.Builder
	if tools, _ := body["tools"].([]any); len(tools) > 0 {
		fmt.Fprintf(&b, "<|tools|> %s\n", compact(tools))
	}
	messages, _ := body["messages"].([]any)
	for _, each := range messages {
		message, _ := each.(object)
		l.lastRole = fmt.Sprint(message["role"])
		text := content(message["content"])
		if l.lastRole == "user" {
			l.user = text
		}
		fmt.Fprintf(&b, "<|%s|> %s", l.lastRole, text)
		if calls, isThere := message["tool_calls"]; isThere {
			fmt.Fprintf(&b, " %s", compact(calls))
		}
		b.WriteByte('\n')
	}
	b.WriteString("<|assistant|>")
	l.prompt = b.String()
	return l
}

// content is the text of a message; a part that is no text costs one word.
func content(value any) string {
	switch c := value.(type) {
	case string:
		return c
	case []any:
		texts := []string{}
		for _, each := range c {
			part, _ := each.(object)
			text, isText := part["text"].(string)
			if !isText {
				text = fmt.Sprintf("<|%v|>", part["type"])
			}
			texts = append(texts, text)
		}
		return strings.Join(texts, " ")
	}
	return ""
}

// inside follows names into an object; what is missing is empty.
func inside(value object, names ...string) object {
	for _, name := range names {
		value, _ = value[name].(object)
	}
	return value
}

func compact(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // it came from JSON
	}
	return text
}
