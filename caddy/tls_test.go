package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// startTLS is a stack with an own domain and certificate, as an operator would set it up.
func startTLS(t testing.TB) (*stack, *http.Transport) {
	t.Helper()
	certificate, key := selfSigned(t, t.TempDir())
	addr := freeAddr(t)
	port := addr[strings.LastIndexByte(addr, ':')+1:]
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
	}
	s := newStack(t, addr)
	s.url, s.client = "https://localhost:"+port, &http.Client{Transport: transport}
	s.edited(t, "persist_config off", "persist_config off\n\tauto_https disable_redirects") // port 80 is root's
	s.run(t, "GATEWAY_SITE=https://localhost:"+port+", https://:"+port,
		"GATEWAY_BIND=127.0.0.1\ntls "+certificate+" "+key)
	return s, transport
}

func selfSigned(t testing.TB, dir string) (certificateFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	certificateFile, keyFile = dir+"/cert.pem", dir+"/key.pem"
	writePEM(t, certificateFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "EC PRIVATE KEY", keyDER)
	return certificateFile, keyFile
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// TestHTTP2: over TLS and HTTP/2 a stream is paced, killed, left and refused as it is over
// HTTP/1.1.
func TestHTTP2(t *testing.T) {
	s, transport := startTLS(t)
	defer s.stop()
	defer transport.CloseIdleConnections()

	b := newScripted(100, chatFrame)
	response, reader := s.running(t, b, 3)
	equal(t, 2, response.ProtoMajor, "protocol")
	id := response.Header.Get("X-Request-Id")
	start := time.Now()
	equal(t, 1, s.kill(t, "id="+id), "killed")
	rest, err := io.ReadAll(reader)
	if err != nil {
		t.Fatalf("%v after %q: %s\n%s", err, rest, toJSON(s.record(t, id)), s.stderr.String())
	}
	if took := time.Since(start); took > soon {
		t.Errorf("killed in %v", took)
	}
	equal(t, true, strings.Contains(string(rest), `"done":true`), string(rest))
	equal(t, outcomeKilled, s.record(t, id).Outcome, "outcome")

	t.Run("hangup", func(t *testing.T) { hangup2(t, s) })
	t.Run("unread", func(t *testing.T) { unread2(t, s) })
	t.Run("refusals", func(t *testing.T) { refusals2(t, s) })
}

func hangup2(t *testing.T, s *stack) {
	t.Helper()
	b := newScripted(100, chatFrame)
	response, _ := s.running(t, b, 5)
	_ = response.Body.Close()
	<-b.gone
	e := s.record(t, response.Header.Get("X-Request-Id"))
	equal(t, outcomeClientDisconnected, e.Outcome, "outcome")
	equal(t, int64(5), e.Deltas, "deltas")
}

// unread2: one stream that is not read is killed in time, and the others on the same
// connection go on.
func unread2(t *testing.T, s *stack) {
	t.Helper()
	long := strings.Repeat("x", 30_000)
	s.upstream.set(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, `{"model":"toy","message":{"content":"`+long+`"},"done":false}`+"\n"); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	})
	response := s.open(t, "/api/chat", `{"model":"toy"}`)
	defer func() { _ = response.Body.Close() }()
	id := response.Header.Get("X-Request-Id")
	s.stalls(t, id)
	start := time.Now()
	equal(t, 1, s.kill(t, "id="+id), "killed")
	eventually(t, "the stream is over", func() bool { return s.seen(t, id) < 0 })
	equal(t, outcomeKilled, s.record(t, id).Outcome, "outcome")
	if took := time.Since(start); took > soon {
		t.Errorf("ended after %v", took)
	}
	equal(t, 200, s.send(t, "GET", "/healthz", "").status, "the connection goes on")
}

func refusals2(t *testing.T, s *stack) {
	t.Helper()
	a := s.send(t, "POST", "/api/chat", `{}`, "Authorization", "Bearer "+testKey(), "X-Api-Key", keyOf("nz_3bVSxmbb"))
	equal(t, 400, a.status, "two keys")
	request, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/api/tags", nil)
	must(t, err)
	request.Host = "strange.example"
	response, err := s.transport().RoundTrip(request)
	must(t, err)
	if got := readAnswer(t, response).status; got != 401 && got != 421 {
		t.Errorf("a strange Host gets %d", got)
	}
	body, writer := io.Pipe()
	defer func() { _ = writer.Close() }()
	request, err = http.NewRequestWithContext(t.Context(), "POST", s.url+"/api/chat", body)
	must(t, err)
	start := time.Now()
	response, err = s.transport().RoundTrip(request)
	must(t, err)
	equal(t, 401, response.StatusCode, "without a key and a body that does not come")
	_ = response.Body.Close()
	if took := time.Since(start); took > time.Second {
		t.Errorf("refused after %v", took)
	}
}

// TestHSTS: over TLS every answer of the site, a refusal too, holds a browser to TLS for this name; what
// a backend says of its own name is not passed on, and over plain HTTP nothing is said.
func TestHSTS(t *testing.T) {
	s, transport := startTLS(t)
	defer s.stop()
	defer transport.CloseIdleConnections()
	const name = "Strict-Transport-Security"
	answers := func(s *stack) map[string][]string {
		s.upstream.set(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set(name, "max-age=1; includeSubDomains")
			_, _ = io.WriteString(w, `{"model":"m","message":{"content":"a"},"done":true}`)
		})
		return map[string][]string{
			"200":    s.post(t, "/api/chat", `{"model":"m"}`).header[name],
			"401":    s.send(t, "POST", "/api/chat", `{}`, "Authorization", "").header[name],
			"404":    s.send(t, "GET", "/nowhere", "").header[name],
			"health": s.send(t, "GET", "/healthz", "").header[name],
		}
	}
	for of, values := range answers(s) {
		equal(t, "max-age=31536000", strings.Join(values, "|"), of)
	}
	for of, values := range answers(sharedStack(t)) {
		equal(t, "", strings.Join(values, "|"), of+" without TLS")
	}
}

// TestBackendToken: a backend gets its own credential, and never the client's.
func TestBackendToken(t *testing.T) {
	s := sharedStack(t)
	s.authz.set(t, func(w http.ResponseWriter, r *http.Request, a ask) {
		g := newGrant(a)
		g.Backends = []string{"secured"}
		giveGrant(w, r, g)
	})
	a := s.post(t, "/api/chat", `{"model":"m"}`)
	equal(t, 200, a.status, "status")
	h := s.upstream.last(t).header
	equal(t, "Bearer of the backend", strings.Join(h["Authorization"], "|"), "Authorization")
	equal(t, "secured", *s.record(t, a.id).Backend, "backend")
}
