package syslog

import (
	"errors"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// readNow reads what is there, without waiting: nothing is 0 and no error.
func readNow(conn *net.UnixConn, into []byte) (n int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Control(func(fd uintptr) {
		for {
			if n, err = unix.Read(int(fd), into); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	switch {
	case failed != nil:
		return 0, failed
	case errors.Is(err, unix.EAGAIN):
		return 0, nil
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}
