package gateway

import (
	"bytes"
	"strconv"
	"time"

	"neuronetz-gateway/caddy/internal/jsonstream"
)

// count is a number that an answer may report.
type count struct {
	n     int64
	known bool
}

// maxExact is the largest integer that every reader of JSON keeps exact (RFC 8259, 6).
const maxExact = 1<<53 - 1

// pointer returns the number, nil if it is not known. More tokens than any part takes are not
// known either, so that they are counted instead.
func (c count) pointer() *int64 {
	if !c.known || c.n > greatestCount {
		return nil
	}
	return &c.n
}

// milliseconds returns a count of nanoseconds in milliseconds, nil if it is not known.
func (c count) milliseconds() *int64 {
	if !c.known {
		return nil
	}
	ms := c.n / 1_000_000
	return &ms
}

// usage is what an answer reports of itself, and what can be counted in it. It holds no more
// of the answer than that, however long it is. Only the goroutine of the request uses it.
type usage struct {
	// How the answer is read.
	api      api
	shape    *shape
	isStream bool
	leaves   jsonstream.Reader
	frame    frame // being read, or the last

	isCutShort bool // the frame being read broke off: only the content that is there counts

	// What it reports. Unknown counts are null in the record, which metering then settles by
	// what was counted.
	terminal               bool // the frame that ends a whole answer was seen
	isError                bool // it reports that it failed
	input, output, cached  count
	load, promptEval, eval count // nanoseconds

	// What was counted in it. Text includes reasoning; a tool call is one frame, however long.
	deltas    int64 // frames with text
	textBytes int64 // decoded length of the text
	toolBytes int64 // decoded length of the names and arguments of tool calls

	// What a last frame of ours needs.
	id, model      []byte // as they stand in the JSON
	sequence       int64  // of the last event (Responses)
	openBlock      count  // index of the content block begun and not ended (Messages)
	hasBegun       bool   // message_start was seen (Messages)
	hasFinishFrame bool   // the stop reason was seen (Messages, OpenAI)
}

// frame is what one frame, or a single answer, reports.
type frame struct {
	text, tool            int64 // decoded bytes
	delta, name           int64 // decoded bytes, whose kind the event's type decides (Responses)
	input, output, cached count
	isDone                bool // it has a stop reason, or is the last by the API's own mark
	isError               bool
	hasChoice             bool // OpenAI
	hasUsage              bool
	hasModel              bool      // OpenAI
	kind                  eventKind // Responses, Messages
	index                 int64     // of a content block (Messages)
}

// shape is how the answers of an API are read, and ended.
type shape struct {
	// leaf takes one scalar of the frame that is being read.
	leaf func(u *usage, path *jsonstream.Path, depth int, v jsonstream.Leaf)
	// end takes what the frame means, now that it is whole.
	end func(u *usage)
	// final returns the frames with which a stream that we cancel ends validly; isCap is
	// whether for its length.
	final func(u *usage, isCap bool, now time.Time) []byte
}

// shapeOf returns the shape of an API's answers.
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

// newUsage returns an empty usage for an answer of an API.
func newUsage(kind api, isStream bool) *usage {
	u := &usage{api: kind, isStream: isStream, shape: shapeOf(kind)}
	u.leaves.Visitor, u.leaves.Vocabulary = u, words
	return u
}

// Visit takes a scalar from the reader.
func (u *usage) Visit(path *jsonstream.Path, depth int, v jsonstream.Leaf) {
	u.shape.leaf(u, path, depth, v)
}

// hasContent reports whether anything of the answer itself has been read.
func (u *usage) hasContent() bool { return u.textBytes+u.toolBytes+u.frame.text+u.frame.tool > 0 }

// readLine reads a line of newline-delimited JSON.
func (u *usage) readLine(line []byte) {
	u.readDocument(line)
}

// readEvent reads one server-sent event: its data is JSON, or [DONE]. Comments, which keep
// connections alive, and the names of events are skipped: the data repeats those.
func (u *usage) readEvent(event []byte) {
	u.frame = frame{}
	data := bytes.TrimSpace(eventData(event))
	switch string(data) {
	case "":
	case "[DONE]":
		u.finish()
	default:
		u.readDocument(data)
	}
}

// readDocument reads the JSON of a frame. One that is no JSON may hold anything, so all of it
// counts as text: what can't be read is not free.
func (u *usage) readDocument(data []byte) {
	u.frame = frame{}
	u.leaves.Reset()
	u.leaves.Feed(data)
	start := bytes.TrimLeft(data, " \t\r\n")
	isReadable := u.leaves.IsWhole() || u.isCutShort
	if len(start) > 0 && (start[0] != '{' || !isReadable) {
		u.frame = frame{text: int64(len(data))}
		u.countContent()
		return
	}
	u.endFrame()
}

// feed reads a piece of a single answer, until endSingle.
func (u *usage) feed(p []byte) {
	u.leaves.Feed(p)
}

// endSingle takes what a single answer means; of one that broke off only its content counts.
func (u *usage) endSingle() {
	if u.leaves.IsWhole() {
		u.endFrame()
		return
	}
	u.countContent()
}

// countContent adds the content of the frame.
func (u *usage) countContent() {
	switch u.frame.kind {
	case eventCallDelta:
		u.frame.tool += u.frame.delta
	case eventItemBegun:
		u.frame.tool += u.frame.name
	default:
		u.frame.text += u.frame.delta
	}
	u.textBytes += u.frame.text
	u.toolBytes += u.frame.tool
	if u.isStream && u.frame.text > 0 {
		u.deltas++
	}
}

// endFrame takes what a whole frame means.
func (u *usage) endFrame() {
	u.countContent()
	u.isError = u.isError || u.frame.isError
	u.shape.end(u)
}

// report takes the usage of the frame.
func (u *usage) report() {
	u.input, u.output = u.frame.input, u.frame.output
	if u.frame.cached.known {
		u.cached = u.frame.cached
	}
}

// finish marks the answer as whole. A backend that loses its runner ends an answer that has
// content with zeros: that is no report, and a single answer is then not whole.
func (u *usage) finish() {
	if u.textBytes+u.toolBytes > 0 && u.input.n == 0 && u.output.n == 0 {
		u.input, u.output, u.cached = count{}, count{}, count{}
		if !u.isStream {
			return
		}
	}
	u.terminal = true
}

// number reads a count of tokens or nanoseconds; what is no whole number is not known.
func number(v jsonstream.Leaf) count {
	if v.IsString {
		return count{}
	}
	n, err := strconv.ParseInt(string(v.Text), 10, 64)
	if err != nil || n < 0 || n > maxExact {
		return count{}
	}
	return count{n, true}
}

// keepText copies a string for a last frame of ours, once, if all of it was kept.
func keepText(into *[]byte, v jsonstream.Leaf) {
	if *into == nil && v.IsString && len(v.Text) < jsonstream.LeafBytes {
		*into = append([]byte{}, v.Text...)
	}
}
