package vault

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/curve25519"
)

const (
	publicPrefix  = "nz-vault-public:"
	privatePrefix = "nz-vault-private:"

	maxKeyFileBytes = 4096
	maxKeys         = 2 // the one that seals, and the one before it

	idBytes = 8 // of a key's digest
)

// publicKey is what pieces are sealed for. Who has its private half opens them; no server has.
type publicKey struct {
	id    string // what a piece calls it by
	point *[curve25519.PointSize]byte
}

// readKeys returns the public keys of a file, the one that seals first; none if there is no file.
func readKeys(path string) ([]publicKey, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > maxKeyFileBytes {
		return nil, noPublicKey(path)
	}
	text, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	if strings.Contains(string(text), privatePrefix) {
		return nil, fmt.Errorf("%s holds a private key, by which a server that is broken into could open every "+
			"prompt: move it to a machine that no client reaches, and leave the public key here", path)
	}
	var keys []publicKey
	for line := range strings.FieldsSeq(string(text)) {
		key, ok := parseKey(line)
		if !ok {
			return nil, noPublicKey(path)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, noPublicKey(path)
	}
	return keys, nil
}

func noPublicKey(path string) error {
	return fmt.Errorf("%s holds no public key of a vault, or more than two: "+
		"make a pair with `neuronetz-gateway vault init`", path)
}

// parseKey reads a line of the file. A point of low order is none: what is sealed for it could be
// opened by all.
func parseKey(line string) (publicKey, bool) {
	text, isPublic := strings.CutPrefix(line, publicPrefix)
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if !isPublic || err != nil || len(raw) != curve25519.PointSize {
		return publicKey{}, false
	}
	anyScalar := make([]byte, curve25519.ScalarSize)
	if _, err := curve25519.X25519(anyScalar, raw); err != nil {
		return publicKey{}, false
	}
	digest := sha256.Sum256(raw)
	return publicKey{hex.EncodeToString(digest[:idBytes]), (*[curve25519.PointSize]byte)(raw)}, true
}
