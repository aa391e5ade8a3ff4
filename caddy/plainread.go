package gateway

import "strings"

// Each metered request reads a Grant and writes an Ask and an open line: JSON of which both sides are ours, so
// it is plain, as a rule: members in the order of the contract, no space, text in ASCII. What is plain is
// read and written here, several times as fast as by encoding/json; that reads and writes everything else, and
// the tests compare the two.

// maxPlainDigits is what a plain number may have at most: every such number fits into 63 bits.
const maxPlainDigits = 18

// plainReader reads plain JSON from its begin to its end, each value behind the text that leads to it.
type plainReader struct {
	rest    string
	isOther bool // it is not plain
}

// readPlainGrant reads a Grant as authz writes it; false if it is written otherwise.
func readPlainGrant(text string) (*grant, bool) {
	r := plainReader{rest: text}
	g := grant{
		V:          int(r.number(`{"v":`)),
		ID:         r.text(`,"id":`),
		Tenant:     r.text(`,"tenant":`),
		Key:        r.text(`,"key":`),
		Backends:   plainList(&r, `,"backends":`, r.text),
		Slots:      plainList(&r, `,"slots":`, func(before string) int { return int(r.number(before)) }),
		Priority:   r.text(`,"priority":`),
		Weight:     r.number(`,"weight":`),
		Model:      r.text(`,"model":`),
		Digest:     r.text(`,"digest":`),
		MaxOutput:  plainOptional(&r, `,"max_output":`, r.number),
		Reserved:   plainOptional(&r, `,"reserved":`, r.tokens),
		Ceiling:    plainOptional(&r, `,"ceiling":`, r.tokens),
		Windows:    plainOptional(&r, `,"windows":`, r.windows),
		Drop:       plainList(&r, `,"drop":`, r.text),
		Set:        plainMap(&r, `,"set":`, r.number),
		Headers:    plainMap(&r, `,"headers":`, r.text),
		Cold:       r.flag(`,"cold":`),
		DeadlineS:  r.number(`,"deadline_s":`),
		LogPromptS: r.number(`,"log_prompt_s":`),
		EndUser:    r.flag(`,"end_user":`),
	}
	r.skip("}")
	return &g, !r.isOther && r.rest == ""
}

// take passes a text that may stand here; false if another one does.
func (r *plainReader) take(text string) bool {
	rest, ok := strings.CutPrefix(r.rest, text)
	if ok {
		r.rest = rest
	}
	return ok
}

// skip passes a text that must stand here.
func (r *plainReader) skip(text string) {
	r.isOther = !r.take(text) || r.isOther
}

// text reads a string, "" for null.
func (r *plainReader) text(before string) string {
	if r.skip(before); r.take("null") {
		return ""
	}
	r.skip(`"`)
	hasEscape := false
	for i := 0; i < len(r.rest); i++ {
		switch c := r.rest[i]; {
		case c == '"':
			text := r.rest[:i]
			r.rest = r.rest[i+1:]
			if hasEscape {
				text = plainEscapes.Replace(text)
			}
			return text
		case c == '\\' && i+1 < len(r.rest) && (r.rest[i+1] == '"' || r.rest[i+1] == '\\'):
			hasEscape = true
			i++
		case !isPlain[c]:
			r.isOther = true
			return ""
		}
	}
	r.isOther = true
	return ""
}

// number reads a number that is whole and not negative, 0 for null.
func (r *plainReader) number(before string) (n int64) {
	if r.skip(before); r.take("null") {
		return 0
	}
	digits := 0
	for digits < len(r.rest) && r.rest[digits] >= '0' && r.rest[digits] <= '9' && digits <= maxPlainDigits {
		n = n*10 + int64(r.rest[digits]-'0')
		digits++
	}
	if digits == 0 || digits > maxPlainDigits || digits > 1 && r.rest[0] == '0' {
		r.isOther = true
	}
	r.rest = r.rest[digits:]
	return n
}

// flag reads true or false, false for null.
func (r *plainReader) flag(before string) bool {
	if r.skip(before); r.take("true") {
		return true
	}
	if !r.take("false") {
		r.skip("null")
	}
	return false
}

// tokens reads what is held for a request.
func (r *plainReader) tokens(before string) tokens {
	r.skip(before)
	t := tokens{Input: r.number(`{"input":`), Output: r.number(`,"output":`)}
	r.skip("}")
	return t
}

// windows reads what a request is charged to.
func (r *plainReader) windows(before string) windows {
	r.skip(before)
	w := windows{Day: r.text(`{"day":`), Month: r.text(`,"month":`)}
	r.skip("}")
	return w
}

// plainOptional reads a value, nil for null.
func plainOptional[T any](r *plainReader, before string, read func(before string) T) *T {
	if r.skip(before); r.take("null") {
		return nil
	}
	value := read("")
	return &value
}

// plainList reads an array, nil for null.
func plainList[T any](r *plainReader, before string, read func(before string) T) []T {
	if r.skip(before); r.take("null") {
		return nil
	}
	list := []T{}
	r.skip("[")
	for before = ""; !r.isOther && !r.take("]"); before = "," {
		list = append(list, read(before))
	}
	return list
}

// plainMap reads an object of any names, nil for null.
func plainMap[T any](r *plainReader, before string, read func(before string) T) map[string]T {
	if r.skip(before); r.take("null") {
		return nil
	}
	found := map[string]T{}
	r.skip("{")
	for before = ""; !r.isOther && !r.take("}"); before = "," {
		if r.skip(before); strings.HasPrefix(r.rest, "null") {
			r.isOther = true // no name of a member
		}
		name := r.text("")
		found[name] = read(":")
	}
	return found
}

// plainEscapes are the escapes of a plain text: a structured header has quotes (RFC 9651).
var plainEscapes = strings.NewReplacer(`\"`, `"`, `\\`, `\`)

// isPlain says which bytes of a text encoding/json writes as they are.
var isPlain = func() (plain [256]bool) {
	for c := byte(' '); c < 0x7f; c++ {
		plain[c] = !strings.ContainsRune(`"\<>&`, rune(c))
	}
	return plain
}()
