package wordtable

import (
	"regexp"
	"strings"
)

const (
	maxFraming       = 1 << 20
	maxTemplateBytes = 1 << 18
	maxReplaced      = 1 << 15 // marks that are looked for in a template; Gemma 3 has some 6,000
	messageTokens    = 40      // a message of the Modelfile, as one of a request
)

// setFraming prices what the model itself adds to a prompt: its system text, which some
// templates print twice, its messages, and the template's own text. A renderer of Ollama's is used
// in the template's place; what those print is in the prices of every prompt.
func (t *Table) setFraming(s *Show) {
	f := Framing{SystemText: 1}
	if s.Renderer == "" && s.Template != "" {
		f = plus(f, t.template(s.Vocabulary.withoutMarks(s.Template)))
	}
	if s.System != "" {
		f.Base += f.SystemText * t.own(s.System)
	}
	for _, m := range s.Messages {
		f.Base += messageTokens + t.own(m.Content)
	}
	t.Framing = Framing{
		min(f.Base, maxFraming), min(f.Tools, maxFraming), min(f.PerMessage, maxFraming), f.SystemText,
		s.imageTokens(),
	}
	t.putFraming()
}

// own bounds a text of the model's own.
func (t *Table) own(text string) int {
	budget := MergedBytes
	return t.Bound([]byte(text), &budget)
}

// withoutMarks replaces the marks in a template, each of which is one token there, by
// a byte of that price. SPM minds that they end in a bracket. Without that it costs more, never less:
// one that is too long for more, or whose vocabulary has more marks than any in use, stays as it is.
func (v *Vocabulary) withoutMarks(template string) string {
	if len(template) > maxTemplateBytes {
		return template
	}
	short, marks := "\x00", []string{}
	if v.Kind == kindSPM {
		short = "\x00>"
	}
	for i, token := range v.Tokens {
		if len(v.Types) == len(v.Tokens) && !v.isType(i, tokenNormal) && len(token) > len(short) &&
			len(token) <= maxTokenBytes {
			marks = append(marks, token, short)
		}
	}
	if len(marks) > 2*maxReplaced {
		return template
	}
	return strings.NewReplacer(marks...).Replace(template)
}

// template prices the text of a template by where it stands: in a loop over the messages, under
// a condition of tools, or elsewhere. One that can't be read, or that prints one turn after the
// other, counts with all its text for each message.
func (t *Table) template(text string) Framing {
	if len(text) <= maxTemplateBytes {
		w := walker{table: t, list: statements(text)}
		f, end := w.block(place{})
		if end.kind == atEnd && !w.isBroken && w.hasMessages {
			if w.hasSystem && w.printsAll {
				f.SystemText = 1
			}
			return f
		}
	}
	all := t.own(text)
	return Framing{Base: all, PerMessage: all, SystemText: 1}
}

func plus(a, b Framing) Framing {
	return Framing{
		a.Base + b.Base, a.Tools + b.Tools, a.PerMessage + b.PerMessage, a.SystemText + b.SystemText, 0,
	}
}

func greatest(a, b Framing) Framing {
	return Framing{max(a.Base, b.Base), max(a.Tools, b.Tools), max(a.PerMessage, b.PerMessage), 0, 0}
}

// Kinds of statements.
const (
	atEnd   = iota // of the template
	isText         // printed as it stands
	isValue        // what prints or sets a value: the strings in it may be printed
	isOpen         // begins a block
	isElse         // begins another branch of it
	isClose        // ends it
)

// statement is a piece of a template.
type statement struct {
	kind int
	word string
	text string // of text, else what follows the word
}

var (
	goPieces    = regexp.MustCompile(`(?s)\{\{-?\s*(?:/\*.*?\*/|(\w+\b)?(.*?))\s*-?\}\}`)
	jinjaPieces = regexp.MustCompile(`(?s)\{#.*?#\}|\{\{()(.*?)\}\}|\{%[-+]?\s*(\w+)\b(.*?)[-+]?%\}`)
	// unprinted are the strings of a value that are looked for, compared or raised.
	unprinted = regexp.MustCompile("(?s)raise_exception\\(.*|" +
		"(?:\\.\\w+\\(|\\[|[=!]=|\\bin\\b)\\s*(?:'(?:[^'\\\\]|\\\\.)*'|\"(?:[^\"\\\\]|\\\\.)*\")")
	literals = regexp.MustCompile("(?s)'(?:[^'\\\\]|\\\\.)*'|\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`")
)

// statements cuts a template, Go's or Jinja's, into its pieces.
func statements(text string) (list []statement) {
	pieces := goPieces
	if strings.Contains(text, "{%") {
		pieces = jinjaPieces
	}
	at := 0
	for _, found := range pieces.FindAllStringSubmatchIndex(text, -1) {
		list = append(list, statement{isText, "", trimmed(text, at, found[0])})
		at = found[1]
		for group := 2; group+3 < len(found); group += 4 {
			word, rest := "", ""
			if found[group] >= 0 {
				word = text[found[group]:found[group+1]]
			}
			if found[group+2] >= 0 {
				rest = text[found[group+2]:found[group+3]]
			}
			if word != "" || rest != "" {
				list = append(list, statement{kindOf(word, rest), word, rest})
			}
		}
	}
	return append(list, statement{isText, "", trimmed(text, at, len(text))})
}

// trimmed returns the text between two statements without the space that they take away.
func trimmed(text string, start, end int) string {
	between := text[start:end]
	if strings.HasSuffix(text[:start], "-}}") || strings.HasSuffix(text[:start], "%}") {
		between = strings.TrimLeft(between, " \t\r\n")
	}
	if after := text[end:]; strings.HasPrefix(after, "{{-") || strings.HasPrefix(after, "{%") {
		between = strings.TrimRight(between, " \t\r\n")
	}
	return between
}

// kindOf separates the statements of blocks from others.
func kindOf(word, rest string) int {
	switch word {
	case "if", "with", "range", "for", "define", "block", "macro", "call", "filter", "generation":
		return isOpen
	case "else", "elif":
		return isElse
	case "set":
		if !strings.Contains(rest, "=") {
			return isOpen
		}
	}
	if strings.HasPrefix(word, "end") {
		return isClose
	}
	return isValue
}

// place is where a text stands.
type place struct {
	inMessages, inTools bool
	inCalls             bool // each call of a tool has a price of its own
	ofRole              bool // for messages of a role that is not the system's
}

// walker reads the statements of a template.
type walker struct {
	table       *Table
	list        []statement // what has not been read
	hasMessages bool        // there is a loop over the messages
	isBroken    bool        // a block does not end
	hasSystem   bool        // Go's templates have the system's text apart from the messages
	printsAll   bool        // and may print it as one of them, too
}

// block prices all until the end of a block or a branch of it, and returns what ended it.
func (w *walker) block(p place) (sum Framing, end statement) {
	for len(w.list) > 0 {
		s := w.list[0]
		w.list = w.list[1:]
		switch s.kind {
		case isText:
			sum = plus(sum, w.price(p, s.text))
		case isOpen:
			sum = plus(sum, w.branches(s, p))
		case isElse, isClose:
			return sum, s
		default:
			w.hasSystem = w.hasSystem || strings.Contains(s.text, ".System")
			w.printsAll = w.printsAll || p.inMessages && !p.ofRole && strings.Contains(s.text, ".Content")
			for _, quoted := range literals.FindAllString(unprinted.ReplaceAllString(s.text, ""), -1) {
				sum = plus(sum, w.price(p, strings.ReplaceAll(quoted[1:len(quoted)-1], `\n`, "\n")))
			}
		}
	}
	return sum, statement{}
}

// branches prices a condition or a loop: what the dearest of its branches prints.
func (w *walker) branches(s statement, p place) (most Framing) {
	for {
		sum, end := w.block(w.inside(s, p))
		most = greatest(most, sum)
		if end.kind != isElse {
			w.isBroken = w.isBroken || end.kind != isClose
			return most
		}
		s = end
	}
}

var (
	ofTools    = regexp.MustCompile(`\btools\b|\.Tools\b`)
	ofRole     = regexp.MustCompile(`eq \.Role "(user|assistant|tool)"`)
	ofCalls    = regexp.MustCompile(`tool_calls|\.ToolCalls`)
	ofMessages = regexp.MustCompile(`essages\b`)
	// ofOne are conditions that hold for one message of all, ofMany such that may hold for
	// more of them.
	ofOne  = regexp.MustCompile(`\$last\b|eq \(len \(slice|loop\.(first|last)|loop\.index0? *==`)
	ofMany = regexp.MustCompile(`\b(gt|ge|lt|le|or|not)\b|[<>]`)
)

// inside returns the place within a branch.
func (w *walker) inside(s statement, p place) place {
	p.ofRole = p.ofRole || ofRole.MatchString(s.text) && !ofMany.MatchString(s.text)
	p.inTools = p.inTools || ofTools.MatchString(s.text) || s.word == "macro"
	switch isLoop := s.word == "range" || s.word == "for"; {
	case isLoop && ofMessages.MatchString(s.text):
		w.hasMessages = true
		p.inMessages = true
	case isLoop && ofCalls.MatchString(s.text):
		p.inCalls = true
	case ofOne.MatchString(s.text) && !ofMany.MatchString(s.text):
		p.inMessages = false
	}
	return p
}

// price prices a text of the template at a place.
func (w *walker) price(p place, text string) Framing {
	if text == "" || p.inCalls {
		return Framing{}
	}
	tokens := w.table.own(text)
	switch {
	case p.inMessages:
		return Framing{PerMessage: tokens}
	case p.inTools:
		return Framing{Tools: tokens}
	}
	return Framing{Base: tokens}
}
