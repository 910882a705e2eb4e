package syslog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many datagrams one system call reads.
const batchSize = 64

// A udpSocket reads many datagrams with one system call, and knows what the
// kernel had to drop.
//
// The runtime's poller would be woken by each datagram that comes while more
// are left to gather. So it watches the alarm in the place of the socket: an
// epoll instance with one entry, which is silent until it is armed.
type udpSocket struct {
	fd     int
	alarm  *os.File
	raw    syscall.RawConn // of alarm
	room   int             // the kernel's buffer, in bytes as they are asked for
	gather time.Duration   // how long the buffer takes what comes meanwhile

	heads [batchSize]mmsghdr
	parts [batchSize]unix.Iovec
	froms [batchSize]unix.RawSockaddrInet6 // an IPv4 address fits in
	space []byte                           // batchSize messages of the longest kind
	wait  func(alarm uintptr) bool
	n     int
	err   error

	meminfo [memoryFields]uint32
	inode   []byte // as /proc/net/udp has it
	dropped uint32 // as last seen
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	head unix.Msghdr
	n    uint32
}

// Of SO_MEMINFO (Linux 4.12): the fields of enum sk_meminfo_vars, and which of
// them counts drops. SO_RXQ_OVFL tells the same number, but only with the next
// datagram that is not dropped.
const (
	memoryFields = 9
	memoryDrops  = 8
)

// newUDPSocket takes conn over.
func newUDPSocket(conn *net.UDPConn) (*udpSocket, error) {
	s := &udpSocket{fd: -1, space: make([]byte, batchSize*maxMessage)}
	for i := range s.heads {
		s.parts[i].Base = &s.space[i*maxMessage]
		s.parts[i].SetLen(maxMessage)
		h := &s.heads[i].head
		h.Iov, h.Name = &s.parts[i], (*byte)(unsafe.Pointer(&s.froms[i])) //nolint:gosec // as recvmmsg(2) wants it
		h.SetIovlen(1)
	}
	s.wait = func(alarm uintptr) bool {
		if s.err = silence(int(alarm)); s.err != nil {
			return true
		}
		if s.n, s.err = s.receive(); s.n == 0 && s.err == nil {
			s.err = arm(int(alarm), s.fd)
		}
		return s.n > 0 || s.err != nil
	}
	if err := errors.Join(s.detach(conn), s.size()); err != nil {
		return nil, fmt.Errorf("open socket: %w", errors.Join(err, s.Close()))
	}
	s.gather = gatherFor(s.room)
	return s, nil
}

// detach takes the socket out of the runtime's poller and makes the alarm.
func (s *udpSocket) detach(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	failed := raw.Control(func(fd uintptr) { s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(failed, err, conn.Close()); err != nil {
		return err
	}
	alarm, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	// NewFile gives to the poller what does not block.
	err = unix.SetNonblock(alarm, true)
	s.alarm = os.NewFile(uintptr(alarm), "epoll")
	if err == nil {
		err = unix.EpollCtl(alarm, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: int32(s.fd)})
	}
	if err == nil {
		s.raw, err = s.alarm.SyscallConn()
	}
	return err
}

// size makes the kernel's buffer as large as may be.
func (s *udpSocket) size() error {
	var stat unix.Stat_t
	if err := errors.Join(setReceiveBuffer(s.fd), unix.Fstat(s.fd, &stat)); err != nil {
		return err
	}
	s.inode = strconv.AppendUint(nil, stat.Ino, 10)
	granted, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	s.room = granted / 2 // the kernel doubles what it is asked for
	return err
}

// SetReadDeadline makes read fail after t.
func (s *udpSocket) SetReadDeadline(t time.Time) error { return s.alarm.SetReadDeadline(t) }

// Close closes the socket and the alarm.
func (s *udpSocket) Close() error {
	var errs []error
	if s.fd >= 0 {
		errs = append(errs, unix.Close(s.fd))
	}
	if s.alarm != nil {
		errs = append(errs, s.alarm.Close())
	}
	return errors.Join(errs...)
}

// arm makes the alarm go off at the next datagram, or at once when there is one.
func arm(alarm, fd int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(alarm, unix.EPOLL_CTL_MOD, fd, &event))
}

// silence ends an alarm that went off: one shot is spent when it was waited for.
func silence(alarm int) error {
	var gone [1]unix.EpollEvent
	for {
		if _, err := unix.EpollWait(alarm, gone[:], 0); !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("epoll_wait", err)
		}
	}
}

// gatherFor returns how long a buffer of room bytes, of which the kernel makes
// twice as much, takes to be half full at 200,000 short messages a second.
func gatherFor(room int) time.Duration {
	const (
		each = 768 // bytes of the kernel's memory
		rate = 200_000
	)
	return min(time.Duration(room/each)*time.Second/rate, lazy)
}

// read waits for datagrams and adds them to b, as many as there are up to
// burstSize. It tells whether there are no more.
func (s *udpSocket) read(b *burst) (empty bool, err error) {
	if err := s.raw.Read(s.wait); err != nil {
		return false, err
	}
	return s.gathered(b)
}

// rest is read without waiting, whatever the deadline.
func (s *udpSocket) rest(b *burst) (empty bool, err error) {
	s.n, s.err = s.receive()
	return s.gathered(b)
}

// gathered adds to b what was received, and what more there is.
func (s *udpSocket) gathered(b *burst) (empty bool, err error) {
	for {
		if s.err != nil {
			return false, s.err
		}
		for i := range s.n {
			if h := &s.heads[i]; h.n > 0 { // an empty datagram is no message
				b.add(s.space[i*maxMessage:][:h.n], peerOf(&s.froms[i]))
			}
		}
		if s.n < batchSize || len(b.bytes) >= burstSize {
			return s.n < batchSize, nil
		}
		s.n, s.err = s.receive()
	}
}

// receive reads without waiting: no datagram is 0 and no error.
func (s *udpSocket) receive() (int, error) {
	for i := range s.heads {
		s.heads[i].head.Namelen = unix.SizeofSockaddrInet6
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.heads[0])), batchSize, unix.MSG_DONTWAIT, 0, 0) //nolint:gosec // there is no wrapper
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
		default:
			return 0, os.NewSyscallError("recvmmsg", errno)
		}
	}
}

// peerOf returns the sender's address, the zero Addr for what is no address of IP.
func peerOf(from *unix.RawSockaddrInet6) netip.Addr {
	switch from.Family {
	case unix.AF_INET:
		var ip [4]byte // where an address of IPv6 has its flow
		binary.NativeEndian.PutUint32(ip[:], from.Flowinfo)
		return netip.AddrFrom4(ip)
	case unix.AF_INET6:
		return netip.AddrFrom16(from.Addr).Unmap()
	}
	return netip.Addr{}
}

// drops returns how many datagrams the kernel dropped since it was last asked.
func (s *udpSocket) drops() int64 {
	total, ok := s.counted()
	if !ok { // an older kernel
		total, ok = s.listedDrops()
	}
	if !ok {
		return 0
	}
	since := total - s.dropped // also when the counter has begun anew
	s.dropped = total
	return int64(since)
}

func (s *udpSocket) counted() (drops uint32, ok bool) {
	size := uint32(unsafe.Sizeof(s.meminfo))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&s.meminfo)), uintptr(unsafe.Pointer(&size)), 0) //nolint:gosec // there is no wrapper
	return s.meminfo[memoryDrops], errno == 0
}

func (s *udpSocket) listedDrops() (uint32, bool) {
	for _, path := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		list, err := os.ReadFile(path)
		if err != nil {
			continue // no IPv6 on this machine
		}
		if total, ok := dropsOf(list, s.inode); ok {
			return total, true
		}
	}
	return 0, false
}

// dropsOf finds the drops of the socket in a list of /proc/net/udp: the inode
// is the tenth column, the drops are the last (Linux, net/ipv4/udp.c).
func dropsOf(list, inode []byte) (drops uint32, ok bool) {
	for line := range bytes.Lines(list) {
		columns := bytes.Fields(line)
		if len(columns) < 13 || !bytes.Equal(columns[9], inode) {
			continue
		}
		drops, err := strconv.ParseUint(string(columns[len(columns)-1]), 10, 32)
		return uint32(drops), err == nil
	}
	return 0, false
}
