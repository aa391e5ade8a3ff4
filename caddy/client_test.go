package gateway

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
	id     string
}

// post sends a body with a key, as an SDK would.
func (s *stack) post(t testing.TB, path, body string, headers ...string) answer {
	t.Helper()
	return s.send(t, http.MethodPost, path, body, append([]string{"Authorization", "Bearer " + testKey()}, headers...)...)
}

func (s *stack) send(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(body))
	must(t, err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := s.transport().RoundTrip(request)
	must(t, err)
	return readAnswer(t, response)
}

// try posts on a connection of its own, which a reload may reset.
func (s *stack) try(t testing.TB, path, body string) (answer, bool) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path, strings.NewReader(body))
	must(t, err)
	request.Header.Set("X-Api-Key", testKey())
	request.Close = true
	response, err := s.transport().RoundTrip(request)
	if err != nil {
		return answer{}, false
	}
	return readAnswer(t, response), true
}

func readAnswer(t testing.TB, response *http.Response) answer {
	t.Helper()
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(body), response.Header.Get("X-Request-Id")}
}

// dial connects to Caddy as a client that writes its own bytes.
func (s *stack) dial(t testing.TB) net.Conn {
	t.Helper()
	connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.addr)
	must(t, err)
	return connection
}

// raw sends bytes and returns what comes back.
func (s *stack) raw(t testing.TB, text string) answer {
	t.Helper()
	connection := s.dial(t)
	defer func() { _ = connection.Close() }()
	must(t, connection.SetDeadline(time.Now().Add(patience)))
	_, err := io.WriteString(connection, text)
	must(t, err)
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	must(t, err)
	return readAnswer(t, response)
}
