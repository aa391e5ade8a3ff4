package wordtable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Build makes the table of a model. Where its vocabulary can't be used, the error says why,
// and the table that is returned all the same counts a token a byte.
func Build(s *Show) (*Table, error) {
	p := parts{words: map[string]byte{}, cross: make([]byte, crossBytes), chars: make([]byte, charsBytes)}
	err := p.take(&s.Vocabulary)
	if err != nil {
		p = parts{cross: make([]byte, crossBytes), chars: make([]byte, charsBytes)}
		if kind := s.Vocabulary.Kind; kind != kindBPE && kind != kindSPM && kind != kindWordPiece {
			p.flags = flagUnknown
		}
	}
	table, tooMany := p.table()
	if tooMany != nil {
		p = parts{cross: make([]byte, crossBytes), chars: make([]byte, charsBytes)}
		table, _ = p.table()
		err = tooMany
	}
	table.setFraming(s)
	return table, err
}

// parts are what a table is put together from.
type parts struct {
	flags   uint32
	words   map[string]byte
	ends    [endsBytes]byte
	glued   [3 * endsBytes]byte
	cross   []byte
	chars   []byte
	runs    [maxRun + 1]bool // lengths of spaces that are one token
	merged  [maxRun + 1]int  // tokens that merges leave of so many spaces
	lengths []byte

	merges            []byte
	mergeCount, pairs int

	hasPrefix bool     // SPM puts spaces before texts and behind marks
	marks     []string // letters that are cut out of a text before it is merged
}

// take sorts the tokens of a vocabulary, and drops those that no text becomes.
func (p *parts) take(v *Vocabulary) error {
	if err := v.check(); err != nil {
		return err
	}
	p.flags = flagWords
	switch v.Kind {
	case kindWordPiece:
		p.flags |= flagWordPiece
		return p.takeWordPieces(v)
	case kindSPM:
		p.flags |= flagSPM
		p.hasPrefix = v.hasPrefix()
	}
	merger, err := newMerger(v)
	if err != nil {
		return err
	}
	if err := p.takeMarks(v); err != nil {
		return err
	}
	p.takeMerges(v, merger)
	for spaces := range p.merged {
		p.merged[spaces] = merger.count(strings.Repeat(" ", spaces))
	}
	return p.takeTokens(v, merger)
}

// takeTokens takes what each token stands for.
func (p *parts) takeTokens(v *Vocabulary, m *merger) error {
	p.lengths = make([]byte, 0, 2*len(v.Tokens))
	for i, token := range v.Tokens {
		text, ok := v.text(i)
		if !ok {
			text = token // at most as long as what it is written as
		}
		p.lengths = binary.LittleEndian.AppendUint16(p.lengths, uint16(len(text))) //nolint:gosec // bounded by check
		if ok {
			p.takeText(text, m, v.isType(i, tokenUserDefined))
		}
		if m.left < 0 {
			return errors.New("its tokens take more merging than those of any vocabulary in use")
		}
	}
	return nil
}

// maxMarks is how many marks may be plain words; honest ones have brackets.
const maxMarks = 64

// takeMarks takes the tokens that are cut out of a text before all else. SPM puts a space
// behind each, so that it costs two: a mark that is longer is paid by its bytes.
func (p *parts) takeMarks(v *Vocabulary) error {
	for _, end := range []byte{'>', ']'} {
		p.ends[end>>3] |= 1 << (end & 7)
	}
	for i, token := range v.Tokens {
		if !v.isMark(i) {
			continue
		}
		mark := strings.ReplaceAll(token, spaceMark, " ")
		if mark == "" || v.hasPrefix() && len(mark) == 1 {
			return fmt.Errorf("the mark %q is too short", mark)
		}
		end := mark[len(mark)-1]
		p.ends[end>>3] |= 1 << (end & 7)
		if word := strings.TrimPrefix(mark, " "); isWord(word) {
			p.marks = append(p.marks, word)
		}
	}
	if len(p.marks) > maxMarks {
		return errors.New("too many marks are words")
	}
	return nil
}

// takeText takes a token by its text.
func (p *parts) takeText(text string, m *merger, isMark bool) {
	if !utf8.ValidString(text) {
		for i := range len(text) - 1 {
			if lead := text[i+1]; lead >= 0xc0 {
				bit := int(text[i])*leadBytes + int(lead) - 0xc0
				p.cross[bit>>3] |= 1 << (bit & 7)
			}
		}
		return
	}
	if text == "" || len(text) > 1+maxWord || !isMark && m.count(text) != 1 {
		return
	}
	word, isSpaced := strings.CutPrefix(text, " ")
	switch {
	case strings.Trim(text, " ") == "":
		if len(text) <= maxRun && (!isMark || !p.hasPrefix) {
			p.runs[len(text)] = true
		}
	case isMark || len(word) > maxWord || isMixed(text) || p.isCut(word):
	case isWord(word) && isSpaced:
		p.words[word] |= flagSpaced
	case isWord(word) && !p.isDear(word, m):
		p.words[word] |= flagBare
	}
	if r, size := utf8.DecodeRuneInString(text); !isMark && size == len(text) && r >= utf8.RuneSelf {
		p.chars[r>>3] |= 1 << (r & 7)
	}
}

// isWord reports whether a text is made of letters.
func isWord(text string) bool {
	return text != "" && strings.IndexFunc(text, func(r rune) bool { return !unicode.IsLetter(r) }) < 0
}

// isMixed reports whether some tokenizers cut within a word: one with a letter beyond ASCII and
// with a capital behind another character than a capital or a space.
func isMixed(text string) bool {
	isASCII, hasHump, before := true, false, ' '
	for _, r := range text {
		isASCII = isASCII && r < utf8.RuneSelf
		hasHump = hasHump || unicode.IsUpper(r) && before != ' ' && !unicode.IsUpper(before)
		before = r
	}
	return !isASCII && hasHump
}

// isCut reports whether a mark within the word is cut out first.
func (p *parts) isCut(word string) bool {
	return slices.ContainsFunc(p.marks, func(mark string) bool { return strings.Contains(word, mark) })
}

// glue is what may stand before a word without a space.
const glue = "!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~0123456789\t"

// isDear reports whether an ASCII word costs more than its price behind some character.
func (p *parts) isDear(word string, m *merger) bool {
	for i := range len(word) {
		if word[i] >= utf8.RuneSelf {
			return false
		}
	}
	if price(len(word)) == len(word) {
		return false
	}
	for i := range len(glue) {
		if m.count(glue[i:i+1]+word) > 1+price(len(word)) {
			return true
		}
	}
	return false
}

// takeWordPieces takes the ASCII words of a WordPiece vocabulary. Their first pieces begin
// with the mark of a space, as both converters to GGUF write them.
func (p *parts) takeWordPieces(v *Vocabulary) error {
	for i := range v.Tokens {
		word, ok := strings.CutPrefix(v.Tokens[i], spaceMark)
		if ok && v.isText(i) && len(word) <= maxWord && isWord(word) {
			p.words[word] = flagBare
		}
	}
	for i, token := range v.Tokens {
		p.lengths = binary.LittleEndian.AppendUint16(p.lengths, uint16(len(token))) //nolint:gosec // bounded by check
		if strings.HasPrefix(token, "##") && v.isText(i) {
			return errors.New("its pieces are marked by ##, not by a space")
		}
	}
	return nil
}

// table puts the parts together.
func (p *parts) table() (*Table, error) {
	slots, blob, err := p.index()
	if err != nil {
		return nil, err
	}
	data := append(make([]byte, 0, fixedBytes+len(p.lengths)+len(slots)+len(blob)+sumBytes), magic...)
	sizes := [...]int{int(p.flags), len(p.lengths) / 2, len(slots) / 4, len(blob), 0, 0, 0, 0, 0, p.mergeCount, p.pairs}
	for _, size := range sizes {
		data = binary.LittleEndian.AppendUint32(data, uint32(size)) //nolint:gosec // all are bounded
	}
	for spaces := range maxRun + 1 {
		data = append(data, p.runPrice(spaces))
	}
	for _, part := range [][]byte{p.ends[:], p.glued[:], p.cross, p.chars, p.lengths, p.merges, slots, blob} {
		data = append(data, part...)
	}
	return view(data), nil
}

// runPrice cuts spaces into the longest tokens, or merges them, whichever costs more.
func (p *parts) runPrice(spaces int) byte {
	tokens, merged := 0, p.merged[spaces]
	for spaces > 0 {
		longest := 1
		for length := range p.runs[:spaces+1] {
			if p.runs[length] {
				longest = max(longest, length)
			}
		}
		spaces -= longest
		tokens++
	}
	return byte(max(tokens, merged)) //nolint:gosec // at most maxRun
}

// index writes the words, in order so that the same vocabulary makes the same table, and
// places them by their hash.
func (p *parts) index() (slots, blob []byte, err error) {
	if len(p.words) == 0 {
		return nil, nil, nil
	}
	words := make([]string, 0, len(p.words))
	for word := range p.words {
		words = append(words, word)
	}
	slices.Sort(words)
	count := uint32(1)
	for int(count) < 2*len(words) {
		count *= 2
	}
	slots, blob = make([]byte, 4*count), []byte{0} // no word has the place 0
	for _, word := range words {
		i, probes := hash([]byte(word))&(count-1), 0
		for binary.LittleEndian.Uint32(slots[4*i:]) != 0 {
			i = (i + 1) & (count - 1)
			if probes++; probes > maxProbes {
				return nil, nil, errors.New("too many words have the same hash")
			}
		}
		binary.LittleEndian.PutUint32(slots[4*i:], uint32(len(blob))) //nolint:gosec // bounded by check
		blob = append(blob, byte(len(word)), p.words[word])           //nolint:gosec // at most maxWord
		blob = append(blob, word...)
	}
	return slots, blob, nil
}
