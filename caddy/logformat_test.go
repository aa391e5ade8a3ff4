package gateway

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/logging"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// TestLogEncoder: no text of an entry has a key, whoever writes it.
func TestLogEncoder(t *testing.T) {
	t.Parallel()
	key := testKey()
	plain := zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"})
	e := (&LogEncoder{JSONEncoder: logging.JSONEncoder{Encoder: plain}}).Clone()
	e.AddString("from", "a logger of "+key)
	line, err := e.EncodeEntry(zapcore.Entry{Message: "rejected " + key[:32]}, []zap.Field{
		zap.String("method_trunc", key[:32]), zap.Error(errors.New("no host " + key[:20])), zap.Int("status", 405),
	})
	must(t, err)
	equal(t, `{"msg":"rejected nz_3bVSxmba***","from":"a logger of nz_3bVSxmba***",`+
		`"method_trunc":"nz_3bVSxmba***","error":"no host nz_3bVSxmba***","status":405}`+"\n", line.String(), "line")
}

// TestLogEncoderKeepsRequests: each entry of a logger has the request of that logger, behind what the logger had
// before and in front of its own fields; those of another have not.
func TestLogEncoderKeepsRequests(t *testing.T) {
	t.Parallel()
	all := (&LogEncoder{JSONEncoder: logging.JSONEncoder{
		Encoder: zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"}),
	}}).Clone()
	one := all.Clone()
	one.AddString("upstream", "a")
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/"+testKey()+"?a=b", http.NoBody)
	must(t, one.AddObject("request", caddyhttp.LoggableHTTPRequest{Request: r}))
	must(t, one.AddObject("headers", caddyhttp.LoggableHTTPHeader{Header: http.Header{"A": {"b"}}}))
	for range 2 {
		line, err := one.Clone().EncodeEntry(zapcore.Entry{Message: "m"}, []zap.Field{zap.Int("status", 502)})
		must(t, err)
		equal(t, `{"msg":"m","upstream":"a","request":{"remote_ip":"192.0.2.1","proto":"HTTP/1.1","method":"GET",`+
			`"uri":"/api/nz_3bVSxmba***"},"status":502}`+"\n", line.String(), "line")
	}
	line, err := all.EncodeEntry(zapcore.Entry{Message: "m"}, nil)
	must(t, err)
	equal(t, `{"msg":"m"}`+"\n", line.String(), "another logger")
}
