package gateway

import (
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"
)

// init registers the directives, which run before reverse_proxy, and the global option.
func init() {
	httpcaddyfile.RegisterGlobalOption("gateway", parseApp)
	directives := map[string]httpcaddyfile.UnmarshalHandlerFunc{
		"gateway_guard":   parseGuard,
		"gateway_tap":     parseTap,
		"gateway_control": parseControl,
	}
	for name, parse := range directives {
		httpcaddyfile.RegisterHandlerDirective(name, parse)
		httpcaddyfile.RegisterDirectiveOrder(name, httpcaddyfile.Before, "reverse_proxy")
	}
}

// UnmarshalCaddyfile reads the log output. Syntax:
//
//	gateway_journal <path> {
//	    roll_size <size>
//	}
//
// The path may hold placeholders; sizes are such as 64MiB, and are never 0.
func (w *JournalWriter) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.AllArgs(&w.Filename) {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		if d.Val() != "roll_size" {
			return d.Errf("unknown option %q of gateway_journal", d.Val())
		}
		if err := parseBytes(d, &w.RollBytes); err != nil {
			return err
		}
	}
	return nil
}

// parseApp reads the global option. Syntax:
//
//	gateway {
//	    pools <large> <small>
//	    tables <folder>
//	    prompts <spool> <file of public keys> {
//	        entry <size>
//	        spool <size>
//	    }
//	    drain <duration>
//	}
//
// Both sizes of pools are given or none. A folder may be "", which is none; the duration 0s.
func parseApp(d *caddyfile.Dispenser, _ any) (any, error) {
	app := new(App)
	d.Next()
	for d.NextBlock(0) {
		if err := app.parseOption(d); err != nil {
			return nil, err
		}
	}
	return httpcaddyfile.App{Name: "gateway", Value: caddyconfig.JSON(app, nil)}, nil
}

func (p *Prompts) parse(d *caddyfile.Dispenser) error {
	if !d.AllArgs(&p.Spool, &p.PublicKeys) {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		size := map[string]*int64{"entry": &p.EntryBytes, "spool": &p.SpoolBytes}[d.Val()]
		if size == nil {
			return d.Errf("unknown option %q of prompts", d.Val())
		}
		if err := parseBytes(d, size); err != nil {
			return err
		}
	}
	return nil
}

// parseOption reads one option.
func (a *App) parseOption(d *caddyfile.Dispenser) (err error) {
	switch d.Val() {
	case "tables":
		if !d.AllArgs(&a.Tables) {
			return d.ArgErr()
		}
	case "prompts":
		err = a.Prompts.parse(d)
	case "drain":
		a.Drain, err = parseDuration(d)
	case "pools":
		if err = parseBytes(d, &a.LargePoolBytes); err == nil {
			err = parseBytes(d, &a.SmallPoolBytes)
		}
	default:
		err = d.Errf("unknown option %q of gateway", d.Val())
	}
	return err
}

// parseGuard reads the directive. Syntax:
//
//	gateway_guard {
//	    max_body <size>
//	}
func parseGuard(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	guard := new(Guard)
	h.Next()
	for h.NextBlock(0) {
		if h.Val() != "max_body" {
			return nil, h.Errf("unknown option %q of gateway_guard", h.Val())
		}
		if err := parseBytes(h.Dispenser, &guard.MaxBodyBytes); err != nil {
			return nil, err
		}
	}
	return guard, nil
}

// parseTap reads the directive. Syntax:
//
//	gateway_tap {
//	    queue_wait <duration>
//	}
func parseTap(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	tap := new(Tap)
	h.Next()
	for h.NextBlock(0) {
		if h.Val() != "queue_wait" {
			return nil, h.Errf("unknown option %q of gateway_tap", h.Val())
		}
		wait, err := parseDuration(h.Dispenser)
		if err != nil {
			return nil, err
		}
		if wait == 0 {
			return nil, h.Errf("%s is not a duration such as 30s", strconv.Quote(h.Val()))
		}
		tap.QueueWait = wait
	}
	return tap, nil
}

// parseControl reads the directive `gateway_control`, which has no options.
func parseControl(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	return new(Control), noOptions(h)
}

// parseDuration reads a duration such as 30s, of 0 or more.
func parseDuration(d *caddyfile.Dispenser) (caddy.Duration, error) {
	if !d.NextArg() {
		return 0, d.ArgErr()
	}
	duration, err := caddy.ParseDuration(d.Val())
	if err != nil || duration < 0 {
		return 0, d.Errf("%s is not a duration such as 30s", strconv.Quote(d.Val()))
	}
	return caddy.Duration(duration), nil
}

// noOptions refuses arguments and a block.
func noOptions(h httpcaddyfile.Helper) error {
	h.Next()
	if h.NextArg() || h.NextBlock(0) {
		return h.Errf("unexpected %q", h.Val())
	}
	return nil
}

// maxSize is a terabyte: what is larger was not meant.
const maxSize = 1 << 40

// parseBytes reads a size such as 32MiB, of at most maxSize.
func parseBytes(d *caddyfile.Dispenser, into *int64) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	size, err := humanize.ParseBytes(d.Val())
	if err != nil || size == 0 || size > maxSize {
		return d.Errf("%s is not a size such as 32MiB", strconv.Quote(d.Val()))
	}
	*into = int64(size)
	return nil
}
