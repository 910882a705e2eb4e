package syslog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
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
	shut := context.AfterFunc(ctx, func() {
		if err := conn.CloseRead(); err != nil {
			r.source.opts.Log.Debug("cannot shut a connection", "input", r.thing, "error", err)
		}
	})
	defer shut()
	f := &framer{}
	for {
		n, err := r.read(conn, f)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case r.closing.Err() != nil:
			return nil
		case n < fewBytes:
			pause(ctx, lazy)
		}
	}
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
