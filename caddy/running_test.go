package gateway

import (
	"os"
	"strings"
	"testing"
)

// TestConfigAsShipped: of the Caddyfile as it is, every proxy to a backend is behind the tap, and
// the others go to authz, behind the guard.
func TestConfigAsShipped(t *testing.T) {
	s := sharedStack(t)
	var now running
	equal(t, 200, s.control(t, "GET", "/config", &now), "status")
	guarded := 0
	for _, site := range now.Sites {
		equal(t, false, site.IsTLS, "TLS")
		if site.IsGuarded {
			guarded++
		}
	}
	equal(t, 1, guarded, "guarded sites")
	authz, backend := "unix/"+s.path("authz.sock"), strings.TrimPrefix(s.upstream.server.URL, "http://")
	want := []string{
		"guard " + authz, "guard " + authz, "guard asks " + authz, "tap " + backend, "tap " + backend,
	}
	equalJSON(t, want, described(now.Proxies), "proxies")
}

// TestConfigWithOtherWays: a proxy that a request may reach past the guard or the tap is shown as
// such, wherever in the configuration it stands.
func TestConfigWithOtherWays(t *testing.T) {
	s := newStack(t, freeAddr(t))
	text, err := os.ReadFile(s.caddyfile)
	must(t, err)
	edited := string(text)
	for before, inserted := range map[string]string{
		// The closing brackets tell which of a request's ways each is on.
		"\t\tgateway_guard {\n": "\t\thandle /debug {\n\t\t\treverse_proxy 127.0.0.1:1\n\t\t}\n",
		"\t\t@preflight vars":   "\t\treverse_proxy /guarded 127.0.0.1:2\n",
		"\t\terror backend_unknown 503\n": "\t\treverse_proxy 127.0.0.1:3 {\n\t\t\t@missing status 404\n" +
			"\t\t\thandle_response @missing {\n\t\t\t\treverse_proxy 127.0.0.1:4\n\t\t\t}\n\t\t}\n",
		"\troute {\n\t\timport gateway_cors\n": "\thandle_errors {\n\t\treverse_proxy 127.0.0.1:5\n\t}\n",
	} {
		equal(t, 1, strings.Count(edited, before), "places of "+before)
		edited = strings.Replace(edited, before, inserted+before, 1)
	}
	edited += `
&(shared) {
	reverse_proxy 127.0.0.1:6
}
http://127.0.0.2:{$OTHER_PORT} {
	bind 127.0.0.2
	invoke shared
	route /half/* {
		handle /half/open {
		}
		handle {
			gateway_guard
		}
		reverse_proxy srv.example {
			dynamic srv _http._tcp.example.com
		}
	}
}
`
	s.caddyfile = s.path("Caddyfile")
	must(t, os.WriteFile(s.caddyfile, []byte(edited), 0o600))
	s.run(t, "OTHER_PORT="+s.addr[strings.LastIndexByte(s.addr, ':')+1:])
	defer s.stop()
	var now running
	equal(t, 200, s.control(t, "GET", "/config", &now), "status")
	found := map[string]int{}
	for _, one := range described(now.Proxies) {
		found[one]++
	}
	for _, want := range []string{
		"nothing 127.0.0.1:1", "guard 127.0.0.1:2", "tap 127.0.0.1:3", "tap 127.0.0.1:4",
		"nothing 127.0.0.1:5", "nothing 127.0.0.1:6", "nothing srv.example:80 dynamic",
	} {
		equal(t, 1, found[want], want)
	}
	hosts := []string{}
	for _, site := range now.Sites {
		hosts = append(hosts, site.Hosts...)
	}
	equalJSON(t, []string{"127.0.0.2"}, hosts, "hosts")
}

func described(proxies []proxy) []string {
	list := make([]string, 0, len(proxies))
	for _, p := range proxies {
		one := p.Behind
		if p.AsksAuthz {
			one += " asks"
		}
		list = append(list, one+" "+strings.Join(p.Dials, " "))
	}
	return list
}
