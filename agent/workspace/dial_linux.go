package workspace

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// limitUnsent sets maxUnsent for a socket.
func limitUnsent(conn syscall.RawConn) error {
	var failed error
	err := conn.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent)
	})
	return errors.Join(err, failed)
}
