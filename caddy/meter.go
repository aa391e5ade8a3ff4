package gateway

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"unicode/utf8"

	"neuronetz-gateway/caddy/internal/jsonstream"
	"neuronetz-gateway/caddy/internal/wordtable"
)

const (
	// maxModels is how many models a name may mean at once: backends may have different ones.
	maxModels = 4
	// scannedTokens is above every context: of a prompt that has as many, the rest counts by
	// its bytes, so that a body of 32 MiB costs no seconds.
	scannedTokens = 1 << 21
	// boundOfAny is the bound for a model of which nothing is known.
	boundOfAny = "bytes"
)

// modelTable is what is known of one model.
type modelTable struct {
	*wordtable.Table

	digest string
}

// meter adds up upper bounds of the tokens of a prompt: one for each model that a name may
// mean, by its own vocabulary, and one for any model. authz reserves tokens by them before the
// model counts, so they may be too large, never too small.
type meter struct {
	models []modelTable

	texts     [maxModels + 1]int // tokens of text, by model; the last is for any model
	fixed     int                // tokens of what stands around it
	objects   int                // how often a template's part for each message is written
	textBytes int

	beyondASCII int // bytes of text
	scratch     []byte
	budget      int // bytes of words that may still be merged
}

func newMeter(models []modelTable) meter { return meter{models: models, budget: wordtable.MergedBytes} }

// result returns the bounds by digest. A model of whose images nothing is known has none: only its
// context bounds them.
func (m *meter) result(tools, images int) map[string]int64 {
	base := baseTokens + m.fixed
	if tools > 0 {
		base += baseToolTokens
	}
	bounds := map[string]int64{boundOfAny: clampCount(base + m.texts[maxModels])}
	for i, model := range m.models {
		if images > 0 && model.Framing.Image == 0 {
			continue
		}
		f := model.Framing
		n := base + m.texts[i] + images*f.Image + f.Base + max(0, f.PerMessage-objectTokens)*m.objects
		if tools > 0 {
			n += f.Tools
		}
		bounds[model.digest] = clampCount(n)
	}
	return bounds
}

func clampCount(n int) int64 { return min(int64(n), greatestCount) }

// system counts what a function counts as often as each model's template prints the text of
// the system; any model's may print it twice.
func (m *meter) system(count func()) {
	texts, fixed := m.texts, m.fixed
	count()
	for i := range m.texts {
		if i == maxModels || i < len(m.models) && m.models[i].Framing.SystemText > 1 {
			m.texts[i] += m.texts[i] - texts[i] + m.fixed - fixed
		}
	}
}

// How a text is written into the prompt.
const (
	asText     = iota
	asJSON     // anew, with escapes
	asReadJSON // after it was read as JSON
	asTool     // either way
)

// text prices a string, given as it stands between its quotes.
func (m *meter) text(s []byte, how int) {
	text := s
	if bytes.IndexByte(s, '\\') >= 0 {
		m.scratch = jsonstream.AppendDecoded(m.scratch[:0], s)
		text = m.scratch
	}
	m.textBytes += len(text)
	m.beyondASCII += wordtable.BeyondASCII(text)
	switch how {
	case asReadJSON:
		m.fixed += 1 + escapes(text) + exponentInText*exponents(text)
	case asJSON:
		m.fixed += 1 + escapes(text)
	case asTool:
		m.tool(text)
		return
	}
	m.texts[maxModels] += wordtable.Plain(text)
	for i, model := range m.models {
		m.texts[i] += m.bound(i, model, text)
	}
}

// bound bounds a text for one model.
func (m *meter) bound(i int, model modelTable, text []byte) int {
	if m.texts[i] < scannedTokens {
		return model.Bound(text, &m.budget)
	}
	return wordtable.Plain(text)
}

// tool prices a string of the tools, which one renderer writes as it is, line by line, another
// as JSON, and Ollama's own encoder as JSON that escapes <, > and & too.
func (m *meter) tool(text []byte) {
	m.fixed += 1 + lineTokens*bytes.Count(text, []byte{'\n'})
	m.texts[maxModels] += wordtable.Plain(text) + escapes(text)
	if len(m.models) == 0 {
		return
	}
	var written bytes.Buffer
	encoder := json.NewEncoder(&written)
	spellings := [][]byte{text}
	for _, escapesHTML := range []bool{true, false} {
		start := written.Len()
		encoder.SetEscapeHTML(escapesHTML)
		if err := encoder.Encode(string(text)); err == nil {
			spellings = append(spellings, slices.Clone(written.Bytes()[start:]))
		}
	}
	for i, model := range m.models {
		most := 0
		for _, spelling := range spellings {
			most = max(most, m.bound(i, model, spelling))
		}
		m.texts[i] += most
	}
}

// escapes returns what encoding/json and others may add to a text.
func escapes(text []byte) (tokens int) {
	for i, b := range text {
		switch {
		case b == '<' || b == '>' || b == '&':
			tokens += 5
		case b < ' ' || b == '"' || b == '\\' || b == 0x7f:
			tokens += 7
		case b == 0xe2 && i+2 < len(text) && text[i+1] == 0x80 && text[i+2]|1 == 0xa9: // U+2028, U+2029
			tokens += 3
		}
	}
	return tokens
}

// exponents counts the numbers with an exponent in a text, each of which may get all its digits.
func exponents(text []byte) (found int) {
	for i := 1; i < len(text); i++ {
		if text[i]|0x20 == 'e' && (text[i-1] >= '0' && text[i-1] <= '9' || text[i-1] == '.') {
			found++
		}
	}
	return found
}

// json prices the value at v[i] as a template writes it anew, and returns the place behind it;
// each name of a member costs so much besides its text.
func (m *meter) json(v []byte, i, perName int) (end int) {
	how := asJSON
	if perName == nameTokens {
		how = asTool
	}
	switch v[i] {
	case '"':
		end, _ = jsonstream.SkipString(v, i)
		m.text(v[i+1:end-1], how)
		return end
	case '[':
		m.fixed += 2
		for i = jsonstream.SkipSpace(v, i+1); v[i] != ']'; i = skipComma(v, i) {
			m.fixed++
			i = m.json(v, i, perName)
		}
		return i + 1
	case '{':
		m.fixed += 4
		for i = jsonstream.SkipSpace(v, i+1); v[i] != '}'; i = skipComma(v, i) {
			name, at, _ := jsonstream.ScanName(v, i)
			m.fixed += perName
			m.text(name, how)
			i = m.json(v, at, perName)
		}
		return i + 1
	}
	return m.scalar(v, i)
}

// scalar prices a number or a literal.
func (m *meter) scalar(v []byte, i int) (end int) {
	end, _ = jsonstream.SkipValue(v, i, 0)
	m.fixed += end - i + 1
	if bytes.ContainsAny(v[i:end], ".eE") && v[i] <= '9' {
		m.fixed += exponentTokens
	}
	return end
}

// arguments prices those of a call: JSON, or a text that Ollama reads as JSON and writes anew
// where it can.
func (m *meter) arguments(v []byte) {
	if v[0] != '"' {
		m.json(v, 0, nameTokens+argumentTokens)
		return
	}
	asValue, asString := newMeter(m.models), newMeter(m.models)
	asValue.budget, asString.budget = m.budget/2, m.budget/2
	asString.text(v[1:len(v)-1], asReadJSON)
	text := jsonstream.AppendDecoded(nil, v[1:len(v)-1])
	start := jsonstream.SkipSpace(text, 0)
	if end, err := jsonstream.SkipValue(text, start, 0); err == nil && utf8.Valid(text[:end]) {
		asValue.json(text, start, nameTokens+argumentTokens)
	}
	for i := range m.texts {
		m.texts[i] += max(asString.texts[i], asValue.texts[i])
	}
	m.fixed += max(asString.fixed, asValue.fixed)
	m.textBytes += asString.textBytes
	m.budget = asValue.budget + asString.budget
}

// ids prices the tokens of an earlier answer: Ollama makes a text of them, and tokens of that.
func (m *meter) ids(v []byte) {
	if v[0] != '[' {
		return
	}
	for i := jsonstream.SkipSpace(v, 1); v[i] != ']'; {
		end, _ := jsonstream.SkipValue(v, i, 0)
		id, err := strconv.Atoi(string(v[i:end]))
		if err != nil {
			id = -1
		}
		m.textBytes++
		m.texts[maxModels] += unknownIDTokens
		for k, model := range m.models {
			m.texts[k] += 1 + model.TokenBytes(id)
		}
		i = skipComma(v, end)
	}
}
