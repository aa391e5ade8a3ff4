package gateway

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
)

// lines are the journal's lines, in order; one that is being written is none yet.
func (s *stack) lines(t testing.TB) []line {
	t.Helper()
	text, err := os.ReadFile(s.path("journal/journal.log"))
	must(t, err)
	var list []line
	for text := range bytes.SplitSeq(text[:bytes.LastIndexByte(text, '\n')+1], []byte{'\n'}) {
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		l.raw = string(text)
		list = append(list, l)
	}
	return list
}

// line is one line of the journal.
type line struct {
	raw     string
	Msg     string `json:"msg"`
	Gateway entry  `json:"gateway"`
}

type entry struct {
	ID             string  `json:"id"`
	Boot           string  `json:"boot"`
	Seq            uint64  `json:"seq"`
	TraceID        *string `json:"trace_id"`
	IP             string  `json:"ip"`
	Lookup         *string `json:"lookup"`
	Tenant         *string `json:"tenant"`
	Path           string  `json:"path"`
	Model          *string `json:"model"`
	ModelAsked     *string `json:"model_asked"`
	Backend        *string `json:"backend"`
	Tried          string  `json:"tried"`
	Sent           bool    `json:"sent"`
	Stream         *bool   `json:"stream"`
	Outcome        outcome `json:"outcome"`
	Reason         *string `json:"reason"`
	Status         int     `json:"status"`
	UpstreamStatus *int    `json:"upstream_status"`
	Reserved       *tokens `json:"reserved"`
	Terminal       bool    `json:"terminal"`
	InputTokens    *int64  `json:"input_tokens"`
	OutputTokens   *int64  `json:"output_tokens"`
	CachedTokens   *int64  `json:"cached_tokens"`
	Deltas         int64   `json:"deltas"`
	OutputBytes    int64   `json:"output_bytes"`
	PromptBytes    int64   `json:"prompt_bytes"`
	TTFT           *int64  `json:"ttft_ms"`
	Duration       int64   `json:"duration_ms"`
	WaitedMS       int64   `json:"waited_ms"`
	Queued         bool    `json:"queued"`
}

// record waits for the record of a request.
func (s *stack) record(t testing.TB, id string) entry {
	t.Helper()
	var found entry
	eventually(t, "the record of "+id, func() bool {
		for _, l := range s.lines(t) {
			if l.Gateway.ID == id && l.Msg == "handled request" {
				found = l.Gateway
				return true
			}
		}
		return false
	})
	return found
}
