package gateway

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// steer makes the kernel give new connections of a port to the socket in this place, of those that share
// the port: the oldest has 0. Without one in this place it spreads them as before.
func steer(socket syscall.RawConn, place uint32) {
	program := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: place}
	_ = socket.Control(func(fd uintptr) {
		_ = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
			&unix.SockFprog{Len: 1, Filter: &program})
	})
}

// unsteer lets the kernel spread new connections of a port again.
func unsteer(socket syscall.RawConn) {
	_ = socket.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
	})
}
