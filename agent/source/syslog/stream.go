package syslog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// receiveStream takes connections of syslog-ng until ctx ends. Then it shuts
// them for writing: what was written by then is read to its end and emitted, and
// what comes later syslog-ng keeps.
func (s *Source) receiveStream(ctx context.Context, r *receiver) error {
	listener, err := listenStream(s.opts.Stream)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { s.close(listener) })
	defer stop()
	r.out.Trouble(r.thing, "")

	var open sync.WaitGroup
	defer open.Wait()
	for slots := make(chan struct{}, maxLocal); ; {
		conn, err := listener.AcceptUnix()
		if err != nil {
			s.close(listener)
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("receive syslog: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			s.close(conn) // nobody needs so many
			continue
		}
		open.Go(func() {
			defer s.close(conn)
			one := s.receiver(r.closing, r.out, r.thing)
			one.numbers = true
			if err := one.lines(ctx, conn); err != nil {
				s.opts.Log.Warn("connection ended", "input", r.thing, "error", err)
			}
			<-slots
		})
	}
}

// lines receives lines until the connection ends. A line without its end is no
// message: syslog-ng sends it again, whole, with the next connection.
func (r *receiver) lines(ctx context.Context, conn *net.UnixConn) error {
	wake := context.AfterFunc(ctx, func() { r.deadline(conn, 0) })
	defer wake()
	f := &framer{}
	for ctx.Err() == nil {
		n, err := r.read(conn, f)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case isTimeout(err) && ctx.Err() != nil:
		case err != nil:
			return err
		case n < fewBytes:
			pause(ctx, lazy)
		}
	}
	return r.lastLines(conn, f)
}

// lastLines keeps syslog-ng out and reads what it has written. It does so when
// the socket has just been emptied, at the end of a line: syslog-ng forgets a
// line of which it could write a part only, and the socket was full then.
func (r *receiver) lastLines(conn *net.UnixConn, f *framer) error {
	emptied := false
	for since := time.Now(); !emptied && draining(since, false) && r.closing.Err() == nil; {
		space := f.space()
		n, err := readNow(conn, space)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if failed := r.filled(f, n); failed != nil || err != nil {
			return errors.Join(failed, err)
		}
		emptied = n < len(space) && f.whole()
		if n == 0 && !emptied {
			pause(r.closing, brisk) // the rest of a line is to come
		}
	}
	if err := errors.Join(conn.CloseRead(), conn.SetReadDeadline(time.Time{})); err != nil {
		return fmt.Errorf("keep a sender out: %w", err)
	}
	for r.closing.Err() == nil {
		if _, err := r.read(conn, f); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// close closes what nothing was written to.
func (s *Source) close(c io.Closer) {
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		s.opts.Log.Debug("cannot close", "error", err)
	}
}

// cutNumber takes [meta sequenceId="1"] off the front of structured data: that
// is how syslog-ng numbers what it sends (RFC 5424 §7.3.1).
func cutNumber(data []byte) []byte {
	rest, ok := bytes.CutPrefix(data, []byte(`[meta sequenceId="`))
	if !ok {
		return data
	}
	n := 0
	for n < len(rest) && isDigit(rest[n]) {
		n++
	}
	if n == 0 || !bytes.HasPrefix(rest[n:], []byte(`"]`)) {
		return data
	}
	return nonEmpty(rest[n+2:])
}
