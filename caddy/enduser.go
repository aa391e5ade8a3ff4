package gateway

import "neuronetz-gateway/caddy/internal/jsonstream"

// maxEndUserBytes bounds the name of an end user: OpenAI takes 64 characters, Anthropic 256.
const maxEndUserBytes = 256

// endUser returns the user that the client names, nil unless its tenant keeps them.
func (x *exchange) endUser() *string {
	if x.grant == nil || !x.grant.EndUser || x.request.endUser == "" {
		return nil
	}
	name := concealedName(x.request.endUser)
	return &name
}

// readEndUser returns the end user that a client names, "" for none: `user` or its successor
// `safety_identifier` in the APIs of OpenAI, `metadata.user_id` in Anthropic's. Ollama's own have
// none. A name is printable ASCII: what it has beyond that, or beyond its greatest length, makes it
// no name, and no reason to refuse the request, which Ollama would serve.
func (q *request) readEndUser(kind api) string {
	switch kind {
	case apiV1Chat, apiV1Completions, apiV1Embeddings, apiResponses:
		if name := endUserName(q.valueOf(q.members, "user")); name != "" {
			return name
		}
		return endUserName(q.valueOf(q.members, "safety_identifier"))
	case apiMessages:
		m, ok := find(q.members, "metadata")
		if !ok || q.body[m.Value] != '{' {
			return ""
		}
		members, _, _ := jsonstream.AppendMembers(nil, q.body, m.Value, 0)
		return endUserName(q.valueOf(members, "user_id"))
	default:
		return ""
	}
}

// endUserName returns a JSON string as the name of an end user, "" if it can't be one.
func endUserName(v []byte) string {
	if len(v) < 2 || v[0] != '"' || len(v) > 6*maxEndUserBytes+2 {
		return ""
	}
	name := jsonstream.AppendDecoded(nil, v[1:len(v)-1])
	if len(name) > maxEndUserBytes {
		return ""
	}
	for _, c := range name {
		if c < ' ' || c > '~' {
			return ""
		}
	}
	return string(name)
}
