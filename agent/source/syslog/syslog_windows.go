package syslog

import (
	"errors"
	"net"
	"os"
	"syscall"
)

var errNotHere = errors.New("there is no syslog pipe or socket on Windows; give a UDP or TCP address")

func openPipe(string) (*os.File, error) { return nil, errNotHere }

func plug(*os.File) ([]byte, error) { return nil, errNotHere }

func listenUnix(string, int) (*net.UnixConn, error) { return nil, errNotHere }

func listenStream(string) (*net.UnixListener, error) { return nil, errNotHere }

// A socket of Unix does not come to be on Windows.
type socket struct{}

func newSocket(syscall.Conn) (*socket, error) { return nil, errNotHere }

func (*socket) more([]byte) (int, bool) { return 0, false }
