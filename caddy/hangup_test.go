package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

var errLeft = errors.New("the client has left")

// TestQuietMoment: a request whose client has left is cancelled when its backend has been quiet for a
// while, and after leaveWithin however busy the backend is.
func TestQuietMoment(t *testing.T) {
	const word = quietFor / 2
	for name, c := range map[string]struct{ words, least, most time.Duration }{
		"quiet":       {0, quietFor, 2 * quietFor},
		"a few words": {3 * word, 3*word + quietFor, 3*word + 3*quietFor},
		"busy":        {time.Minute, leaveWithin, leaveWithin + 2*quietFor},
	} {
		t.Run(name, func(t *testing.T) {
			_, clock := replaceProcess(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			h := &hangup{cancel: cancel}
			began := clock.now()
			h.heard()
			h.begin(errLeft)
			h.begin(errors.New("a second time"))
			for ctx.Err() == nil && clock.now().Sub(began) < 2*time.Minute {
				clock.advance(word)
				if clock.now().Sub(began) <= c.words {
					h.heard()
				}
			}
			took := clock.now().Sub(began)
			equal(t, true, c.least <= took && took <= c.most, took.String())
			equal(t, errLeft, context.Cause(ctx), "cause")
		})
	}
}

// TestEndBehindHangup: the end of an answer that comes right behind its client's hang-up is read, and
// its usage is in the record. A machine may be too busy for that once, but not always.
func TestEndBehindHangup(t *testing.T) {
	s := sharedStack(t)
	var e entry
	for range 10 {
		if e = s.leftBehind(t); e.Terminal {
			break
		}
	}
	equal(t, true, e.Terminal, "the end was read")
	equal(t, int64(1), *e.OutputTokens, "output tokens")
	equal(t, true, e.Outcome == outcomeCompleted || e.Outcome == outcomeClientDisconnected, string(e.Outcome))
}

// leftBehind leaves an answer behind its last word, before its end, and returns the record.
func (s *stack) leftBehind(t *testing.T) entry {
	t.Helper()
	left := make(chan struct{})
	s.upstream.set(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		_, _ = io.WriteString(w, `{"message":{"content":"hello"},"done":false}`+"\n")
		_ = http.NewResponseController(w).Flush()
		<-left
		_, _ = io.WriteString(w, `{"message":{"content":""},"done":true,"prompt_eval_count":3,"eval_count":1}`+"\n")
	})
	body := `{"model":"toy"}`
	connection := s.dial(t)
	_, err := fmt.Fprintf(connection, "POST /api/chat HTTP/1.1\r\nHost: a\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
		testKey(), len(body), body)
	must(t, err)
	reader := bufio.NewReader(connection)
	for line := ""; !strings.Contains(line, "hello"); {
		line, err = reader.ReadString('\n')
		must(t, err)
	}
	_ = connection.Close()
	close(left)
	return s.record(t, s.authz.last(t).ID)
}
