package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// stampMark precedes the time in each token, in microseconds since 1970: 16 digits.
const stampMark = '@'

const listed = `{"name":"%[1]s:latest","model":"%[1]s:latest",` +
	`"modified_at":"2026-01-01T00:00:00Z","size":1,"details":{"context_length":32768},"digest":"%064[2]d"}`

// asked is the part of a request that the mock acts on, in either dialect.
type asked struct {
	Model    string
	Stream   *bool
	Messages []struct{ Content string }
}

// serve answers what a gateway asks of an Ollama with so many models, until the process ends.
func serve(addr string, models int) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	mux := http.NewServeMux()
	constant(mux, "/api/version", `{"version":"0.0.0"}`)
	constant(mux, "/api/tags", tags(models))
	constant(mux, "/api/ps", `{"models":[]}`)
	mux.HandleFunc("POST /api/show", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, described()) })
	constant(mux, "/v1/models", `{"object":"list","data":[{"id":"bench","object":"model"}]}`)
	mux.HandleFunc("POST /api/chat", func(w http.ResponseWriter, r *http.Request) { answer(w, r, native{}) })
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) { answer(w, r, openai{}) })
	return http.Serve(listener, mux) //nolint:gosec // a mock on loopback needs no timeouts
}

// tags lists `bench`, and others beside it.
func tags(models int) string {
	entries := []string{fmt.Sprintf(listed, "bench", 0)}
	for i := 1; i < models; i++ {
		entries = append(entries, fmt.Sprintf(listed, fmt.Sprintf("bench-%d", i), i))
	}
	return `{"models":[` + strings.Join(entries, ",") + `]}`
}

// described has the smallest vocabulary, a token for each byte: what a gateway counts with.
func described() string {
	tokens, types, scores := make([]string, 256), make([]int, 256), make([]int, 256)
	for i := range tokens {
		tokens[i], types[i] = fmt.Sprintf("<0x%02X>", i), 6
	}
	text, _ := json.Marshal(map[string]any{"model_info": map[string]any{
		"general.architecture": "bench", "bench.context_length": 32768,
		"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens,
		"tokenizer.ggml.token_type": types, "tokenizer.ggml.scores": scores,
	}})
	return string(text)
}

func constant(mux *http.ServeMux, path, body string) {
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, body)
	})
}

// answer sends as many tokens as the prompt says, `tokens=16 every=2ms`.
func answer(w http.ResponseWriter, r *http.Request, speak dialect) {
	var a asked
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil || len(a.Messages) == 0 {
		http.Error(w, `{"error":"no chat"}`, http.StatusBadRequest)
		return
	}
	tokens, every := script(a.Messages[len(a.Messages)-1].Content)
	if a.Stream == nil && !speak.streams() || a.Stream != nil && !*a.Stream {
		w.Header().Set("Content-Type", "application/json")
		time.Sleep(time.Duration(tokens) * every)
		fmt.Fprint(w, speak.whole(a.Model, strings.Repeat(stamp(), tokens), tokens))
		return
	}
	w.Header().Set("Content-Type", speak.mediaType())
	flusher := http.NewResponseController(w)
	start := time.Now()
	for i := range tokens {
		time.Sleep(time.Until(start.Add(time.Duration(i+1) * every))) // no pause adds up
		fmt.Fprint(w, speak.token(a.Model, stamp()))
		if flusher.Flush() != nil || r.Context().Err() != nil {
			return
		}
	}
	fmt.Fprint(w, speak.end(a.Model, tokens))
}

func stamp() string {
	return string(stampMark) + strconv.FormatInt(time.Now().UnixMicro(), 10) + " "
}

func script(prompt string) (tokens int, every time.Duration) {
	for word := range strings.FieldsSeq(prompt) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "tokens":
			tokens, _ = strconv.Atoi(value)
		case "every":
			every, _ = time.ParseDuration(value)
		}
	}
	return tokens, every
}
