package gateway

import (
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/intercept"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// maxInvoked bounds how deep named routes may invoke each other.
const maxInvoked = 8

// What every request has passed before a handler, whatever it is like.
const (
	behindNothing = iota
	behindGuard
	behindTap
)

var behindNames = [...]string{behindNothing: "nothing", behindGuard: "guard", behindTap: "tap"}

// running is what the control socket shows of the configuration that runs.
type running struct {
	Version string      `json:"version"` // of Caddy
	Sites   []siteState `json:"sites"`
	Proxies []proxy     `json:"proxies"`
}

// siteState is a server of the configuration.
type siteState struct {
	Listen    []string `json:"listen"`
	Hosts     []string `json:"hosts"` // that its first routes name; none means any
	IsTLS     bool     `json:"is_tls"`
	IsGuarded bool     `json:"is_guarded"`
}

// proxy is a reverse_proxy of the configuration, or what is made of one, like forward_auth.
type proxy struct {
	Listen    []string `json:"listen"`
	Behind    string   `json:"behind"` // nothing, guard or tap
	AsksAuthz bool     `json:"asks_authz"`
	Dials     []string `json:"dials"` // as Caddy dials them; "dynamic" for upstreams that are looked up
}

// runningNow describes the configuration that runs; its lists are never null.
func runningNow() running {
	_, version := caddy.Version()
	now := running{Version: version, Sites: []siteState{}, Proxies: []proxy{}}
	app, err := caddy.ActiveContext().AppIfConfigured("http")
	sites, ok := app.(*caddyhttp.App)
	if err != nil || !ok {
		return now
	}
	for _, name := range slices.Sorted(maps.Keys(sites.Servers)) {
		server := sites.Servers[name]
		w := walk{server: server, proxies: []proxy{}}
		w.routes(server.Routes, behindNothing)
		if server.Errors != nil {
			w.routes(server.Errors.Routes, behindNothing)
		}
		now.Sites = append(now.Sites, siteState{
			Listen: server.Listen, Hosts: hostsOf(server.Routes),
			IsTLS: len(server.TLSConnPolicies) > 0, IsGuarded: w.isGuarded,
		})
		now.Proxies = append(now.Proxies, w.proxies...)
	}
	return now
}

// walk goes through the handlers of a server in the order in which a request meets them.
type walk struct {
	server    *caddyhttp.Server
	invoked   int
	isGuarded bool
	proxies   []proxy
}

// routes returns what a request has passed that leaves the list at its end. What stands in a route
// with a matcher, or in one of several that exclude each other, not every request has passed.
func (w *walk) routes(list caddyhttp.RouteList, behind int) int {
	for _, route := range list {
		end := behind
		for _, handler := range route.Handlers {
			end = w.handler(handler, end)
		}
		if len(route.MatcherSets) == 0 && route.Group == "" {
			behind = end
		}
	}
	return behind
}

func (w *walk) handler(handler caddyhttp.MiddlewareHandler, behind int) int {
	switch h := handler.(type) {
	case *Guard:
		w.isGuarded = true
		return max(behind, behindGuard)
	case *Tap: // without a guard before it, it refuses everything
		return behindTap
	case *caddyhttp.Subroute:
		if h.Errors != nil {
			w.routes(h.Errors.Routes, behind)
		}
		return w.routes(h.Routes, behind)
	case *caddyhttp.Invoke:
		return w.invoke(h.Name, behind)
	case *intercept.Intercept:
		w.responses(h.HandleResponse, behind)
	case *reverseproxy.Handler:
		w.proxies = append(w.proxies, proxy{
			Listen: w.server.Listen, Behind: behindNames[behind], AsksAuthz: asksAuthz(h), Dials: dialsOf(h),
		})
		w.responses(h.HandleResponse, behind)
	}
	return behind
}

func (w *walk) responses(list []caddyhttp.ResponseHandler, behind int) {
	for _, response := range list {
		w.routes(response.Routes, behind)
	}
}

func (w *walk) invoke(name string, behind int) int {
	route := w.server.NamedRoutes[name]
	if route == nil || w.invoked == maxInvoked {
		return behind
	}
	w.invoked++
	defer func() { w.invoked-- }()
	return w.routes(caddyhttp.RouteList{*route}, behind)
}

// asksAuthz reports whether a proxy is the forward_auth of the Caddyfile.
func asksAuthz(h *reverseproxy.Handler) bool {
	return h.Rewrite != nil && strings.HasPrefix(h.Rewrite.URI, "/verify?")
}

func dialsOf(h *reverseproxy.Handler) []string {
	dials := make([]string, 0, len(h.Upstreams)+1)
	for _, upstream := range h.Upstreams {
		dials = append(dials, upstream.Dial)
	}
	if h.DynamicUpstreams != nil {
		dials = append(dials, "dynamic")
	}
	return dials
}

// hostsOf returns the names by which the routes of a server choose a site; never nil.
func hostsOf(list caddyhttp.RouteList) []string {
	hosts := []string{}
	for _, route := range list {
		for _, set := range route.MatcherSets {
			for _, matcher := range set {
				if names, ok := matcher.(*caddyhttp.MatchHost); ok {
					hosts = append(hosts, *names...)
				}
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}
