package main

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// timerSlack is how many nanoseconds too late the kernel may wake a thread of this program for a timer.
// Go's watcher of its own threads, sysmon, sleeps for 20 microseconds at a time while there is work, and the
// kernel's usual slack adds 50: to wake it took a seventh of the program's CPU time under load, and a
// fifth with one client. No timer here is for less than milliseconds, and what comes from a connection needs none.
const timerSlack = 500_000

// takeTimerSlack executes `caddy run` again with the slack, in the same process: a thread has that of the one
// that began it, and Go has begun its watcher before main. It returns, and all is as before, where a thread
// has as much already or can't have it, as at real-time priority, and where the program can't be executed again.
func takeTimerSlack() {
	if len(os.Args) < 2 || os.Args[1] != "run" {
		return // it ends soon
	}
	runtime.LockOSThread() // the thread that executes is the only one that remains
	defer runtime.UnlockOSThread()
	if threadSlack() >= timerSlack || unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0) != nil ||
		threadSlack() != timerSlack {
		return
	}
	if program, err := os.Executable(); err == nil {
		_ = unix.Exec(program, os.Args, os.Environ())
	}
}

// threadSlack returns the slack of the thread that it runs on.
func threadSlack() int {
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0
	}
	return slack
}
