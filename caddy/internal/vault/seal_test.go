package vault

import (
	"bytes"
	"crypto/rand"
	"testing"
	"time"

	"golang.org/x/crypto/nacl/box"
)

// unsealed opens a box with the private key it was sealed for.
func unsealed(sealed []byte, private *[pointBytes]byte) ([]byte, bool) {
	nonce := (*[nonceBytes]byte)(sealed[pointBytes:])
	return box.Open(nil, sealed[pointBytes+nonceBytes:], nonce, (*[pointBytes]byte)(sealed), private)
}

// TestSender: a pair seals for some seconds and for one key, and no nonce comes twice.
func TestSender(t *testing.T) {
	var privates [2]*[pointBytes]byte
	var keys [2]publicKey
	for i := range keys {
		public, private, err := box.GenerateKey(rand.Reader)
		must(t, err)
		privates[i], keys[i] = private, publicKey{"", public}
	}
	var by sealer
	seal := func(key int, at time.Duration) (sender, nonce string) {
		t.Helper()
		sealed, err := by.seal([]byte("text"), keys[key], start.Add(at), rand.Reader)
		must(t, err)
		plain, ok := unsealed(sealed, privates[key])
		equal(t, true, ok && string(plain) == "text", "opened")
		_, ok = unsealed(sealed, privates[1-key])
		equal(t, false, ok, "opened with another key")
		return string(sealed[:pointBytes]), string(sealed[pointBytes : pointBytes+nonceBytes])
	}
	first, nonce := seal(0, 0)
	second, other := seal(0, passingFor-1)
	equal(t, first, second, "the sender within its time")
	equal(t, true, nonce != other, "a nonce of its own")
	senders := map[string]bool{first: true}
	for _, each := range []struct {
		key int
		at  time.Duration
	}{{1, passingFor - 1}, {0, passingFor - 1}, {0, 2*passingFor - 1}} {
		sender, _ := seal(each.key, each.at)
		equal(t, false, senders[sender], "a sender of before")
		senders[sender] = true
	}
	by.forget(start.Add(3*passingFor - 2))
	equal(t, false, by.public == nil, "forgotten before its time is over")
	by.forget(start.Add(3*passingFor - 1))
	equal(t, true, by.public == nil && by.shared == [pointBytes]byte{}, "forgotten once it is")
}

// TestNoRandomness: without random bytes nothing is sealed, neither a pair nor a nonce of zeros.
func TestNoRandomness(t *testing.T) {
	public, _, err := box.GenerateKey(rand.Reader)
	must(t, err)
	var by sealer
	for _, left := range []int{0, pointBytes, pointBytes + nonceBytes - 1} {
		by.public = nil
		if _, err := by.seal([]byte("text"), publicKey{"", public}, start, bytes.NewReader(make([]byte, left))); err == nil {
			t.Errorf("sealed with %d random bytes", left)
		}
	}
}
