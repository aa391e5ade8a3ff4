package main

import (
	"regexp"
	"strings"
	"sync"
)

// firstID is the id of the first word seen; smaller ones are the vocabulary's own.
const firstID = 1000

var piece = regexp.MustCompile(`\s*\S+`)

// cycle is what an answer repeats.
var cycle = strings.Fields(`Rayleigh scatter makes the atmosphere look blue because oxygen and
 nitrogen bend light ; once upon a time water droplet rain refract sun into rainbow color 😀 : Russia
 Tokyo 180 independence England Europe world story friend pacific ocean earth carbon dioxide methane
 vapor greenhouse mammal river`)

// pieces cuts a text into tokens that join to the same text.
func pieces(text string) []string {
	found := piece.FindAllString(text, -1)
	if len(found) == 0 {
		return nil
	}
	length := len(strings.Join(found, ""))
	found[len(found)-1] += text[length:] // white space at the end belongs to the last one
	return found
}

// words gives the first n words of the cycle.
func words(n int) []string {
	said := make([]string, 0, max(0, n))
	for i := range n {
		word := cycle[i%len(cycle)]
		if i > 0 {
			word = " " + word
		}
		said = append(said, word)
	}
	return said
}

// vocabulary numbers the pieces of text in the order in which they are first seen.
type vocabulary struct {
	mu    sync.Mutex
	ids   map[string]int
	known []string
}

func (v *vocabulary) encode(text string) []int {
	v.mu.Lock()
	defer v.mu.Unlock()
	ids := []int{}
	for _, p := range pieces(text) {
		id, isKnown := v.ids[p]
		if !isKnown {
			id = firstID + len(v.known)
			v.ids[p] = id
			v.known = append(v.known, p)
		}
		ids = append(ids, id)
	}
	return ids
}

func (v *vocabulary) decode(ids []int) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var text strings.Builder
	for _, id := range ids {
		switch {
		case id == 1 || id == 2: // begin and end of a text
		case id >= firstID && id-firstID < len(v.known):
			text.WriteString(v.known[id-firstID])
		default:
			text.WriteString(" ?")
		}
	}
	return text.String()
}
