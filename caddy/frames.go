package gateway

import "bytes"

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
		end := t.frameEnd(data, max(whole, from))
		if end < 0 {
			break
		}
		frame := data[whole:end]
		shown := t.read(frame)
		if isSame && len(shown) != len(frame) {
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

// frameEnd returns the place behind the frame that ends next, -1 if none does.
func (t *tapWriter) frameEnd(data []byte, from int) int {
	for i := from; i < len(data); {
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
	data = bytes.TrimSuffix(data[:len(data)-1], []byte{'\r'})
	return len(data) == 0 || data[len(data)-1] == '\n'
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
	t.x.deltasSeen.Store(u.deltas)
	switch {
	case !t.hides:
	case u.isUsageChunk():
		return nil
	case u.frame.hasUsage:
		return withoutUsage(frame)
	}
	return frame
}
