package gateway

// word is a member name that an answer's usage or content stands under.
type word uint8

const (
	other word = iota
	item       // an element of an array
	wArguments
	wCacheRead
	wCachedTokens
	wChoices
	wCompletionTokens
	wContent
	wDelta
	wDone
	wError
	wEvalCount
	wEvalDuration
	wFinishReason
	wFunction
	wID
	wIndex
	wInput
	wInputDetails
	wInputTokens
	wLoadDuration
	wMessage
	wModel
	wOutput
	wOutputTokens
	wPartialJSON
	wPromptCached
	wPromptDetails
	wPromptEvalCount
	wPromptEvalDuration
	wPromptTokens
	wResponse
	wRole
	wSequence
	wStatus
	wStopReason
	wText
	wThinking
	wToolCalls
	wType
	wUsage
)

var words = map[string]word{
	"arguments": wArguments, "cache_read_input_tokens": wCacheRead,
	"cached_tokens": wCachedTokens, "choices": wChoices, "completion_tokens": wCompletionTokens,
	"content": wContent, "delta": wDelta, "done": wDone, "error": wError,
	"eval_count": wEvalCount, "eval_duration": wEvalDuration, "finish_reason": wFinishReason,
	"function": wFunction, "id": wID, "index": wIndex, "input": wInput,
	"input_tokens_details": wInputDetails, "input_tokens": wInputTokens,
	"load_duration": wLoadDuration, "message": wMessage, "model": wModel, "output": wOutput,
	"output_tokens": wOutputTokens, "partial_json": wPartialJSON,
	"prompt_eval_cached_count": wPromptCached, "prompt_tokens_details": wPromptDetails,
	"prompt_eval_count": wPromptEvalCount, "prompt_eval_duration": wPromptEvalDuration,
	"prompt_tokens": wPromptTokens, "response": wResponse, "role": wRole,
	"sequence_number": wSequence, "status": wStatus, "stop_reason": wStopReason, "text": wText,
	"thinking": wThinking, "tool_calls": wToolCalls, "type": wType, "usage": wUsage,
}

const (
	pathDepth  = 6   // deeper than all that is looked for
	leafBytes  = 128 // of a scalar that are kept
	nameBytes  = 32
	levelBytes = 1024 // deeper JSON is not understood
)

// leaf is a scalar of an answer: its first bytes as they stand in the JSON, without quotes.
type leaf struct {
	isString bool
	text     []byte
	size     int64 // of a string, decoded
}

// leafVisitor is told every scalar, with the names that lead to it.
type leafVisitor interface {
	visit(path *[pathDepth]word, depth int, v leaf)
}

type leafState uint8

const (
	atValue  leafState = iota // between tokens
	inString                  // also a name
	inEscape
	inUnicode
	inScalar // a number or a literal
)

// leaves reads JSON in pieces of any size, in constant memory, and tells its scalars. It
// takes everything that is valid and tells it right; what is not valid ends in isBroken,
// or in nonsense that no path matches.
type leaves struct {
	visitor  leafVisitor
	state    leafState
	isName   bool // the string being read is the name of a member
	hasValue bool // a whole value has been read
	isBroken bool
	depth    int
	arrays   [levelBytes / 8]byte // a bit for each level that is an array
	path     [pathDepth]word
	buffer   [leafBytes]byte
	kept     int
	size     int64
	hex      int    // digits read of an escape
	unit     uint32 // what they say
	high     bool   // the last escape was the first half of a surrogate pair
}

// reset begins a new document.
func (l *leaves) reset() {
	l.state, l.depth, l.isName, l.hasValue, l.isBroken = atValue, 0, false, false, false
}

// feed reads on.
func (l *leaves) feed(p []byte) {
	for i := 0; i < len(p) && !l.isBroken; {
		switch l.state {
		case inString:
			i = l.readString(p, i)
		case inEscape:
			l.escape(p[i])
			i++
		case inUnicode:
			l.unicode(p[i])
			i++
		case inScalar:
			i = l.readScalar(p, i)
		default:
			l.token(p[i])
			i++
		}
	}
}

// token reads a byte between strings and scalars.
func (l *leaves) token(c byte) {
	switch c {
	case ' ', '\n', '\t', '\r':
	case '"':
		l.state, l.kept, l.size, l.high = inString, 0, 0, false
	case '{', '[':
		l.open(c == '[')
	case '}', ']':
		l.shut()
	case ':':
		l.isName = false
	case ',':
		l.isName = l.depth > 0 && !l.inArray()
	default:
		l.state, l.kept = inScalar, 0
		l.keep(c)
	}
}

func (l *leaves) open(isArray bool) {
	if l.depth >= levelBytes {
		l.isBroken = true
		return
	}
	bit := byte(1) << (l.depth & 7)
	if isArray {
		l.arrays[l.depth>>3] |= bit
	} else {
		l.arrays[l.depth>>3] &^= bit
	}
	if l.depth < pathDepth {
		l.path[l.depth] = other
		if isArray {
			l.path[l.depth] = item
		}
	}
	l.depth++
	l.isName = !isArray
}

func (l *leaves) shut() {
	if l.depth == 0 {
		l.isBroken = true
		return
	}
	l.depth--
	l.isName = false
	l.hasValue = l.depth == 0
}

func (l *leaves) inArray() bool {
	return l.arrays[(l.depth-1)>>3]&(1<<((l.depth-1)&7)) != 0
}

func (l *leaves) readString(p []byte, i int) int {
	start := i
	for i < len(p) && p[i] != '"' && p[i] != '\\' {
		i++
	}
	if n := i - start; n > 0 {
		l.size += int64(n)
		l.kept += copy(l.buffer[l.kept:], p[start:i])
		l.high = false
	}
	if i == len(p) {
		return i
	}
	if p[i] == '\\' {
		l.state = inEscape
		l.keep('\\')
	} else {
		l.state = atValue
		l.endString()
	}
	return i + 1
}

func (l *leaves) endString() {
	if !l.isName {
		l.tell(true)
		return
	}
	if l.depth <= pathDepth {
		name := l.buffer[:l.kept]
		l.path[l.depth-1] = other
		if l.kept <= nameBytes {
			l.path[l.depth-1] = words[string(name)]
		}
	}
}

func (l *leaves) escape(c byte) {
	l.keep(c)
	l.state = inString
	if c == 'u' {
		l.state, l.hex = inUnicode, 0
		return
	}
	l.size++
	l.high = false
}

// unicode reads a hex digit of an escape.
func (l *leaves) unicode(c byte) {
	l.keep(c)
	l.hex++
	l.unit = l.unit<<4&0xffff | uint32(hexRune([]byte{c}))
	if l.hex < 4 {
		return
	}
	l.state = inString
	l.addUnit()
}

// addUnit counts the UTF-8 bytes of a UTF-16 unit; a lone surrogate reads as U+FFFD.
func (l *leaves) addUnit() {
	switch u := l.unit; {
	case u < 0x80:
		l.size++
	case u < 0x800:
		l.size += 2
	case u >= 0xdc00 && u < 0xe000 && l.high:
		l.size++ // three of the pair's four bytes are counted
		l.high = false
		return
	default:
		l.size += 3
	}
	l.high = l.unit >= 0xd800 && l.unit < 0xdc00
}

func (l *leaves) readScalar(p []byte, i int) int {
	for ; i < len(p); i++ {
		switch p[i] {
		case ',', '}', ']', ' ', '\n', '\t', '\r':
			l.state = atValue
			l.tell(false)
			return i
		}
		l.keep(p[i])
	}
	return i
}

func (l *leaves) keep(c byte) {
	if l.kept < leafBytes {
		l.buffer[l.kept] = c
		l.kept++
	}
}

func (l *leaves) tell(isString bool) {
	l.visitor.visit(&l.path, l.depth, leaf{isString, l.buffer[:l.kept], l.size})
	l.hasValue = l.depth == 0
}
