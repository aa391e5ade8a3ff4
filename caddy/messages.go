package gateway

import (
	"encoding/json"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// version of the messages between the guard, authz, the tap and the journal's readers.
const version = 1

// Headers that carry the messages between Caddy and authz. Those of a client are removed
// first, and no client or backend sees ours. All are JSON in ASCII; the samples of
// testdata/contract bind both sides.
const (
	askHeader    = "X-Nz-Ask"
	grantHeader  = "X-Nz-Grant"
	knownHeader  = "X-Nz-Known"
	denialHeader = "X-Nz-Denial"
)

// changedHeader names the fields of a body that the backend did not get as the client sent them.
const changedHeader = "X-Gateway-Changed"

// doneRequest names a request of this node that has ended, so that authz can free its slot.
type doneRequest struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
	Key    string `json:"key"`
}

// ask is what authz decides from: all that the guard understood of a request. null is what
// the client did not send, or what the guard did not read because of the problem.
type ask struct {
	V           int     `json:"v"`
	ID          string  `json:"id"` // its time is that of the Ask
	Node        string  `json:"node"`
	Boot        string  `json:"boot"`
	TraceID     *string `json:"trace_id"` // null unless client or Caddy trace it
	IP          string  `json:"ip"`
	Method      string  `json:"method"`
	Path        string  `json:"path"`
	Lookup      *string `json:"lookup"`  // the public handle of the key
	InPath      bool    `json:"in_path"` // the path has a key in it, or could be meant so
	Length      *int64  `json:"length"`
	Model       *string `json:"model"`
	Stream      *bool   `json:"stream"`       // effective: as asked, or the default of the API
	MaxOutput   *int64  `json:"max_output"`   // the smallest cap in the body
	PromptBytes int     `json:"prompt_bytes"` // of text
	// Upper bounds of the prompt's tokens, by the digest of each model that the name may mean,
	// and "bytes" for any other.
	Bounds   map[string]int64 `json:"bounds"`
	Images   int              `json:"images"`
	Messages int              `json:"messages"`
	Tools    int              `json:"tools"`
	Asked    *asked           `json:"asked"`
	Signed   *signed          `json:"signed"` // null unless the client signs in place of sending a key
	Problem  *problem         `json:"problem"`
	Field    *string          `json:"field"` // where in the body the problem is, in our own words
	Done     []doneRequest    `json:"done"`
}

// tokens are reserved before a request runs, and settled by its record.
type tokens struct {
	Input  int64 `json:"input"`
	Output int64 `json:"output"`
}

// windows are the budget windows that a request is charged to, however long it runs: a day
// and a month in the tenant's time zone.
type windows struct {
	Day   string `json:"day"`
	Month string `json:"month"`
}

// grant is authz's permission for one request, and its terms.
type grant struct {
	V          int               `json:"v"`
	ID         string            `json:"id"`
	Tenant     string            `json:"tenant"`
	Key        string            `json:"key"`
	Backends   []string          `json:"backends"`   // the first is used, another one if that can't be
	Slots      []int             `json:"slots"`      // of each backend: how many may be in flight, 0 is any
	Priority   string            `json:"priority"`   // interactive or batch
	Weight     int64             `json:"weight"`     // of the tenant, where requests wait
	Model      string            `json:"model"`      // to run in place of the one asked for, null if that is meant
	Digest     string            `json:"digest"`     // of the model whose bound holds, null if none is known
	MaxOutput  *int64            `json:"max_output"` // tokens, null without a cap
	Reserved   *tokens           `json:"reserved"`   // what is held for it
	Ceiling    *tokens           `json:"ceiling"`    // the most that it can be charged
	Windows    *windows          `json:"windows"`
	Drop       []string          `json:"drop"`         // fields of the body that the backend may not see
	Set        map[string]int64  `json:"set"`          // fields of the body that are lowered
	Headers    map[string]string `json:"headers"`      // for the client, on a 2xx
	Cold       bool              `json:"cold"`         // the backend must load the model first
	DeadlineS  int64             `json:"deadline_s"`   // 0 is none
	LogPromptS int64             `json:"log_prompt_s"` // how long prompt and answer are kept; 0 keeps none
	EndUser    bool              `json:"end_user"`     // the journal has the user that the client names
}

// slots returns how many requests may be in flight at a backend; 0 is any number.
func (g *grant) slots(backend int) int {
	if backend >= len(g.Slots) {
		return 0
	}
	return max(0, g.Slots[backend])
}

// denial is authz's refusal of one request; its status and body are the client's answer.
type denial struct {
	V      int     `json:"v"`
	ID     string  `json:"id"`
	Tenant *string `json:"tenant"` // null if the key is unknown
	Key    *string `json:"key"`
	Reason *string `json:"reason"` // of reasons.json
}

// bootLine is the first line of a process in the journal, and the first of a file that takes
// the place of one that was lost; the seq of the former is 0.
type bootLine struct {
	V        int       `json:"v"`
	Node     string    `json:"node"`
	Boot     string    `json:"boot"`
	Seq      uint64    `json:"seq"`
	Previous *lastLine `json:"previous"` // null if it is not known
}

// lastLine names a line before which nothing is missing in the journal, unless it was lost: the
// last one of the process before, or of this one in the file before.
type lastLine struct {
	Boot string `json:"boot"`
	Seq  uint64 `json:"seq"`
}

// openLine is written before a request runs, so that one whose record never comes (a crash)
// is settled at what its last progress line has.
type openLine struct {
	V           int      `json:"v"`
	ID          string   `json:"id"`
	Node        string   `json:"node"`
	Boot        string   `json:"boot"`
	Seq         uint64   `json:"seq"`
	TraceID     *string  `json:"trace_id"`
	Tenant      string   `json:"tenant"`
	Key         string   `json:"key"`
	IP          string   `json:"ip"`
	EndUser     *string  `json:"end_user"` // null unless the Grant says that it is kept
	Path        string   `json:"path"`
	Model       *string  `json:"model"`
	ModelAsked  *string  `json:"model_asked"` // null unless the client calls it by an alias
	Backend     string   `json:"backend"`
	Stream      *bool    `json:"stream"`
	Reserved    *tokens  `json:"reserved"`
	Ceiling     *tokens  `json:"ceiling"`
	Windows     *windows `json:"windows"`
	Queued      bool     `json:"queued"` // it waits for a slot; a progress line says when it runs
	PromptBytes int64    `json:"prompt_bytes"`
	Images      int64    `json:"images"`
	Deadline    int64    `json:"deadline"` // in seconds since 1970
}

// progressLine is what streams have delivered so far: of those alone that delivered more
// since the last one.
type progressLine struct {
	V       int              `json:"v"`
	Node    string           `json:"node"`
	Boot    string           `json:"boot"`
	Seq     uint64           `json:"seq"`
	At      int64            `json:"at"` // in seconds since 1970
	Running []streamProgress `json:"running"`
}

// streamProgress is one stream of a progressLine: [id, deltas, text_bytes, tool_bytes].
type streamProgress struct {
	content

	id string
}

// MarshalJSON writes an array, which is a third as long as an object.
func (p streamProgress) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `["%s",%d,%d,%d]`, p.id, p.deltas, p.textBytes, p.toolBytes), nil
}

// parseGrant reads a Grant that is meant for the request of that id: one of another request
// (a replay) or version is an error.
func parseGrant(text, id string) (*grant, error) {
	g, isPlain := readPlainGrant(text)
	if !isPlain {
		g = new(grant)
		if err := json.Unmarshal([]byte(text), g); err != nil {
			return nil, err
		}
	}
	if g.V != version || g.ID != id || id == "" {
		return nil, fmt.Errorf("version %d, id %q", g.V, g.ID)
	}
	if g.MaxOutput != nil && *g.MaxOutput < 1 {
		return nil, fmt.Errorf("max_output %d", *g.MaxOutput)
	}
	return g, nil
}

// parseDenial reads a Denial that is meant for the request of that id, likewise.
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

// marshalASCII returns JSON without a byte above 0x7e: headers are bytes (RFC 9110, 5.5, and
// field values beyond ASCII are opaque), and every reader takes these for the same text.
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
