package gateway

import (
	"bytes"
	"slices"
)

// framing is how the frames of an answer are set apart. A frame is the least that a client
// can parse.
type framing int

const (
	framesNone   framing = iota // not a stream: passed on as it comes
	framesLines                 // newline-delimited JSON: a line each
	framesEvents                // server-sent events: a blank line behind each
)

// frames reads the whole frames that data begins with. It returns their length, and what
// of them the client is to see: data itself, as long as no frame is changed. The first frame
// does not end before from. It stops behind a frame that exceeds the limit.
func (t *tapWriter) frames(data []byte, from int) (whole int, out []byte) {
	isSame := true
	t.kept = t.kept[:0]
	for {
		end := t.frameEnd(data, whole, from)
		if end < 0 {
			break
		}
		frame := data[whole:end]
		shown := t.read(frame)
		if isSame && !isOne(shown, frame) {
			isSame = false
			t.kept = append(t.kept, data[:whole]...)
		}
		if !isSame {
			t.kept = append(t.kept, shown...)
		}
		whole = end
		if t.limit > 0 && t.x.usage.deltas > t.limit {
			break
		}
	}
	if isSame {
		return whole, data[:whole]
	}
	return whole, t.kept
}

// isOne reports whether two slices are the same bytes in memory.
func isOne(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// frameEnd returns the place behind the frame that begins at start and ends next, not before
// from; -1 if none does.
func (t *tapWriter) frameEnd(data []byte, start, from int) int {
	if t.framing == framesEvents && bytes.IndexByte(data[start:], '\r') >= 0 {
		return eventEnd(data, start)
	}
	for i := max(start, from); i < len(data); {
		n := bytes.IndexByte(data[i:], '\n')
		if n < 0 {
			return -1
		}
		i += n + 1
		if t.framing == framesLines || isBlankLine(data[:i]) {
			return i
		}
	}
	return -1
}

// isBlankLine reports whether the line that data ends with, of one event, has no content.
func isBlankLine(data []byte) bool {
	return len(data) == 1 || data[len(data)-2] == '\n'
}

// eventEnd returns the place behind the event that begins at start, -1 if it has none yet.
// A line of server-sent events may end with CR, LF or both (WHATWG HTML, 9.2.5).
func eventEnd(data []byte, start int) int {
	for start < len(data) {
		line, next := cutLine(data[start:])
		if next < 0 {
			return -1
		}
		start += next
		if len(line) == 0 {
			return start
		}
	}
	return -1
}

// cutLine returns the line that data begins with, and where the next one begins; -1 if the
// line has no end yet. Behind a CR at the end of data an LF may still come.
func cutLine(data []byte) (line []byte, next int) {
	end := bytes.IndexAny(data, "\r\n")
	switch {
	case end < 0 || data[end] == '\r' && end+1 == len(data):
		return data, -1
	case data[end] == '\r' && data[end+1] == '\n':
		return data[:end], end + 2
	}
	return data[:end], end + 1
}

// eventData returns the data of a whole event: its data fields, joined by newlines.
func eventData(event []byte) []byte {
	var data []byte
	isFirst := true
	for len(event) > 0 {
		line, next := cutLine(event)
		if next < 0 {
			line, next = bytes.TrimSuffix(event, []byte{'\r'}), len(event)
		}
		event = event[next:]
		value, ok := bytes.CutPrefix(line, []byte("data:"))
		switch {
		case !ok:
		case isFirst:
			data, isFirst = value, false
		default:
			data = append(append(slices.Clip(data), '\n'), value...)
		}
	}
	return data
}

// read takes a frame's usage, and returns what of the frame the client is to see: nothing of
// a usage chunk that it did not ask for.
func (t *tapWriter) read(frame []byte) []byte {
	u := t.x.usage
	if t.framing == framesLines {
		u.readLine(frame)
	} else {
		u.readEvent(frame)
	}
	t.noteFirstContent()
	t.x.seen.store(u)
	switch {
	case !t.hides:
	case u.isUsageChunk():
		return nil
	case u.frame.hasUsage:
		frame = withoutUsage(frame)
	}
	return t.rename.frame(frame)
}
