package syslog

import (
	"errors"
	"net"
)

// readNow is for syslog-ng, which Windows has not.
func readNow(*net.UnixConn, []byte) (int, error) { return 0, errors.ErrUnsupported }
