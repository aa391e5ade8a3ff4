package vault

import (
	"crypto/ecdh"
	"io"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/salsa20/salsa" //nolint:staticcheck // the key schedule of a sealed box is HSalsa20
)

const (
	nonceBytes = 24
	pointBytes = 32
)

// sealAnonymous returns libsodium's sealed box of a text, as box.SealAnonymous does: that computes
// the public half of the passing key twice, which is a third of what a short text costs. The key is
// used once, so the nonce follows from both points (libsodium, crypto_box_seal).
func sealAnonymous(text []byte, key publicKey, random io.Reader) ([]byte, error) {
	passing, err := ecdh.X25519().GenerateKey(random)
	if err != nil {
		return nil, err
	}
	theirs, err := ecdh.X25519().NewPublicKey(key.point[:])
	if err != nil {
		return nil, err
	}
	agreed, err := passing.ECDH(theirs)
	if err != nil {
		return nil, err
	}
	ours := passing.PublicKey().Bytes()
	hash, err := blake2b.New(nonceBytes, nil)
	if err != nil {
		return nil, err
	}
	_, _ = hash.Write(ours)
	_, _ = hash.Write(key.point[:])
	var shared, none [pointBytes]byte
	salsa.HSalsa20(&shared, (*[16]byte)(none[:16]), (*[pointBytes]byte)(agreed), &salsa.Sigma)
	nonce := (*[nonceBytes]byte)(hash.Sum(nil))
	return secretbox.Seal(ours, text, nonce, &shared), nil
}
