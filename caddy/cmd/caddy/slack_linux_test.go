package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// asProgram makes the test binary a program that takes the slack, and says what it has then.
const asProgram = "GATEWAY_TEST_SLACK"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "" {
		os.Exit(m.Run())
	}
	takeTimerSlack()
	slacks := make(chan int)
	go func() { // on a thread of its own, as main has this one
		runtime.LockOSThread()
		slacks <- threadSlack()
	}()
	runtime.LockOSThread()
	_, _ = fmt.Print(threadSlack(), <-slacks, os.Getpid(), os.Args[1:])
}

// TestSlackIsThatOfEveryThread: `caddy run` is executed again in the same process, with its arguments and
// environment, and all its threads have the slack; a greater one stays, as does that of other commands.
func TestSlackIsThatOfEveryThread(t *testing.T) {
	for _, c := range []struct {
		command string
		before  uintptr
		want    int
	}{{"run", 50_000, timerSlack}, {"run", 2 * timerSlack, 2 * timerSlack}, {"validate", 50_000, 50_000}} {
		program := exec.CommandContext(t.Context(), os.Args[0], c.command, "--config", "a b")
		program.Env = append(os.Environ(), asProgram+"=1")
		var said strings.Builder
		program.Stdout = &said
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, c.before, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		err := program.Start()
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // the default again
		runtime.UnlockOSThread()
		if err != nil {
			t.Fatal(err)
		}
		pid := program.Process.Pid
		if err := program.Wait(); err != nil {
			t.Fatal(err)
		}
		if all := fmt.Sprint(c.want, c.want, pid, []string{c.command, "--config", "a b"}); said.String() != all {
			t.Errorf("from %d: got %s, want %s", c.before, said.String(), all)
		}
	}
}
