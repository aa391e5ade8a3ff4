// Command caddy is Caddy with the modules of neuronetz-gateway built in.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "neuronetz-gateway/caddy"
)

func main() {
	caddycmd.Main()
}
