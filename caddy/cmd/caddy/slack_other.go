//go:build !linux

package main

// takeTimerSlack does nothing where the kernel has no such setting.
func takeTimerSlack() {}
