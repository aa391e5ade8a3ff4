package jsonstream

// Word is a member name as a number, so that visitors compare paths without strings. The
// numbers from FirstWord on belong to the vocabulary that the Reader was given.
type Word uint8

// Names that no vocabulary holds.
const (
	Other     Word = iota // a name that the vocabulary does not have
	Item                  // an element of an array
	FirstWord             // the first number of a vocabulary
)

const (
	// PathDepth is how many names of a path are kept; deeper ones are only counted.
	PathDepth = 6
	// LeafBytes is how many bytes of a scalar are kept; Leaf.Size counts all of them.
	LeafBytes = 128

	nameBytes  = 32   // of a member name; a longer one is Other
	levelBytes = 1024 // levels of nesting; deeper JSON is not understood
)

// Path holds the outermost names that lead to a scalar.
type Path [PathDepth]Word

// Leaf is a scalar: its first bytes as they stand in the JSON, without quotes.
type Leaf struct {
	IsString bool
	Text     []byte // valid until the visitor returns
	Size     int64  // of a string: bytes of UTF-8 when decoded
}

// IsPresent reports whether the scalar is anything but null or an empty string.
func (v Leaf) IsPresent() bool {
	if v.IsString {
		return len(v.Text) > 0
	}
	return string(v.Text) != "null"
}

// TextSize returns the decoded length of a string, and 0 for any other scalar.
func (v Leaf) TextSize() int64 {
	if v.IsString {
		return v.Size
	}
	return 0
}

// Visitor receives every scalar of a document, in order.
type Visitor interface {
	// Visit receives a scalar that stands depth levels deep, under the names in path.
	Visit(path *Path, depth int, v Leaf)
}

// leafState is what the next byte belongs to. Pieces end anywhere, so it may be inside a
// string, an escape or a number.
type leafState uint8

const (
	atValue   leafState = iota // between tokens
	inString                   // also a name
	inEscape                   // behind a backslash
	inUnicode                  // in the digits of an escape
	inScalar                   // a number or a literal
)

// Reader reads JSON in pieces of any size, in constant memory and without allocating, and
// passes its scalars to a Visitor. It reads everything that is valid correctly; what is not
// valid makes IsWhole false, or leads to paths that no visitor looks for.
//
// A Reader is used by one goroutine, and needs a Visitor and a Vocabulary.
type Reader struct {
	Visitor    Visitor
	Vocabulary map[string]Word // of the names that the Visitor looks for

	// Where the next byte belongs.
	state    leafState
	isName   bool // the string being read is the name of a member
	hasValue bool // a whole value has been read
	isBroken bool

	// The names that lead there.
	depth  int
	arrays [levelBytes / 8]byte // a bit for each level that is an array
	path   Path

	// The scalar or name that is being read.
	buffer [LeafBytes]byte
	kept   int
	size   int64

	// The escape that is being read.
	hex  int  // digits read of an escape
	unit rune // what they say
	high bool // the last escape was the first half of a surrogate pair
}

// Reset begins a new document.
func (l *Reader) Reset() {
	l.state, l.depth, l.isName, l.hasValue, l.isBroken = atValue, 0, false, false, false
}

// Feed reads the next piece of the document.
func (l *Reader) Feed(p []byte) {
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

// IsWhole reports whether exactly one value has been read to its end.
func (l *Reader) IsWhole() bool { return l.hasValue && !l.isBroken }

// token reads a byte between strings and scalars.
func (l *Reader) token(c byte) {
	switch c {
	case ' ', '\n', '\t', '\r':
	case '"':
		l.state, l.kept, l.size, l.high = inString, 0, 0, false
	case '{', '[':
		l.open(c == '[')
	case '}', ']':
		l.leave()
	case ':':
		l.isName = false
	case ',':
		l.isName = l.depth > 0 && !l.inArray()
	default:
		l.state, l.kept = inScalar, 0
		l.keep(c)
	}
}

// open begins an object or an array. Deeper than levelBytes there is no bit left to remember
// which: the document then counts as broken.
func (l *Reader) open(isArray bool) {
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
	if l.depth < PathDepth {
		l.path[l.depth] = Other
		if isArray {
			l.path[l.depth] = Item
		}
	}
	l.depth++
	l.isName = !isArray
}

// leave ends an object or an array. Which of the two is not checked: a document that mixes
// them up is not valid, and its paths match nothing that is looked for.
func (l *Reader) leave() {
	if l.depth == 0 {
		l.isBroken = true
		return
	}
	l.depth--
	l.isName = false
	l.hasValue = l.depth == 0
}

// inArray reports whether the innermost value that is open is an array.
func (l *Reader) inArray() bool {
	return l.arrays[(l.depth-1)>>3]&(1<<((l.depth-1)&7)) != 0
}

// readString reads a piece of a string up to its end or an escape, and returns the place
// behind it.
func (l *Reader) readString(p []byte, i int) int {
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

// endString passes the string on, or makes it the name of the next value. A name with an
// escape is Other: no backend writes one, and the guard refuses them in requests.
func (l *Reader) endString() {
	if !l.isName {
		l.emit(true)
		return
	}
	if l.depth <= PathDepth {
		name := l.buffer[:l.kept]
		l.path[l.depth-1] = Other
		if l.kept <= nameBytes {
			l.path[l.depth-1] = l.Vocabulary[string(name)]
		}
	}
}

// escape reads the byte behind a backslash.
func (l *Reader) escape(c byte) {
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
func (l *Reader) unicode(c byte) {
	l.keep(c)
	l.hex++
	l.unit = l.unit<<4&0xffff | hexRune([]byte{c})
	if l.hex < 4 {
		return
	}
	l.state = inString
	l.addUnit()
}

// addUnit counts the UTF-8 bytes of a UTF-16 unit; a lone surrogate reads as U+FFFD, which
// has three.
func (l *Reader) addUnit() {
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

// readScalar reads a piece of a number or a literal, and returns the place of the byte that
// ends it.
func (l *Reader) readScalar(p []byte, i int) int {
	for ; i < len(p); i++ {
		switch p[i] {
		case ',', '}', ']', ' ', '\n', '\t', '\r':
			l.state = atValue
			l.emit(false)
			return i
		}
		l.keep(p[i])
	}
	return i
}

// keep adds a byte to the scalar, as long as there is room.
func (l *Reader) keep(c byte) {
	if l.kept < LeafBytes {
		l.buffer[l.kept] = c
		l.kept++
	}
}

// emit passes a scalar to the visitor.
func (l *Reader) emit(isString bool) {
	l.Visitor.Visit(&l.path, l.depth, Leaf{isString, l.buffer[:l.kept], l.size})
	l.hasValue = l.depth == 0
}
