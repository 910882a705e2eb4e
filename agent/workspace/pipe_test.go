package workspace

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeRoom is how much a pipe holds that nobody has read, as a kernel does.
const pipeRoom = 64 << 10

// newPipe returns the two ends of a connection in memory. Unlike net.Pipe it
// has room, without which an end that gives up in a TLS handshake could not say
// so while the other end is still writing.
func newPipe() (near, far net.Conn) {
	a, b := newStream(), newStream()
	return &pipeEnd{in: a, out: b}, &pipeEnd{in: b, out: a}
}

type pipeEnd struct{ in, out *stream }

func (p *pipeEnd) Read(b []byte) (int, error)  { return p.in.read(b) }
func (p *pipeEnd) Write(b []byte) (int, error) { return p.out.write(b) }

func (p *pipeEnd) Close() error {
	p.in.set(func(s *stream) { s.gone = true })
	p.out.set(func(s *stream) { s.ended = true })
	return nil
}

func (p *pipeEnd) LocalAddr() net.Addr  { return &net.UnixAddr{Net: "memory"} }
func (p *pipeEnd) RemoteAddr() net.Addr { return &net.UnixAddr{Net: "memory"} }

func (p *pipeEnd) SetReadDeadline(t time.Time) error {
	p.in.set(func(s *stream) { s.readBy = t })
	return nil
}

func (p *pipeEnd) SetWriteDeadline(t time.Time) error {
	p.out.set(func(s *stream) { s.writeBy = t })
	return nil
}

func (p *pipeEnd) SetDeadline(t time.Time) error {
	return errors.Join(p.SetReadDeadline(t), p.SetWriteDeadline(t))
}

// A stream is one direction of a pipe.
type stream struct {
	mu              sync.Mutex
	buffer          bytes.Buffer
	ended, gone     bool // the writer, the reader has closed
	readBy, writeBy time.Time
	changed         chan struct{}
}

func newStream() *stream { return &stream{changed: make(chan struct{})} }

func (s *stream) set(change func(*stream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stream) read(b []byte) (n int, err error) {
	s.wait(&s.readBy, func(late bool) bool {
		switch {
		case s.gone:
			err = net.ErrClosed
		case s.buffer.Len() > 0:
			n, err = s.buffer.Read(b)
		case s.ended:
			err = io.EOF
		case late:
			err = os.ErrDeadlineExceeded
		default:
			return false
		}
		return true
	})
	return n, err
}

func (s *stream) write(b []byte) (n int, err error) {
	s.wait(&s.writeBy, func(late bool) bool {
		switch {
		case s.ended:
			err = net.ErrClosed
		case s.gone:
			err = io.ErrClosedPipe
		case late:
			err = os.ErrDeadlineExceeded
		default:
			part := b[n:min(len(b), n+max(0, pipeRoom-s.buffer.Len()))]
			n += len(part)
			s.buffer.Write(part)
			return n == len(b)
		}
		return true
	})
	return n, err
}

// wait calls try until it is true, whenever something has changed or the
// deadline has passed.
func (s *stream) wait(deadline *time.Time, try func(late bool) bool) {
	for {
		s.mu.Lock()
		by := *deadline
		before := s.buffer.Len()
		done := try(!by.IsZero() && !time.Now().Before(by))
		if s.buffer.Len() != before {
			close(s.changed)
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		if done {
			return
		}
		var late <-chan time.Time
		if !by.IsZero() {
			timer := time.NewTimer(time.Until(by))
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-changed:
		case <-late:
		}
	}
}
