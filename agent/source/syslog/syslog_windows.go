package syslog

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

var errNotHere = errors.New("there is no syslog pipe or socket on Windows; give a UDP or TCP address")

func openPipe(string) (*os.File, error) { return nil, errNotHere }

func plug(*os.File) ([]byte, error) { return nil, errNotHere }

func listenUnix(string, int) (*net.UnixConn, error) { return nil, errNotHere }

// A socket has nothing to say on Windows: datagrams are read one at a time,
// and the system does not tell what it dropped.
type socket struct{}

func newSocket(syscall.Conn) (*socket, error) { return &socket{}, nil }

func (*socket) more([]byte) (int, bool) { return 0, false }

func (*socket) drops(time.Time) int64 { return 0 }
