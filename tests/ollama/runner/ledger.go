package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// entry is what the ledger says of one request: one line of JSON, whatever became of it. The
// input of a prompt counts its cached part too.
type entry struct {
	Tag          string `json:"tag"`
	Route        string `json:"route"`
	Model        string `json:"model"` // file of the model, which is named by its digest
	InputTokens  int    `json:"input_tokens"`
	CachedTokens int    `json:"cached_tokens"`
	OutputTokens int    `json:"output_tokens"`
	// End is stop or limit for a whole answer, cancel where the client disconnected, too-long
	// for a prompt beyond the context, else the fault's mode. A request at a gate leaves a
	// line without an end for every event that has passed.
	End string `json:"end"`
}

// ledger appends to a file that other runners append to as well.
type ledger struct {
	mu    sync.Mutex
	path  string
	model string
}

func newLedger(model string) *ledger {
	return &ledger{path: os.Getenv("RUNNER_LEDGER"), model: filepath.Base(model)}
}

func (l *ledger) write(e entry) {
	if l.path == "" {
		return
	}
	e.Model = l.model
	line, err := json.Marshal(e)
	if err != nil {
		panic(err) // strings and numbers always have JSON
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	file, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		// One write: lines of two runners never mix.
		_, err = file.Write(append(line, '\n'))
		_ = file.Close()
	}
	if err != nil { // a truth that is missing would let a test pass
		fmt.Fprintln(os.Stderr, "error: no ledger:", err)
		os.Exit(1)
	}
}
