package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// gate withholds the events of an answer. It is a named pipe in the folder RUNNER_GATES: each
// byte that a test writes to it lets one event pass, so that no test needs a pause.
type gate struct{ pipe *os.File }

// openGate opens the gate of a name; without a name there is none, and nothing waits.
func openGate(name string) (*gate, error) {
	if name == "" {
		return nil, nil
	}
	path := filepath.Join(os.Getenv("RUNNER_GATES"), filepath.Base(name))
	// Open for writing too, so that a pipe without a test is a closed gate, not the end of a file.
	pipe, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("no gate: %w", err)
	}
	return &gate{pipe}, nil
}

// wait reports whether the next event may pass; it may not once the context is done.
func (g *gate) wait(ctx context.Context) bool {
	if g == nil {
		return ctx.Err() == nil
	}
	stop := context.AfterFunc(ctx, func() { _ = g.pipe.SetReadDeadline(time.Now()) })
	defer stop()
	_, err := g.pipe.Read(make([]byte, 1))
	return err == nil
}

func (g *gate) close() {
	if g != nil {
		_ = g.pipe.Close()
	}
}

// pause waits so many milliseconds, and reports whether the context still is.
func pause(ctx context.Context, ms int) bool {
	if ms <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
