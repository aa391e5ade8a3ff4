// Program load is both ends of the benchmark: `load backend` answers as Ollama would, and
// `load run` asks for answers and measures them. Each piece of an answer carries the time at
// which it was sent, so that the one end knows how long it took to come from the other.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fail("load: name one of `backend` and `run`")
	}
	flags := flag.NewFlagSet("load "+os.Args[1], flag.ExitOnError)
	switch os.Args[1] {
	case "backend":
		addr := flags.String("addr", "127.0.0.1:0", "where to listen; port 0 is any that is free")
		models := flags.Int("models", 1, "how many models there are")
		_ = flags.Parse(os.Args[2:])
		fail(serve(*addr, *models))
	case "run":
		var p plan
		flags.StringVar(&p.url, "url", "", "base URL of what is measured")
		flags.StringVar(&p.path, "path", "/api/chat", "/api/chat or /v1/chat/completions")
		flags.StringVar(&p.key, "key", "", "API key, sent as a bearer token")
		flags.StringVar(&p.model, "model", "bench", "the model to ask for")
		flags.IntVar(&p.clients, "clients", 1, "requests at once")
		flags.IntVar(&p.each, "each", 0, "requests of each client; 0 is as many as fit into -seconds")
		flags.DurationVar(&p.length, "length", time.Second, "how long to go on beginning requests")
		flags.DurationVar(&p.ramp, "ramp", 0, "over how long the clients begin")
		flags.DurationVar(&p.gap, "gap", 0, "the mean pause of a client between two requests")
		flags.IntVar(&p.tokens, "tokens", 16, "tokens of an answer")
		flags.IntVar(&p.prompt, "prompt", 0, "bytes of text before the question")
		flags.DurationVar(&p.every, "every", 0, "the pause between two tokens")
		flags.BoolVar(&p.stream, "stream", false, "ask for a stream")
		_ = flags.Parse(os.Args[2:])
		if err := json.NewEncoder(os.Stdout).Encode(run(p)); err != nil {
			fail(err)
		}
	default:
		fail("load: name one of `backend` and `run`")
	}
}

func fail(reason any) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(1)
}
