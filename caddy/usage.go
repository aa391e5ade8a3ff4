package gateway

import (
	"bytes"
	"strconv"
	"time"

	"neuronetz-gateway/caddy/internal/jsonstream"
)

// count is a number that an answer may have said.
type count struct {
	n      int64
	isSaid bool
}

func (c count) pointer() *int64 {
	if !c.isSaid {
		return nil
	}
	return &c.n
}

// milliseconds is a count of nanoseconds in milliseconds.
func (c count) milliseconds() *int64 {
	if !c.isSaid {
		return nil
	}
	ms := c.n / 1_000_000
	return &ms
}

// usage is what an answer says of itself, and what can be counted in it. It holds no more
// of the answer than that, however long it is.
type usage struct {
	api      api
	shape    *shape
	isStream bool

	terminal bool // the frame that ends a whole answer was seen
	isError  bool // the answer says that it failed
	input    count
	output   count
	cached   count
	deltas   int64 // frames with content
	// outputBytes is the decoded length of the content.
	outputBytes              int64
	load, promptEval, eval   count
	leaves                   jsonstream.Reader
	frame                    frame
	id, model                []byte // as they stand in the JSON, for a last frame of ours
	sequence                 int64  // of the last event (Responses)
	openBlock                count  // index of the content block begun and not ended (Messages)
	hasBegun, hasFinishFrame bool
}

// frame is what one frame, or a single answer, says.
type frame struct {
	content               int64 // bytes
	input, output, cached count
	isDone                bool
	hasChoice, hasUsage   bool
	hasModel              bool
	isError               bool
	kind                  eventKind
	index                 int64
}

// shape is how the answers of an API are read, and ended.
type shape struct {
	leaf  func(u *usage, path *jsonstream.Path, depth int, v jsonstream.Leaf)
	end   func(u *usage)
	final func(u *usage, isCap bool, now time.Time) []byte
}

func shapeOf(kind api) *shape {
	switch kind {
	case apiV1Chat, apiV1Completions, apiV1Embeddings:
		return &openaiShape
	case apiResponses:
		return &responsesShape
	case apiMessages:
		return &messagesShape
	default:
		return &ollamaShape
	}
}

func newUsage(kind api, isStream bool) *usage {
	u := &usage{api: kind, isStream: isStream, shape: shapeOf(kind)}
	u.leaves.Visitor, u.leaves.Vocabulary = u, words
	return u
}

func (u *usage) Visit(path *jsonstream.Path, depth int, v jsonstream.Leaf) {
	u.shape.leaf(u, path, depth, v)
}

// readLine reads a line of newline-delimited JSON.
func (u *usage) readLine(line []byte) {
	u.readDocument(line)
}

// readEvent reads one server-sent event: its data lines are JSON, or the end.
func (u *usage) readEvent(event []byte) {
	u.frame = frame{}
	for len(event) > 0 {
		line, rest, _ := bytes.Cut(event, []byte{'\n'})
		event = rest
		data, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok {
			continue
		}
		if data = bytes.TrimSpace(data); string(data) == "[DONE]" {
			u.finish()
			continue
		}
		u.readDocument(data)
	}
}

func (u *usage) readDocument(data []byte) {
	u.frame = frame{}
	u.leaves.Reset()
	u.leaves.Feed(data)
	u.endFrame()
}

// feed reads a piece of a single answer; endSingle says that it is over.
func (u *usage) feed(p []byte) {
	u.leaves.Feed(p)
}

func (u *usage) endSingle() {
	if u.leaves.IsWhole() {
		u.endFrame()
		return
	}
	u.outputBytes += u.frame.content
}

func (u *usage) endFrame() {
	u.outputBytes += u.frame.content
	if u.isStream && u.frame.content > 0 {
		u.deltas++
	}
	u.isError = u.isError || u.frame.isError
	u.shape.end(u)
}

// report takes the usage of the frame.
func (u *usage) report() {
	u.input, u.output = u.frame.input, u.frame.output
	if u.frame.cached.isSaid {
		u.cached = u.frame.cached
	}
}

// finish marks the answer as whole. A backend that loses its runner says so with zeros and
// an answer that has content: that is no report.
func (u *usage) finish() {
	if u.outputBytes > 0 && u.input.n == 0 && u.output.n == 0 {
		u.input, u.output, u.cached = count{}, count{}, count{}
		if !u.isStream {
			return
		}
	}
	u.terminal = true
}

// number reads a count of tokens or nanoseconds; what is no whole number is not said.
func number(v jsonstream.Leaf) count {
	if v.IsString {
		return count{}
	}
	n, err := strconv.ParseInt(string(v.Text), 10, 64)
	if err != nil || n < 0 || n > maxCap {
		return count{}
	}
	return count{n, true}
}

// keep copies a scalar for a last frame of ours, once.
func keepText(into *[]byte, v jsonstream.Leaf) {
	if *into == nil && v.IsString && len(v.Text) < jsonstream.LeafBytes {
		*into = append([]byte{}, v.Text...)
	}
}
