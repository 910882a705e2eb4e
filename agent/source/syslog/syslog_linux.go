package syslog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipeSize is what the pipe can hold, in bytes. It is the most that an
// unprivileged process may ask for (/proc/sys/fs/pipe-max-size).
const pipeSize = 1 << 20

// openPipe opens the named pipe for reading and writing, and makes it if there
// is none.
func openPipe(path string) (*os.File, error) {
	open := func() (int, error) {
		return unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	}
	fd, err := open()
	if errors.Is(err, unix.ENOENT) {
		if err := unix.Mkfifo(path, 0o660); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("make pipe %s: %w", path, err)
		}
		fd, err = open()
	}
	if err != nil {
		return nil, fmt.Errorf("open pipe %s: %w", path, err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil, errors.Join(fmt.Errorf("open pipe %s: it is no pipe and is left alone; move it away", path), err, unix.Close(fd))
	}
	// A smaller pipe does as well, only that rsyslog has to wait sooner.
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeSize)
	return os.NewFile(uintptr(fd), path), nil
}

// plug leaves the pipe full, so that rsyslog can write nothing while no agent
// reads: its messages then wait in its own queue, which survives what a pipe
// does not. It returns what was in the pipe before.
//
// The pipe is shrunk to one page, and empty lines fill that. A page is free
// for writing only after its last byte was read: so all but that one can be
// read, and the pipe is full all the while.
func plug(pipe *os.File) (before []byte, err error) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return nil, err
	}
	size := os.Getpagesize()
	failed := raw.Control(func(fd uintptr) {
		if _, err = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, size); err != nil {
			return // busy: more than a page came just now
		}
		lines := bytes.Repeat([]byte("\n"), size)
		for n := size; n > 0; { // halved while that is more than fits
			if _, full := unix.Write(int(fd), lines[:n]); full != nil {
				n /= 2
			}
		}
		before = lines[:size-1]
		n := 0
		n, err = unix.Read(int(fd), before)
		before = before[:max(n, 0)]
	})
	return before, errors.Join(failed, err)
}

// listenUnix makes the socket at path, in place of one that nobody listens to
// any more. A gid of 0 lets everybody send.
func listenUnix(path string, gid int) (*net.UnixConn, error) {
	if err := removeStale(path, "unixgram"); err != nil {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	mode := os.FileMode(0o666)
	if gid != 0 {
		mode = 0o660
		err = os.Chown(path, -1, gid)
	}
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make socket: %w", err), conn.Close())
	}
	return conn, nil
}

// listenStream makes the stream socket at path, in place of one that nobody
// listens to any more. Everybody may connect, as to /dev/log.
func listenStream(path string) (*net.UnixListener, error) {
	if err := removeStale(path, "unix"); err != nil {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(fmt.Errorf("make socket: %w", err), listener.Close())
	}
	return listener, nil
}

// removeStale removes a socket that an earlier run has left, and nothing else.
func removeStale(path, network string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make socket: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if info.Mode().Type() != fs.ModeSocket || !ok || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("make socket %s: something else is there that is not ours and is left alone; move it away", path)
	}
	conn, err := net.DialUnix(network, nil, &net.UnixAddr{Name: path, Net: network})
	if err == nil {
		return errors.Join(fmt.Errorf("make socket %s: another process receives there; stop it", path), conn.Close())
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("make socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("make socket: %w", err)
	}
	return nil
}

// A socket reads from a Unix datagram socket without waiting.
type socket struct {
	raw  syscall.RawConn
	read func(fd uintptr) // reads into buf
	buf  []byte
	n    int
	err  error
}

func newSocket(conn syscall.Conn) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	s := &socket{raw: raw}
	s.read = func(fd uintptr) {
		for {
			if s.n, s.err = unix.Read(int(fd), s.buf); s.err != unix.EINTR { //nolint:errorlint // a bare errno, per datagram
				return
			}
		}
	}
	failed := raw.Control(func(fd uintptr) { err = setReceiveBuffer(int(fd)) })
	if err := errors.Join(failed, err); err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	return s, nil
}

// setReceiveBuffer sets it beyond the system's limit with the privilege, else
// up to it.
func setReceiveBuffer(fd int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) == nil {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
}

// more reads the next datagram if there is one.
func (s *socket) more(buf []byte) (n int, ok bool) {
	s.buf = buf
	err := s.raw.Control(s.read)
	return max(s.n, 0), err == nil && s.err == nil && s.n > 0
}
