package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// server is one runner: the runner of one model.
type server struct {
	options
	ledger     *ledger
	vocabulary *vocabulary
	mu         sync.Mutex
	lastPrompt []string
}

func newServer(o options) *server {
	return &server{options: o, ledger: newLedger(o.model), vocabulary: &vocabulary{ids: map[string]int{}}}
}

// slotContext is the context that one request has for itself.
func (s *server) slotContext() int { return s.context / s.slots }

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, object{"status": "ok"})
	})
	for path, serve := range map[string]func(http.ResponseWriter, *http.Request, object){
		"/completion":          s.completion,
		"/v1/chat/completions": s.chat,
		"/v1/embeddings":       s.embed,
		"/apply-template": func(w http.ResponseWriter, _ *http.Request, body object) {
			reply(w, http.StatusOK, object{"prompt": lay(body).prompt})
		},
		"/tokenize": func(w http.ResponseWriter, _ *http.Request, body object) {
			tokens := s.vocabulary.encode(content(body["content"]))
			if isWhole, _ := body["add_special"].(bool); isWhole {
				tokens = append([]int{1}, tokens...)
			}
			reply(w, http.StatusOK, object{"tokens": tokens})
		},
		"/detokenize": func(w http.ResponseWriter, _ *http.Request, body object) {
			reply(w, http.StatusOK, object{"content": s.vocabulary.decode(integers(body["tokens"]))})
		},
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			body := object{}
			text, err := io.ReadAll(r.Body)
			if err == nil {
				err = json.Unmarshal(text, &body)
			}
			if err != nil {
				fail(w, http.StatusBadRequest, err.Error())
				return
			}
			serve(w, r, body)
		})
	}
	return mux
}

// isTooLong answers a prompt that leaves no room in the context.
func (s *server) isTooLong(w http.ResponseWriter, g *generation) bool {
	input, context := g.entry.InputTokens, s.slotContext()
	if input < context {
		return false
	}
	s.end(g, "too-long")
	message := "request (%d tokens) exceeds the available context size (%d tokens), try increasing it"
	reply(w, http.StatusBadRequest, object{"error": object{"code": http.StatusBadRequest,
		"type": "exceed_context_size_error", "n_prompt_tokens": input, "n_ctx": context,
		"message": fmt.Sprintf(message, input, context)}})
	return true
}

func fail(w http.ResponseWriter, status int, message string) {
	reply(w, status, object{"error": object{"code": status, "message": message, "type": "invalid_request_error"}})
}

func reply(w http.ResponseWriter, status int, body object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func integer(value any, otherwise int) int {
	if n, isNumber := value.(float64); isNumber {
		return int(n)
	}
	return otherwise
}

func integers(value any) []int {
	list, _ := value.([]any)
	numbers := []int{}
	for _, each := range list {
		numbers = append(numbers, integer(each, 0))
	}
	return numbers
}

func texts(value any) []string {
	list, _ := value.([]any)
	found := []string{}
	for _, each := range list {
		found = append(found, fmt.Sprint(each))
	}
	return found
}
