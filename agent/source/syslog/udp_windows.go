package syslog

import (
	"errors"
	"net"
	"time"
)

// A udpSocket reads one datagram at a time. The system does not tell what it
// dropped.
type udpSocket struct {
	*net.UDPConn
	room   int
	gather time.Duration
	space  []byte
}

// newUDPSocket takes conn over.
func newUDPSocket(conn *net.UDPConn) (*udpSocket, error) {
	if err := conn.SetReadBuffer(receiveBuffer); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &udpSocket{UDPConn: conn, room: receiveBuffer, space: make([]byte, maxMessage)}, nil
}

// read waits for a datagram and adds it to b. It never knows that there are no more.
func (s *udpSocket) read(b *burst) (empty bool, err error) {
	n, from, err := s.ReadFromUDPAddrPort(s.space)
	if err == nil && n > 0 { // an empty datagram is no message
		b.add(s.space[:n], from.Addr().Unmap().WithZone(""))
	}
	return false, err
}

// datagramQuiet is how long nothing comes from a socket that is empty.
const datagramQuiet = 100 * time.Millisecond

// rest reads a datagram that is there, and tells whether there was none.
func (s *udpSocket) rest(b *burst) (empty bool, err error) {
	if err := s.SetReadDeadline(time.Now().Add(datagramQuiet)); err != nil {
		return true, err
	}
	_, err = s.read(b)
	if isTimeout(err) {
		return true, nil
	}
	return false, err
}

func (*udpSocket) drops() int64 { return 0 }
