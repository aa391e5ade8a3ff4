package main

import (
	"regexp"
	"strings"
)

// knobs are the words key=value of the last user message, or of a prompt without messages;
// of two with one name the later counts.
//
//	tokens=N      words of the answer (32)
//	say=TEXT      the answer itself, percent-encoded
//	think=N       words of reasoning before the answer (4 where thinking is asked for)
//	tool=1        call a tool even after a tool's result; tool=0 call none
//	pertoken=N    words in each event of a stream (1)
//	cache=N       cached prompt tokens to report (those shared with the last prompt)
//	ptokens=N     prompt tokens to report (counted)
//	first_ms=N    pause before the first word
//	delay_ms=N    pause before every word
//	hold=NAME     every event waits at the gate NAME: see gate.go
//	mode=FAULT    fail at word at=N (5): crash, hang, eof, repeat, error, garbage;
//	              or status: answer with HTTP status code=N (500) before any word
//	tag=NAME      copied to the ledger
type knobs map[string]string

var knob = regexp.MustCompile(`\s([a-z_]+)=(\S+)`)

func readKnobs(prompt string) knobs {
	k := knobs{}
	// Knobs stand side by side, so each word is matched with a space of its own.
	for _, word := range strings.Fields(prompt) {
		if found := knob.FindStringSubmatch(" " + word); found != nil {
			k[found[1]] = found[2]
		}
	}
	return k
}

// number is the value of a knob, or the default where there is none.
func (k knobs) number(name string, otherwise int) int { return number(k[name], otherwise) }
