// Command runner stands where Ollama expects llama.cpp's llama-server, and answers by a script.
//
// Everything above it is the real Ollama. The answers are the same on every machine, and how
// many tokens each of them had is known exactly:
//
//   - A token is a word; a prompt has one token more, and an input to embed has two more.
//   - A chat is laid out as "<|role|> words" for each message and "<|assistant|>" at the end, so
//     it costs its words, one for each message and two more.
//   - Word i of an answer is word i of a fixed cycle.
//
// Words of a prompt such as `tokens=9 mode=eof` steer its answer: see knobs.go. What was really
// generated is written to the file named by RUNNER_LEDGER: see ledger.go.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
)

// options are those of llama-server's flags that change what a client can see.
type options struct {
	model      string
	host, port string
	context    int // tokens of all slots together
	slots      int
	isShifting bool // generate past the end of the context
}

func main() {
	o := options{host: "127.0.0.1", port: "8080", context: 4096, slots: 1}
	if isDone := o.parse(os.Args[1:]); isDone {
		return
	}
	// Ollama waits for this line when it looks for GPUs and when it loads a model.
	fmt.Fprintln(os.Stderr, "system_info: n_threads = 2 (n_threads_batch = 2) / 2 | CPU : SCRIPT = 1 |")
	if o.model == "" { // the search for GPUs: Ollama has read the line and ends us
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT)
		<-asked
		return
	}
	// From these Ollama learns how much memory a loaded model takes.
	fmt.Fprintln(os.Stderr, "load_tensors:        CUDA0 model buffer size =     0.43 MiB")
	fmt.Fprintln(os.Stderr, "llama_kv_cache:      CUDA0 KV buffer size =     1.00 MiB")
	// A model that a test wants to load slowly has a gate named like its file.
	if gate, err := openGate(filepath.Base(o.model)); err == nil {
		gate.wait(context.Background())
		gate.close()
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(o.host, o.port))
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, "main: server is listening on", listener.Addr())
	err = http.Serve(listener, newServer(o).routes())
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}

// parse reads the flags; it reports whether one of them was a question, which it has answered.
func (o *options) parse(arguments []string) (isDone bool) {
	for i, argument := range arguments {
		next := ""
		if i+1 < len(arguments) {
			next = arguments[i+1]
		}
		switch argument {
		case "--model", "-m":
			o.model = next
		case "--host":
			o.host = next
		case "--port":
			o.port = next
		case "-c", "--ctx-size":
			o.context = number(next, o.context)
		case "-np", "--parallel":
			o.slots = max(1, number(next, o.slots))
		case "--context-shift":
			o.isShifting = true
		case "--list-devices":
			fmt.Println("Available devices:")
			return true
		case "--version":
			fmt.Println("version: 1 (script)")
			return true
		}
	}
	return false
}

// number reads a decimal number, or returns the default for anything else.
func number(text string, otherwise int) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return otherwise
	}
	return n
}
