package gateway

import (
	"time"

	"neuronetz-gateway/caddy/internal/vault"
)

const (
	defaultPromptEntry = 4 << 20
	defaultPromptSpool = 256 << 20
)

// Prompts says where prompts and answers are kept of the requests whose Grant says for how long. They
// are sealed as they pass; what can't be kept is dropped and counted (gateway_prompts_lost_total), and
// neither the answer nor the bill ever waits for it.
type Prompts struct {
	// Spool is the folder from which metering takes them, "" for none.
	Spool string `json:"spool,omitempty"`
	// PublicKeys is the file of the public keys. One with a private key is refused.
	PublicKeys string `json:"public_keys,omitempty"`
	// EntryBytes is the most that is kept of a prompt, and of an answer. 0 means 4 MiB.
	EntryBytes int64 `json:"entry_bytes,omitempty"`
	// SpoolBytes is the most that waits in the spool. 0 means 256 MiB.
	SpoolBytes int64 `json:"spool_bytes,omitempty"`
}

// provision sets the defaults and refuses a file that holds no public key.
func (p *Prompts) provision() error {
	if p.EntryBytes == 0 {
		p.EntryBytes = defaultPromptEntry
	}
	if p.SpoolBytes == 0 {
		p.SpoolBytes = defaultPromptSpool
	}
	return p.settings().Check()
}

func (p *Prompts) settings() vault.Settings {
	return vault.Settings{
		Spool: p.Spool, PublicKeys: p.PublicKeys, EntryBytes: p.EntryBytes, SpoolBytes: p.SpoolBytes,
	}
}

// keepPrompt begins to keep the request, if its Grant says so: the body as the client has sent it.
func (x *exchange) keepPrompt() {
	kept := time.Duration(x.grant.LogPromptS) * time.Second
	if kept <= 0 {
		return
	}
	x.kept = process.vault.Open(vault.Meta{
		ID: x.id, Tenant: x.grant.Tenant, Key: x.grant.Key, At: x.start, Expires: x.start.Add(kept),
	})
	x.kept.Prompt(x.request.body)
}
