package gateway

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// sameGrant: what is read as a plain Grant is what encoding/json reads; it says whether it was.
func sameGrant(t *testing.T, text string) bool {
	t.Helper()
	got, isPlain := readPlainGrant(text)
	if !isPlain {
		return false
	}
	var want grant
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		t.Errorf("%s is read as a plain Grant, but: %v", text, err)
	} else if !reflect.DeepEqual(want, *got) {
		t.Errorf("%s\nwant %+v\ngot  %+v", text, want, *got)
	}
	return true
}

// grantTexts are Grants as authz writes them.
func grantTexts(t testing.TB) []string {
	t.Helper()
	text := golden(t, "grant")
	return []string{
		text,
		strings.ReplaceAll(text, `"60"`, `"60","ratelimit":"\"requests\";r=59;t=1","x":"\\"`),
		strings.NewReplacer(`"llama3.3:70b"`, "null", `"max_output":256`, `"max_output":null`, `["options.num_gpu"]`, "[]",
			`{"keep_alive":60}`, "{}", `["local"]`, `["a","b"]`, "[4]", "[0,12]", "false", "true").Replace(text),
	}
}

// TestPlainGrant: Grants as authz writes them are read as plain ones, and what differs from them by a byte, or
// has anything but a value where one stands, is read as encoding/json reads it.
func TestPlainGrant(t *testing.T) {
	for _, text := range grantTexts(t) {
		equal(t, true, sameGrant(t, text), text)
		equal(t, false, sameGrant(t, strings.ReplaceAll(text, `"x-ratelimit-limit-requests"`, "null")), "a name that is none")
		for i := range len(text) {
			sameGrant(t, text[:i])
			sameGrant(t, text[:i]+text[i+1:])
			sameGrant(t, text+text[i:])
			for _, other := range []string{" ", "null", `"`, `\`, `\u0061`, "\n", "é", "\xff", "<", "0", "9", ",", "{", "}", "[", "]", ":"} {
				sameGrant(t, text[:i]+other+text[i:])
				sameGrant(t, text[:i]+other+text[i+1:])
			}
		}
		for _, number := range []string{"-1", "-0", "00", "01", "1.0", "1e2", "999999999999999999", "9999999999999999999", `"1"`, "true", "[]", "{}", "null", ""} {
			for _, name := range []string{"v", "weight", "max_output", "input", "deadline_s", "keep_alive", "cold", "id", "reserved", "drop", "set"} {
				_, behind, _ := strings.Cut(text, `"`+name+`":`)
				before := strings.TrimSuffix(text, behind)
				for cut := range min(8, len(behind)) {
					sameGrant(t, before+number+behind[cut:])
				}
			}
		}
	}
}

func FuzzPlainGrant(f *testing.F) {
	for _, text := range grantTexts(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { sameGrant(t, text) })
}

// maybe returns a value, or nil.
func maybe[T any](random *rand.Rand, value T) *T {
	if random.IntN(3) == 0 {
		return nil
	}
	return &value
}

// anyText returns a text of any kind.
func anyText(random *rand.Rand) string {
	texts := []string{"", "llama3.2:1b", "a b", `"`, `\`, "<b>&", "é", "😀", "\x00\x1f\x7f", "\u2028", "\xff", "nz_3bVSxmba", "/api/chat", "null"}
	return texts[random.IntN(len(texts))] + texts[random.IntN(len(texts))]
}

// TestPlainAsk: an Ask is the text that encoding/json makes of it.
func TestPlainAsk(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	n := func() int64 { return random.Int64N(1 << random.IntN(41)) }
	text := func() string { return anyText(random) }
	for range 2000 {
		a := ask{
			V: version, ID: text(), Node: text(), Boot: text(), TraceID: maybe(random, text()), IP: text(), Method: text(),
			Path: text(), Lookup: maybe(random, text()), InPath: n()%2 == 0, Length: maybe(random, n()),
			Model: maybe(random, text()), Stream: maybe(random, n()%2 == 0), MaxOutput: maybe(random, n()), PromptBytes: int(n()),
			Images: int(n()), Messages: int(n()), Tools: int(n()),
			Asked: maybe(random, asked{
				maybe(random, n()), maybe(random, n()), maybe(random, -n()), maybe(random, n()),
				maybe(random, n()), maybe(random, n()), maybe(random, n()),
			}),
			Signed:  maybe(random, signed{text(), text(), maybe(random, n())}),
			Problem: maybe(random, problem(text())), Field: maybe(random, text()),
		}
		if random.IntN(3) > 0 {
			a.Bounds, a.Done = map[string]int64{}, []doneRequest{}
		}
		for range random.IntN(3) {
			if a.Bounds != nil {
				a.Bounds[text()] = n()
				a.Done = append(a.Done, doneRequest{text(), text(), text()})
			}
		}
		equal(t, marshalASCII(a), string(plainWriter{}.ask(&a)), "Ask")
	}
}

// TestPlainOpenLine: likewise.
func TestPlainOpenLine(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	n := func() int64 { return random.Int64N(1 << random.IntN(41)) }
	text := func() string { return anyText(random) }
	for range 2000 {
		l := openLine{
			V: version, ID: text(), Node: text(), Boot: text(), Seq: uint64(n()), TraceID: maybe(random, text()),
			Tenant: text(), Key: text(), IP: text(), EndUser: maybe(random, text()), Path: text(),
			Model: maybe(random, text()), ModelAsked: maybe(random, text()), Backend: text(),
			Stream: maybe(random, n()%2 == 0), Reserved: maybe(random, tokens{n(), n()}),
			Ceiling: maybe(random, tokens{n(), n()}), Windows: maybe(random, windows{text(), text()}),
			Queued: n()%2 == 0, PromptBytes: n(), Images: n(), Deadline: n(),
		}
		equal(t, marshalASCII(l), string(plainWriter{}.openLine(&l)), "open line")
	}
}
