package gateway

import (
	"encoding/json"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// version of the messages between the guard, authz, the tap and the journal's readers.
const version = 1

// Headers that carry the messages. Those of a client are removed first.
const (
	askHeader    = "X-Nz-Ask"
	grantHeader  = "X-Nz-Grant"
	denialHeader = "X-Nz-Denial"
)

// ended names a request of this node that is over, so that authz can free its slot.
type ended struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
	Key    string `json:"key"`
}

// ask is what the guard tells authz about a request.
type ask struct {
	V           int     `json:"v"`
	ID          string  `json:"id"`
	Node        string  `json:"node"`
	Boot        string  `json:"boot"`
	IP          string  `json:"ip"`
	Method      string  `json:"method"`
	Path        string  `json:"path"`
	Lookup      *string `json:"lookup"`
	Length      *int64  `json:"length"`
	Model       *string `json:"model"`
	Stream      *bool   `json:"stream"`
	MaxOutput   *int64  `json:"max_output"`
	PromptBytes int     `json:"prompt_bytes"`
	Images      int     `json:"images"`
	Messages    int     `json:"messages"`
	Tools       int     `json:"tools"`
	Problem     *string `json:"problem"`
	Done        []ended `json:"done"`
}

// tokens is a reservation.
type tokens struct {
	Input  int64 `json:"input"`
	Output int64 `json:"output"`
}

// windows are the budget windows that a request is charged to.
type windows struct {
	Day   string `json:"day"`
	Month string `json:"month"`
}

// grant is authz's yes to one request, and the terms of it.
type grant struct {
	V         int               `json:"v"`
	ID        string            `json:"id"`
	Tenant    string            `json:"tenant"`
	Key       string            `json:"key"`
	Backends  []string          `json:"backends"`
	MaxOutput *int64            `json:"max_output"`
	Reserved  *tokens           `json:"reserved"`
	Windows   *windows          `json:"windows"`
	Drop      []string          `json:"drop"`
	Headers   map[string]string `json:"headers"`
	DeadlineS int64             `json:"deadline_s"`
	LogPrompt bool              `json:"log_prompt"`
}

// denial is authz's no; its status and body are the client's answer.
type denial struct {
	V      int     `json:"v"`
	ID     string  `json:"id"`
	Tenant *string `json:"tenant"`
	Key    *string `json:"key"`
	Reason *string `json:"reason"`
}

// bootLine opens the journal of a process, openLine that of a request.
type bootLine struct {
	V    int    `json:"v"`
	Node string `json:"node"`
	Boot string `json:"boot"`
	Seq  uint64 `json:"seq"`
}

type openLine struct {
	V        int      `json:"v"`
	ID       string   `json:"id"`
	Node     string   `json:"node"`
	Boot     string   `json:"boot"`
	Seq      uint64   `json:"seq"`
	Tenant   string   `json:"tenant"`
	Key      string   `json:"key"`
	Reserved *tokens  `json:"reserved"`
	Windows  *windows `json:"windows"`
	Deadline int64    `json:"deadline"`
}

// parseGrant reads a Grant that is meant for the request of that id.
func parseGrant(text, id string) (*grant, error) {
	var g grant
	if err := json.Unmarshal([]byte(text), &g); err != nil {
		return nil, err
	}
	if g.V != version || g.ID != id || id == "" {
		return nil, fmt.Errorf("version %d, id %q", g.V, g.ID)
	}
	if g.MaxOutput != nil && *g.MaxOutput < 1 {
		return nil, fmt.Errorf("max_output %d", *g.MaxOutput)
	}
	return &g, nil
}

// parseDenial reads a Denial that is meant for the request of that id.
func parseDenial(text, id string) (*denial, error) {
	var d denial
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return nil, err
	}
	if d.V != version || d.ID != id || id == "" {
		return nil, fmt.Errorf("version %d, id %q", d.V, d.ID)
	}
	return &d, nil
}

// marshalASCII is JSON without a byte above 0x7e: headers are bytes, and every reader
// takes those for the same text.
func marshalASCII(v any) string {
	plain, err := json.Marshal(v)
	if err != nil {
		return "" // cannot be: our messages are strings and numbers
	}
	out := make([]byte, 0, len(plain))
	for i := 0; i < len(plain); {
		if c := plain[i]; c < 0x7f {
			out = append(out, c)
			i++
			continue
		}
		r, size := utf8.DecodeRune(plain[i:])
		if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
			out = fmt.Appendf(out, "\\u%04x\\u%04x", high, low)
		} else {
			out = fmt.Appendf(out, "\\u%04x", r)
		}
		i += size
	}
	return string(out)
}
