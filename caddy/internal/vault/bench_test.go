package vault

import (
	"crypto/rand"
	"testing"

	"golang.org/x/crypto/nacl/box"
)

// BenchmarkSeal: what a piece costs, one that is full and one of a short text.
func BenchmarkSeal(b *testing.B) {
	public, _, err := box.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	for name, size := range map[string]int{"full": PieceBytes, "short": 200} {
		p := piece{of: &identified{Meta: Meta{requestID, tenantID, keyID, start, start}}, content: make([]byte, size)}
		b.Run(name, func(b *testing.B) {
			var by sealer
			var lines []byte
			for b.Loop() {
				if lines, err = p.seal(lines[:0], &by, publicKey{"0123456789abcdef", public}, start, rand.Reader); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
