// The kernel does not steer connections of Multipath TCP between sockets, as a drain asks it to.
//go:debug multipathtcp=0

// Command caddy is Caddy with its standard modules and those of neuronetz-gateway: the same
// program as any Caddy, with the same commands and flags.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "neuronetz-gateway/caddy"
)

func main() {
	takeTimerSlack()
	caddycmd.Main()
}
