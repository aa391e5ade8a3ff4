package gateway

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/url"
	"strconv"
	"strings"
)

// With OLLAMA_AUTH=1 a program built on Ollama's client signs its requests instead of sending a key:
// `Authorization: KEY:SIGNATURE`, where KEY is its Ed25519 public key as ssh writes it (RFC 8709),
// and `?ts=` is when, in seconds since 1970. It signs `METHOD,path?ts=SECONDS`, which authz verifies.
const (
	sshKeyPrefix      = "AAAAC3NzaC1lZDI1NTE5AAAAI" // the name of the algorithm, and a length of 32
	sshKeyBytes       = 68
	signatureBytes    = 88 // 64 in base64
	signedBytes       = sshKeyBytes + 1 + signatureBytes
	sshAlgorithm      = "ssh-ed25519 "
	maxTimestampBytes = 11 // beyond the year 5000
)

// signed is what an Ask has in place of a key that is sent: authz knows the key, and verifies.
type signed struct {
	Key       string `json:"key"`       // without the algorithm's name
	Signature string `json:"signature"` // in base64
	TS        *int64 `json:"ts"`        // null unless there is one, in decimal
}

// isSigned reports whether an Authorization line has the form of a signature by an Ed25519 key.
func isSigned(line string) bool {
	if len(line) != signedBytes || line[sshKeyBytes] != ':' || !strings.HasPrefix(line, sshKeyPrefix) {
		return false
	}
	strict := base64.StdEncoding.Strict()
	_, keyErr := strict.DecodeString(line[:sshKeyBytes])
	_, err := strict.DecodeString(line[sshKeyBytes+1:])
	return keyErr == nil && err == nil && !strings.ContainsAny(line, "\r\n")
}

// readSigned returns the parts of a line that isSigned, with the time from the query.
func readSigned(line, query string) *signed {
	return &signed{Key: line[:sshKeyBytes], Signature: line[sshKeyBytes+1:], TS: timestamp(query)}
}

// timestamp returns the one `ts` of a query, nil if there is none, another, or one that is not
// written as the client that signed it must have.
func timestamp(query string) *int64 {
	values, err := url.ParseQuery(query)
	if err != nil || len(values["ts"]) != 1 || len(values["ts"][0]) > maxTimestampBytes {
		return nil
	}
	text := values["ts"][0]
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 || strconv.FormatInt(seconds, 10) != text {
		return nil
	}
	return &seconds
}

// handle returns the public handle of a key that signs, which has the form of every other key's:
// eight digits of its SHA-256. Two keys with one handle are no danger, as authz compares the whole.
func (s *signed) handle() string {
	sum := sha256.Sum256([]byte(sshAlgorithm + s.Key))
	n := binary.BigEndian.Uint64(sum[:8])
	handle := []byte(keyPrefix + "........")
	for i := lookupBytes - 1; i >= len(keyPrefix); i-- {
		handle[i] = base62Alphabet[n%62]
		n /= 62
	}
	return string(handle)
}
