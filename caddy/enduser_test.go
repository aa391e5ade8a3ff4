package gateway

import (
	"strings"
	"testing"
)

// TestEndUser: the end user is what the fields of each API name, bounded and printable; anything
// else is no name, and never a reason to refuse.
func TestEndUser(t *testing.T) {
	longest := strings.Repeat("u", maxEndUserBytes)
	for _, c := range []struct {
		kind api
		body string
		want string
	}{
		{apiV1Chat, `{"user":"alice@example.com"}`, "alice@example.com"},
		{apiV1Completions, `{"user":"a b/c:1"}`, "a b/c:1"},
		{apiV1Embeddings, `{"user":"\u0061"}`, "a"},
		{apiResponses, `{"user":"u1","safety_identifier":"s1"}`, "u1"},
		{apiResponses, `{"user":"","safety_identifier":"s1","metadata":{"user_id":"x"}}`, "s1"},
		{apiMessages, `{"metadata":{"user_id":"{\"device_id\":\"d\"}"},"user":"x"}`, `{"device_id":"d"}`},
		{apiMessages, `{"metadata":{"a":{"user_id":"x"}}}`, ""},
		{apiMessages, `{"metadata":"x"}`, ""},
		{apiMessages, `{"metadata":null}`, ""},
		{apiChat, `{"user":"alice","metadata":{"user_id":"x"}}`, ""},
		{apiV1Chat, `{"user":"` + longest + `"}`, longest},
		{apiV1Chat, `{"user":"` + longest + `u"}`, ""},
		{apiV1Chat, `{"user":"` + strings.Repeat(`\u0061`, maxEndUserBytes) + `"}`, strings.Repeat("a", maxEndUserBytes)},
		{apiV1Chat, `{"user":"a\nb"}`, ""},
		{apiV1Chat, `{"user":"a\u001b[2Jb"}`, ""},
		{apiV1Chat, `{"user":"zoë"}`, ""},
		{apiV1Chat, `{"user":"a\u202eb"}`, ""},
		{apiV1Chat, `{"user":7}`, ""},
		{apiV1Chat, `{"user":["a"]}`, ""},
		{apiV1Chat, `{"User":"a"}`, ""},
	} {
		q, problem := readRequest([]byte(c.body), c.kind)
		equal(t, "", problem, c.body)
		equal(t, c.want, q.endUser, c.body)
	}
}

// TestEndUserIsKeptByGrant: the journal has the end user only if the Grant says so, and no key that
// a client names in its place.
func TestEndUserIsKeptByGrant(t *testing.T) {
	key := "nz_3bVSxmba" + strings.Repeat("a", keyBytes-lookupBytes)
	for _, c := range []struct {
		grant *grant
		name  string
		want  string
	}{
		{nil, "alice", "null"},
		{&grant{}, "alice", "null"},
		{&grant{EndUser: true}, "alice", "alice"},
		{&grant{EndUser: true}, "", "null"},
		{&grant{EndUser: true}, key, "nz_3bVSxmba***"},
	} {
		x := &exchange{grant: c.grant, request: request{endUser: c.name}}
		got := "null"
		if name := x.endUser(); name != nil {
			got = *name
		}
		equal(t, c.want, got, c.name)
	}
}
