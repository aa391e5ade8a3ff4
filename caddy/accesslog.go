package gateway

import (
	"context"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// accessLog is what decides which log gets the entry of a request.
type accessLog struct {
	ctx       context.Context //nolint:containedctx // only read once the request is late
	host      string          // as the client named it
	isSkipped bool            // by log_skip
	names     []string        // by log_name
}

// newAccessLog reads it from a request that ends, on its own goroutine.
func newAccessLog(ctx context.Context, host string) accessLog {
	l := accessLog{ctx: ctx, host: host}
	if _, ok := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any); !ok {
		return l
	}
	l.isSkipped, _ = caddyhttp.GetVar(ctx, caddyhttp.LogSkipVar).(bool)
	names, _ := caddyhttp.GetVar(ctx, caddyhttp.AccessLoggerNameVarKey).([]any)
	for _, name := range names {
		l.names = append(l.names, fmt.Sprint(name))
	}
	return l
}

// suspect names the directive that likely has kept a record from the journal. foreign is how
// many lines without a record have come to it so far.
func (r *record) suspect(foreign uint64) string {
	site, name, hasLog := r.log.resolve()
	switch {
	case r.log.isSkipped:
		return "`log_skip` keeps requests out of the access log"
	case len(r.log.names) > 0:
		return "`log_name " + strings.Join(r.log.names, " ") + "` chooses a log that does not lead to the journal"
	case !hasLog:
		return "the site on " + site + " has no `log` with `output gateway_journal`"
	case foreign > r.foreign:
		return "`format` of `log " + name + "` is none that metering reads: use `format gateway`"
	case !r.isEncoded.Load():
		return "`level`, `sampling`, `include` or `exclude` of `log " + name + "` drops entries"
	}
	return "`log " + name + "` gets the entries, and does not write them to `output gateway_journal`"
}

// resolve returns where the site of a request listens, and which log it has, as Caddy
// decides (caddyhttp.ServerLogConfig).
func (l accessLog) resolve() (site, name string, hasLog bool) {
	server, _ := l.ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if server == nil {
		return "", "", false
	}
	site = strings.Join(server.Listen, " ")
	if server.Logs == nil {
		return site, "", false
	}
	host, _, err := net.SplitHostPort(l.host)
	if err != nil {
		host = l.host
	}
	matches := func(pattern string) bool {
		isMatch, _ := path.Match(pattern, host)
		return isMatch
	}
	for pattern, names := range server.Logs.LoggerNames {
		if matches(pattern) {
			return site, strings.Join(names, " "), true
		}
	}
	isSkipped := server.Logs.SkipUnmappedHosts || slices.ContainsFunc(server.Logs.SkipHosts, matches)
	return site, server.Logs.DefaultLoggerName, !isSkipped
}
