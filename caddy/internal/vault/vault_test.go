package vault

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"golang.org/x/crypto/nacl/box"
)

const (
	requestID = "019ab5c0-1c00-7000-8000-000000000001"
	tenantID  = "5f64c1de-6a27-4a35-8f43-5f7b6f3a2c11"
	keyID     = "b2b1f9a0-52a5-4c2a-9f0f-1c8ad6a3b8a1"
)

var start = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// world is a vault, the time that passes in it, and who has the private key.
type world struct {
	*Vault

	settings        Settings
	ticks           chan time.Time // the worker looks whenever one is sent
	public, private *[32]byte
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	public, private, err := box.GenerateKey(rand.Reader)
	must(t, err)
	w := &world{
		ticks: make(chan time.Time), public: public, private: private,
		settings: Settings{filepath.Join(dir, "spool"), filepath.Join(dir, "vault.pub"), 1 << 20, 1 << 24},
	}
	after := func(d time.Duration) <-chan time.Time {
		if d == lookEvery {
			return w.ticks
		}
		return time.After(d)
	}
	w.Vault = New(func() time.Time { return start }, after, rand.Reader)
	writeKey(t, w.settings.PublicKeys, public)
	return w
}

func writeKey(t *testing.T, path string, keys ...*[32]byte) {
	t.Helper()
	var text strings.Builder
	for _, key := range keys {
		text.WriteString(publicPrefix + base64.StdEncoding.EncodeToString(key[:]) + "\n")
	}
	must(t, os.WriteFile(path, []byte(text.String()), 0o600))
}

func (w *world) watch() { w.Watch(w.settings, zap.NewNop()) }

// look has the worker look, once it has kept what was sent before.
func (w *world) look() { w.ticks <- start }

// keep keeps a request and its answer.
func (w *world) keep(prompt string, answers ...string) {
	w.keepAs(requestID, prompt, answers...)
}

func (w *world) keepAs(id, prompt string, answers ...string) {
	entry := w.Open(Meta{id, tenantID, keyID, start, start.Add(time.Hour)})
	entry.Prompt([]byte(prompt))
	for _, each := range answers {
		entry.Answer([]byte(each))
	}
	entry.Close()
	w.Flush(time.Minute)
}

// opened is a text as it comes out of the spool.
type opened struct {
	text   string
	pieces int
	ends   flags
}

// open opens what has been handed over, in its order, and checks what each piece is bound to.
func (w *world) open(t *testing.T) (texts [2]opened) {
	t.Helper()
	ready, err := filepath.Glob(filepath.Join(w.settings.Spool, "*"+readySuffix))
	must(t, err)
	for _, path := range ready {
		text, err := os.ReadFile(path)
		must(t, err)
		for each := range bytes.Lines(text) {
			var l struct {
				line

				Box []byte `json:"box"`
			}
			if json.Unmarshal(each, &l) != nil || l.ID != requestID {
				continue // torn, or of another request
			}
			plain, ok := unsealed(l.Box, w.private)
			if !ok {
				t.Fatal("a piece can't be opened")
			}
			found, isBoth := &texts[l.Direction%uint8(both)], l.Direction == uint8(both)
			request, tenant := uuid.MustParse(requestID), uuid.MustParse(tenantID)
			equal(t, "NZP1"+string(request[:])+string(tenant[:]), string(plain[:36]), "magic, request and tenant")
			equal(t, [2]byte{l.Direction, l.Flags}, [2]byte(plain[36:38]), "direction and flags")
			equal(t, []byte{0, 0, 0, byte(found.pieces)}, plain[38:headBytes], "index")
			equal(t, uint32(found.pieces), l.Index, "index outside")
			equal(t, start.Add(time.Hour).Unix(), l.Expires, "expiry")
			equal(t, true, len(plain) <= headBytes+PieceBytes, "a piece is bounded")
			digest := sha256.Sum256(w.public[:])
			equal(t, hex.EncodeToString(digest[:8]), l.Vault, "the key by which it opens")
			if isBoth {
				content, length := plain[headBytes:len(plain)-lengthBytes], binary.BigEndian.Uint32(plain[len(plain)-lengthBytes:])
				texts = [2]opened{{string(content[:length]), 1, flags(l.Flags)}, {string(content[length:]), 1, flags(l.Flags)}}
				continue
			}
			found.text += string(plain[headBytes:])
			found.pieces++
			found.ends |= flags(l.Flags)
		}
	}
	return texts
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, want, got any, what string) {
	t.Helper()
	if a, b := fmt.Sprint(want), fmt.Sprint(got); a != b {
		t.Errorf("%s: want %s, got %s", what, a, b)
	}
}

func must2[T any](value T, _ error) T { return value }
