// Command wordbound prints the bound of each text on its input, a JSON string a line, by the
// table of a model that the file of its argument describes, an answer of /api/show. It is how
// tests compare the rule with real tokenizers.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"neuronetz-gateway/caddy/internal/wordtable"
)

const maxLineBytes = 64 << 20

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	answer, err := os.ReadFile(os.Args[1]) //nolint:gosec // of who runs it
	if err != nil {
		return err
	}
	show, err := wordtable.ReadShow(answer)
	if err != nil {
		return err
	}
	table, err := wordtable.Build(show)
	if err != nil {
		fmt.Fprintln(os.Stderr, "no words:", err)
	}
	fmt.Fprintf(os.Stderr, "%+v\n", table.Framing)
	out := bufio.NewWriter(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, maxLineBytes)
	for lines.Scan() {
		var text string
		if err = json.Unmarshal(lines.Bytes(), &text); err != nil {
			return err
		}
		budget := len(text)
		_, _ = fmt.Fprintln(out, table.Bound([]byte(text), &budget)) // Flush returns the error
		if err = out.Flush(); err != nil {
			return err
		}
	}
	return lines.Err()
}
