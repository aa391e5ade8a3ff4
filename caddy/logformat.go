package gateway

import (
	"net"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/logging"
	"go.uber.org/zap"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

func init() {
	caddy.RegisterModule(LogEncoder{})
}

// LogEncoder is Caddy's JSON encoder, but of a request it keeps what names it (remote_ip,
// proto, method, uri without the query): no header, since a client may put its key into
// any, and no key in what it keeps, or in a text of an entry. It also spares Caddy the time to
// format them. Caddy's own log and the journal use it; its options are those of Caddy's JSON
// encoder, in JSON alone.
type LogEncoder struct {
	logging.JSONEncoder

	// The request of a logger, until there is an entry: the proxies make one for each, and write none.
	request []zapcore.Field
}

// CaddyModule returns the Caddy module information.
func (LogEncoder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.logging.encoders.gateway",
		New: func() caddy.Module { return new(LogEncoder) },
	}
}

// UnmarshalCaddyfile reads `format gateway`, which has no options.
func (e *LogEncoder) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// Clone returns an encoder with the same fields.
func (e *LogEncoder) Clone() zapcore.Encoder {
	clone := *e
	clone.Encoder = e.Encoder.Clone()
	return &clone
}

// AddObject adds a field of a logger, unless it holds headers.
func (e *LogEncoder) AddObject(name string, value zapcore.ObjectMarshaler) error {
	short, isKept := shorten(name, value)
	if _, isRequest := short.(loggedRequest); isRequest {
		e.request = append(slices.Clip(e.request), zap.Object(name, short))
		return nil
	}
	if isKept {
		return e.Encoder.AddObject(name, short)
	}
	return nil
}

// AddString adds a text of a logger.
func (e *LogEncoder) AddString(name, value string) {
	e.Encoder.AddString(name, concealedWithin(value))
}

// EncodeEntry writes one line without headers, and without Caddy's user_id, which no handler
// here sets.
func (e *LogEncoder) EncodeEntry(entry zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	entry.Message = concealedWithin(entry.Message)
	kept := append(make([]zapcore.Field, 0, len(e.request)+len(fields)), e.request...)
	for _, field := range fields {
		if value, ok := field.Interface.(zapcore.ObjectMarshaler); ok && field.Type == zapcore.ObjectMarshalerType {
			short, isKept := shorten(field.Key, value)
			if !isKept {
				continue
			}
			field.Interface = short
		}
		if field.Key != "user_id" {
			kept = append(kept, concealedField(field))
		}
	}
	return e.Encoder.EncodeEntry(entry, kept)
}

// concealedField returns a field whose text has no key.
func concealedField(field zapcore.Field) zapcore.Field {
	if field.Type == zapcore.StringType {
		field.String = concealedWithin(field.String)
	}
	if err, ok := field.Interface.(error); ok && field.Type == zapcore.ErrorType {
		return zap.String(field.Key, concealedWithin(err.Error()))
	}
	return field
}

// shorten reduces a request to what names it; isKept is false for headers.
func shorten(name string, value zapcore.ObjectMarshaler) (short zapcore.ObjectMarshaler, isKept bool) {
	if request, ok := value.(caddyhttp.LoggableHTTPRequest); ok {
		return loggedRequest(request), true
	}
	_, isHeader := value.(caddyhttp.LoggableHTTPHeader)
	return value, !isHeader && name != "resp_headers"
}

// loggedRequest is what a log keeps of a request.
type loggedRequest caddyhttp.LoggableHTTPRequest

// MarshalLogObject writes the fields under the names that Caddy gives them.
func (r loggedRequest) MarshalLogObject(e zapcore.ObjectEncoder) error {
	ip, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		ip = r.RemoteAddr
	}
	uri, _, _ := strings.Cut(r.RequestURI, "?")
	e.AddString("remote_ip", ip)
	e.AddString("proto", r.Proto)
	e.AddString("method", concealed(r.Method))
	e.AddString("uri", readTarget(uri).logged())
	return nil
}

// Interface guards.
var (
	_ zapcore.Encoder       = (*LogEncoder)(nil)
	_ caddyfile.Unmarshaler = (*LogEncoder)(nil)
)
