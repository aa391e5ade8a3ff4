package main

import "fmt"

// dialect is how an API words an answer.
type dialect interface {
	streams() bool // when the request does not say
	mediaType() string
	token(model, text string) string
	end(model string, tokens int) string
	whole(model, text string, tokens int) string
}

const created = "2026-01-01T00:00:00Z"

type native struct{}

func (native) streams() bool     { return true }
func (native) mediaType() string { return "application/x-ndjson" }

func (native) token(model, text string) string {
	return fmt.Sprintf(`{"model":%q,"created_at":%q,"message":{"role":"assistant","content":%q},"done":false}`+"\n",
		model, created, text)
}

func (n native) end(model string, tokens int) string { return n.whole(model, "", tokens) + "\n" }

func (native) whole(model, text string, tokens int) string {
	return fmt.Sprintf(`{"model":%q,"created_at":%q,"message":{"role":"assistant","content":%q},"done":true,`+
		`"done_reason":"stop","total_duration":1,"load_duration":1,"prompt_eval_count":8,`+
		`"prompt_eval_duration":1,"eval_count":%d,"eval_duration":1}`, model, created, text, tokens)
}

type openai struct{}

const (
	openaiHead  = `{"id":"chatcmpl-1","created":1767225600,"model":%q,"object":"chat.completion%s",`
	openaiUsage = `"usage":{"prompt_tokens":8,"completion_tokens":%d,"total_tokens":%d}`
)

func (openai) streams() bool     { return false }
func (openai) mediaType() string { return "text/event-stream" }

func (openai) token(model, text string) string {
	return fmt.Sprintf("data: "+openaiHead+`"choices":[{"index":0,"delta":{"role":"assistant","content":%q},`+
		`"finish_reason":null}]}`+"\n\n", model, ".chunk", text)
}

func (openai) end(model string, tokens int) string {
	return fmt.Sprintf("data: "+openaiHead+`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\n"+
		"data: "+openaiHead+`"choices":[],`+openaiUsage+"}\n\ndata: [DONE]\n\n",
		model, ".chunk", model, ".chunk", tokens, tokens+8)
}

func (openai) whole(model, text string, tokens int) string {
	return fmt.Sprintf(openaiHead+`"choices":[{"index":0,"message":{"role":"assistant","content":%q},`+
		`"finish_reason":"stop"}],`+openaiUsage+"}", model, "", text, tokens, tokens+8)
}
