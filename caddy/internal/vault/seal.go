package vault

import (
	"io"
	"time"

	"golang.org/x/crypto/nacl/box"
)

const (
	pointBytes = 32
	nonceBytes = 24

	// passingFor is how long a pair of the sender's seals: agreeing on a key costs more than sealing
	// a short text with it. Who reads this process's memory finds what opens the pieces of so long,
	// beside their texts.
	passingFor = 10 * time.Second
)

// sealer seals for a public key in the form of libsodium's sealed boxes, but for the pair of the
// sender, which passes with time and not with each text. Its private half never leaves this struct.
type sealer struct {
	key    publicKey
	until  time.Time
	public *[pointBytes]byte // of the sender's pair
	shared [pointBytes]byte  // what the two pairs agree on (libsodium, crypto_box_beforenm)
	sealed []byte            // the last box, whose place the next one takes
}

// seal returns the sender's public half, a nonce and the text as libsodium's crypto_box_easy has it:
// a nonce of 24 random bytes is never drawn twice. It is good until the next one is sealed.
func (s *sealer) seal(text []byte, key publicKey, now time.Time, random io.Reader) ([]byte, error) {
	if s.public == nil || s.key != key || !now.Before(s.until) {
		public, private, err := box.GenerateKey(random)
		if err != nil {
			return nil, err
		}
		s.key, s.until, s.public = key, now.Add(passingFor), public
		box.Precompute(&s.shared, key.point, private)
	}
	var nonce [nonceBytes]byte
	if _, err := io.ReadFull(random, nonce[:]); err != nil {
		return nil, err
	}
	s.sealed = append(append(s.sealed[:0], s.public[:]...), nonce[:]...)
	s.sealed = box.SealAfterPrecomputation(s.sealed, text, &nonce, &s.shared)
	return s.sealed, nil
}

// forget removes a pair whose time is over, so that memory does not open for longer what it has sealed.
func (s *sealer) forget(now time.Time) {
	if !now.Before(s.until) {
		*s = sealer{sealed: s.sealed}
	}
}
