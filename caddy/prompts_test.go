package gateway

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/box"
)

// keeper is a stack that keeps prompts, with the private key that no server has.
type keeper struct {
	*stack

	private *[32]byte
}

// startKeeper starts a stack whose Grants keep prompts for an hour.
func startKeeper(t *testing.T, extra ...string) *keeper {
	t.Helper()
	k := &keeper{stack: newStack(t, freeAddr(t))}
	public, private, err := box.GenerateKey(rand.Reader)
	must(t, err)
	k.private = private
	text := "nz-vault-public:" + base64.StdEncoding.EncodeToString(public[:]) + "\n"
	must(t, os.WriteFile(k.path("vault.pub"), []byte(text), 0o600))
	k.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		g := newGrant(a)
		g.LogPromptS = 3600
		giveGrant(w, r, g)
	})
	k.run(t, append([]string{"GATEWAY_PROMPTS=" + k.path("spool"), "GATEWAY_PROMPT_KEY=" + k.path("vault.pub")}, extra...)...)
	return k
}

// open waits until both texts of a request have been handed over, and opens them.
func (k *keeper) opened(t *testing.T, id string) (texts [2]string) {
	t.Helper()
	eventually(t, "the texts of "+id, func() bool {
		var ended int
		texts = [2]string{}
		files, _ := filepath.Glob(k.path("spool/*.ready"))
		for _, path := range files {
			content, err := os.ReadFile(path)
			must(t, err)
			for each := range bytes.Lines(content) {
				var piece struct {
					ID        string `json:"id"`
					Direction int    `json:"direction"`
					Flags     int    `json:"flags"`
					Box       []byte `json:"box"`
				}
				must(t, json.Unmarshal(each, &piece))
				if piece.ID != id {
					continue
				}
				sender, nonce := (*[32]byte)(piece.Box), (*[24]byte)(piece.Box[32:])
				plain, ok := box.Open(nil, piece.Box[56:], nonce, sender, k.private)
				if !ok {
					t.Fatal("a piece can't be opened")
				}
				if content := plain[42:]; piece.Direction == 2 {
					text, length := content[:len(content)-4], binary.BigEndian.Uint32(content[len(content)-4:])
					texts, ended = [2]string{string(text[:length]), string(text[length:])}, 2
				} else {
					texts[piece.Direction] += string(content)
					ended += piece.Flags & 1
				}
			}
		}
		return ended == 2
	})
	return texts
}

// TestPromptsAreKept: what is opened is the body that the client sent and the answer that it got, byte
// for byte: whole, cut by a kill, left by its client, and where the gateway itself answers.
func TestPromptsAreKept(t *testing.T) {
	k := startKeeper(t)
	defer k.stop()
	body := "{\n \"model\": \"toy\", \"keep_alive\": 3, \"messages\": [] }\n"
	frames := newScripted(5000, chatFrame)
	frames.allow(5000)
	k.upstream.set(t, frames.serve)
	got := k.post(t, "/api/chat", body)
	equal(t, 200, got.status, "status")
	equal(t, [2]string{body, got.body}, k.opened(t, got.id), "whole")

	killed, reader := k.running(t, newScripted(100, chatFrame), 3)
	id := killed.Header.Get("X-Request-Id")
	equal(t, 1, k.kill(t, "id="+id), "killed")
	rest, err := io.ReadAll(reader)
	must(t, err)
	texts := k.opened(t, id)
	equal(t, `{"model":"toy"}`, texts[0], "prompt")
	equal(t, chatFrame(0)+chatFrame(1)+chatFrame(2)+string(rest), texts[1], "killed")

	left := newScripted(100, chatFrame)
	response, reader := k.running(t, left, 2)
	_ = response.Body.Close()
	<-left.gone
	_, _ = reader.Discard(reader.Buffered())
	got1 := k.opened(t, response.Header.Get("X-Request-Id"))[1]
	equal(t, true, strings.HasPrefix(got1, chatFrame(0)+chatFrame(1)), "left")

	k.upstream.set(t, func(w http.ResponseWriter, _ *http.Request) {
		connection, _, _ := http.NewResponseController(w).Hijack()
		_ = connection.Close()
	})
	failed := k.post(t, "/v1/chat/completions", body)
	equal(t, 502, failed.status, failed.body)
	equal(t, [2]string{body, failed.body}, k.opened(t, failed.id), "the gateway's own answer")
}

// TestNoTextInThePlain: neither the folder of Caddy nor what it logs holds the text.
func TestNoTextInThePlain(t *testing.T) {
	k := startKeeper(t)
	defer k.stop()
	k.upstream.set(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"model":"toy","message":{"content":"canary of the answer"},"done":true}`)
	})
	got := k.post(t, "/api/chat", `{"model":"toy","stream":false,"messages":[{"content":"canary of the prompt"}]}`)
	k.opened(t, got.id)
	must(t, filepath.WalkDir(k.dir, func(path string, file os.DirEntry, err error) error {
		if err != nil || !file.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		equal(t, false, bytes.Contains(text, []byte("canary")), path)
		return err
	}))
	equal(t, false, strings.Contains(k.stderr.String(), "canary"), "stderr")
}

// TestPromptsAreOptedInto: without a word in the Grant nothing is kept.
func TestPromptsAreOptedInto(t *testing.T) {
	k := startKeeper(t)
	defer k.stop()
	k.authz.set(t, grantAll)
	equal(t, 200, k.post(t, "/api/chat", `{"model":"toy"}`).status, "status")
	must(t, k.cmd.Process.Signal(os.Interrupt))
	_ = k.wait()
	k.exited <- nil
	files, err := os.ReadDir(k.path("spool"))
	must(t, err)
	equal(t, 1, len(files), "the lock alone")
}

// TestALostVaultLosesNothingElse: where no prompt can be kept, answers and records are as ever, and the
// loss is counted.
func TestALostVaultLosesNothingElse(t *testing.T) {
	k := startKeeper(t, "GATEWAY_PROMPTS=/dev/full/spool")
	defer k.stop()
	k.upstream.set(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		_, _ = io.WriteString(w, strings.Repeat(chatFrame(0), 49)+`{"model":"toy","done":true}`+"\n")
	})
	for range 5 {
		got := k.post(t, "/api/chat", `{"model":"toy"}`)
		equal(t, 200, got.status, "status")
		equal(t, 50, strings.Count(got.body, "\n"), "frames")
		equal(t, outcomeCompleted, k.record(t, got.id).Outcome, "outcome")
	}
	eventually(t, "the loss is counted", func() bool {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://control/metrics", nil)
		must(t, err)
		response, err := k.controlTransport().RoundTrip(request)
		must(t, err)
		defer func() { _ = response.Body.Close() }()
		for scanner := bufio.NewScanner(response.Body); scanner.Scan(); {
			if scanner.Text() == "gateway_prompts_lost_total 5" {
				return true
			}
		}
		return false
	})
}

// TestAPrivateKeyIsRefused: Caddy does not start with a private key in the place of the public one.
func TestAPrivateKeyIsRefused(t *testing.T) {
	s := newStack(t, freeAddr(t))
	must(t, os.WriteFile(s.path("vault.pub"), []byte("nz-vault-private:AAAA\n"), 0o600))
	s.cmd = s.command(t, "GATEWAY_PROMPTS="+s.path("spool"), "GATEWAY_PROMPT_KEY="+s.path("vault.pub"))
	out, err := s.cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "holds a private key, by which") {
		t.Errorf("Caddy says %v: %s", err, out)
	}
	s.exited = make(chan error, 1)
	s.exited <- err
	s.stop()
}
