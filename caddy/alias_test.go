package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestAlias: where a Grant names another model, the backend is asked for that one, every answer
// of a real Ollama names the one that the client asked for and differs in nothing else, and the
// record has both.
func TestAlias(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.run(t)
	defer s.stop()
	const alias = `claude-opus "4"`
	quoted, err := json.Marshal(alias)
	must(t, err)
	text, err := os.ReadFile("testdata/samples-said.txt")
	must(t, err)
	for row := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
		name, want, _ := strings.Cut(row, " ")
		sm := readSample(t, name)
		var asked struct {
			Model string `json:"model"`
		}
		must(t, json.Unmarshal([]byte(sm.request), &asked))
		s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
			equal(t, alias, *a.Model, "the Ask")
			g := newGrant(a)
			g.Model = asked.Model
			giveGrant(w, r, g)
		})
		s.upstream.set(t, sm.serve)
		member := fmt.Sprintf(`"model":"%s"`, asked.Model)
		request := strings.Replace(sm.request, `"`+asked.Model+`"`, string(quoted), 1)
		a := s.post(t, samplePath(name), request)
		ran := asked
		must(t, json.Unmarshal(s.upstream.last(t).body, &ran))
		equal(t, asked.Model, ran.Model, name+": the backend's model")
		equal(t, sm.status, a.status, name+" status")
		expected := sm.body
		if sm.status == http.StatusOK {
			expected = strings.ReplaceAll(sm.body, member, `"model":`+string(quoted))
		}
		equal(t, expected, a.body, name+" body")
		e := s.record(t, a.id)
		equal(t, want, said(e), name)
		equal(t, asked.Model+" "+alias, *e.Model+" "+*e.ModelAsked, name+" record")
		equal(t, true, strings.Contains(a.header.Get(changedHeader), "model") || sm.status != 200, name+" header")
	}
}

// TestAliasOfAKilledStream: the last frame of ours names what the client asked for, too.
func TestAliasOfAKilledStream(t *testing.T) {
	s := newStack(t, freeAddr(t))
	s.run(t)
	defer s.stop()
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		g := newGrant(a)
		g.Model = "target"
		giveGrant(w, r, g)
	})
	b := newScripted(100, func(int) string {
		return `{"model":"target","message":{"role":"assistant","content":"x"},"done":false}` + "\n"
	})
	s.upstream.set(t, b.serve)
	b.allow(1)
	response := s.open(t, "/api/chat", `{"model":"toy"}`)
	first := make([]byte, len(b.frame(0))-len("target")+len("toy"))
	_, err := io.ReadFull(response.Body, first)
	must(t, err)
	equal(t, 1, s.kill(t, "id="+response.Header.Get("X-Request-Id")), "killed")
	rest, err := io.ReadAll(response.Body)
	must(t, err)
	answer := string(first) + string(rest)
	equal(t, 2, strings.Count(answer, `"model":"toy"`), answer)
	equal(t, false, strings.Contains(answer, "target"), answer)
}

// TestRename: however a single answer is cut into pieces, its first name of the model is changed
// and nothing else; what a model wrote itself, in a text or as an argument, is its own.
func TestRename(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	asked := "alias"
	for range 2000 {
		parts := make([]string, random.IntN(6))
		for i := range parts {
			parts[i] = []string{
				`"model":"t"`, `"model":"tt"`, `"mod`, `el":"`, `"model":`, `\"model\":\"t\"`, `{"a":1},`, "\n",
			}[random.IntN(8)]
		}
		whole := strings.Join(parts, "")
		r := newRename(&asked, "t")
		var got strings.Builder
		for rest := whole; rest != ""; {
			n := 1 + random.IntN(len(rest))
			got.Write(r.feed([]byte(rest[:n])))
			rest = rest[n:]
		}
		got.Write(r.rest())
		equal(t, strings.Replace(whole, `"model":"t"`, `"model":"alias"`, 1), got.String(), whole)
		equal(t, got.String(), string(newRename(&asked, "t").frame([]byte(whole))), whole)
	}
	equal(t, true, newRename(&asked, "") == nil, "no alias")
}

// TestDigestsOfAliases: a name may mean what is called so, and what every alias that fits means.
func TestDigestsOfAliases(t *testing.T) {
	names := map[string][]string{"toy:latest": {"a"}, "gpt-4o:latest": {"f"}}
	aliases := map[string][]string{
		"gpt-4o:latest": {"b"}, "claude-*": {"a", "c"}, "claude-haiku-*": {"d"}, "*": {"e"},
	}
	set := &tableSet{names, aliases, patternsOf(aliases), nil}
	for name, want := range map[string][]string{
		"toy": {"a", "e"}, "TOY:latest": {"a", "e"}, "Claude-x": {"a", "c", "e"}, "GPT-4o": {"f", "b", "e"},
		"claude-haiku-4-5": {"d", "a", "c", "e"}, "claude": {"e"},
	} {
		equal(t, fmt.Sprint(want), fmt.Sprint(set.digests(name)), name)
	}
	equal(t, "[a]", fmt.Sprint(names["toy:latest"]), "the index is not changed")
}
