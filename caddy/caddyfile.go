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
//	}
//
// Both sizes of pools are given or none. A folder may be "", which is none.
func parseApp(d *caddyfile.Dispenser, _ any) (any, error) {
	app := new(App)
	d.Next()
	for d.NextBlock(0) {
		if d.Val() == "tables" {
			if !d.AllArgs(&app.Tables) {
				return nil, d.ArgErr()
			}
			continue
		}
		if d.Val() == "prompts" {
			if err := app.Prompts.parse(d); err != nil {
				return nil, err
			}
			continue
		}
		if d.Val() != "pools" {
			return nil, d.Errf("unknown option %q of gateway", d.Val())
		}
		for _, size := range []*int64{&app.LargePoolBytes, &app.SmallPoolBytes} {
			if err := parseBytes(d, size); err != nil {
				return nil, err
			}
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
		if !h.NextArg() {
			return nil, h.ArgErr()
		}
		wait, err := caddy.ParseDuration(h.Val())
		if err != nil || wait <= 0 {
			return nil, h.Errf("%s is not a duration such as 30s", strconv.Quote(h.Val()))
		}
		tap.QueueWait = caddy.Duration(wait)
	}
	return tap, nil
}

// parseControl reads the directive `gateway_control`, which has no options.
func parseControl(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	return new(Control), noOptions(h)
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
