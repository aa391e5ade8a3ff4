package vault

import (
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/nacl/box"
)

// TestRotation: the first key of the file seals, from the next look on; without a file nothing is kept.
func TestRotation(t *testing.T) {
	w := newWorld(t)
	w.watch()
	former := *w
	public, private, err := box.GenerateKey(rand.Reader)
	must(t, err)
	writeKey(t, w.settings.PublicKeys, public, w.public)
	w.look()
	w.look() // the one before has been done
	w.public, w.private = public, private
	w.keep("new")
	equal(t, "new", w.open(t)[prompt].text, "opened with the new key")
	running := w.Open(Meta{requestID, tenantID, keyID, start, start.Add(time.Hour)})
	must(t, os.Remove(w.settings.PublicKeys))
	w.look()
	w.look()
	running.Close()
	w.Flush(time.Minute)
	equal(t, 1, w.Lost(), "what can't be sealed any more is counted")
	equal(t, true, former.Open(Meta{ID: requestID, Tenant: tenantID}) == nil, "without a key")
}

// TestKeyFiles: what is no public key is refused in one sentence, a private key with the reason.
func TestKeyFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault.pub")
	point := func(b ...byte) string { return publicPrefix + base64.StdEncoding.EncodeToString(b) }
	public, private, err := box.GenerateKey(rand.Reader)
	must(t, err)
	whole := point(public[:]...)
	for text, want := range map[string]string{
		"":                         "holds no public key",
		"ssh-ed25519 AAAA":         "holds no public key",
		whole[:len(whole)-2]:       "holds no public key",
		point(make([]byte, 32)...): "holds no public key", // of low order
		point(append([]byte{1}, make([]byte, 31)...)...):                             "holds no public key",
		whole + strings.Repeat("\n", maxKeyFileBytes):                                "holds no public key",
		strings.Repeat(whole+"\n", 3):                                                "more than two",
		strings.Repeat(whole+"\n", 1000):                                             "holds no public key",
		whole + "\n" + privatePrefix + base64.StdEncoding.EncodeToString(private[:]): "holds a private key, by which",
	} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if _, err := readKeys(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
		if (Settings{Spool: "there", PublicKeys: path}).Check() == nil {
			t.Errorf("%q is taken", text)
		}
	}
	must(t, os.WriteFile(path, []byte(whole+"\n"+whole+"\n"), 0o600))
	keys, err := readKeys(path)
	must(t, err)
	equal(t, 2, len(keys), "keys")
	keys, err = readKeys(path + ".none")
	equal(t, true, len(keys) == 0 && err == nil, "no file is no problem")
}
