package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

const (
	// defaultControl is where the Caddyfile has the control socket without GATEWAY_CONTROL.
	defaultControl = ".gateway/run/control.sock"

	// answerWithin is less than the 5 s that container engines are told to wait.
	answerWithin = 3 * time.Second
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "healthy",
		Short: "Exits with 0 if the gateway of this machine answers on its control socket",
		Long: `
Asks the control socket, GATEWAY_CONTROL or ` + defaultControl + `,
for /healthz. Meant for the health check of a container that has no other program.
`,
		Func: func(caddycmd.Flags) (int, error) {
			socket := cmp.Or(os.Getenv("GATEWAY_CONTROL"), defaultControl)
			if err := askHealth(context.Background(), socket, answerWithin); err != nil {
				return caddy.ExitCodeFailedStartup, err
			}
			return caddy.ExitCodeSuccess, nil
		},
	})
}

// askHealth returns an error, which says what to do, unless /healthz answers 200 on the socket in time.
func askHealth(ctx context.Context, socket string, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://control/healthz", http.NoBody)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("the gateway does not answer on %s, look at its log: %w", socket, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s, so it is no control socket of a gateway: correct GATEWAY_CONTROL",
			socket, answer.Status)
	}
	return nil
}
