//go:build !linux

package gateway

import "syscall"

// steer does nothing where the kernel can't choose among the sockets of a port.
func steer(syscall.RawConn, uint32) {}

// unsteer has nothing to take back.
func unsteer(syscall.RawConn) {}
