package syslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/openloganalytics/agent/agent/source"
)

// How long a receiver that found little to read lets more gather before it
// reads again: one wake-up for many messages.
const (
	lazy  = 10 * time.Millisecond
	brisk = 2 * time.Millisecond // a Unix socket holds few messages, and its sender waits
)

const (
	fewBytes    = 16 << 10
	fewMessages = 8
)

// A receiver takes messages from one input and emits them in groups. It is for
// one goroutine.
type receiver struct {
	source  *Source
	out     source.Emitter
	thing   string
	closing context.Context //nolint:containedctx // outlives the context that ends reading
	keeps   bool            // the input keeps what is not read
	numbers bool            // the sender numbers its messages
	peer    netip.Addr      // who sends; the zero Addr on this machine

	group  *Group
	now    time.Time
	losses []source.Loss // not told yet, one of a kind

	last    uint8 // facility of the latest message
	cut     uint8 // facility of the latest message that was cut
	missing int64 // bytes of cut messages, not told yet
}

func (s *Source) receiver(closing context.Context, out source.Emitter, thing string) *receiver {
	return &receiver{source: s, out: out, thing: thing, closing: closing, group: s.group()}
}

// begin says that messages were read just now.
func (r *receiver) begin() {
	r.now = r.source.opts.Now()
	r.group.Begin(r.now)
}

// take adds a message to the group if it is wanted. The bytes must stay as
// they are until emit. An error tells of messages that were taken before.
func (r *receiver) take(msg []byte) (err error) {
	if r.group.Full(len(msg)) {
		err = r.emit()
	}
	m := r.group.next(r.peer)
	Parse(msg, r.now, time.Local, m)
	if r.numbers {
		m.Data = cutNumber(m.Data)
	}
	r.last = m.Facility
	if !r.group.Wants(m.Facility, m.Severity) {
		r.group.drop()
		return err
	}
	if m.Time.IsZero() {
		m.Time = r.now
	}
	r.group.keep(len(msg))
	return err
}

// emit hands the group over. What the spool does not take before closing ends
// is lost.
func (r *receiver) emit() error {
	if r.group.Len() == 0 {
		return nil
	}
	err := r.group.Emit(r.closing, r.out)
	switch {
	case err == nil:
	case r.closing.Err() != nil:
		r.lose("spool-full")
		err = nil
	default:
		r.lose("emit-failed")
		err = fmt.Errorf("emit syslog messages: %w", err)
	}
	r.group.Clear()
	return err
}

// finish emits what was taken and tells what was lost.
func (r *receiver) finish() error {
	err := r.emit()
	r.tell()
	return err
}

// tell tells what was lost.
func (r *receiver) tell() {
	for _, loss := range r.losses {
		r.out.Lost(loss)
	}
	r.losses = r.losses[:0]
}

// lose notes that the group is lost, by facility.
func (r *receiver) lose(reason string) {
	for n := range r.group.lanes {
		messages := r.group.lanes[n].messages
		for i := range messages {
			m := &messages[i].Message
			sum := r.loss(reason, FacilityName(m.Facility), m.Time)
			sum.Records++
			sum.Bytes += int64(len(m.Text))
			if m.Time.Before(sum.First) {
				sum.First = m.Time
			}
			if m.Time.After(sum.Last) {
				sum.Last = m.Time
			}
		}
	}
}

// loss returns the loss of a kind that is not told yet, made new at a time.
func (r *receiver) loss(reason, class string, at time.Time) *source.Loss {
	n := slices.IndexFunc(r.losses, func(l source.Loss) bool { return l.Reason == reason && l.Class == class })
	if n < 0 {
		n = len(r.losses)
		r.losses = append(r.losses, source.Loss{Reason: reason, Class: class, First: at, Last: at})
	}
	return &r.losses[n]
}

// truncated tells that bytes of messages are lost, at least so many. The
// messages are not: their records have what there is of them.
func (r *receiver) truncated(bytes int64) {
	r.out.Lost(source.Loss{Reason: "truncated", Class: FacilityName(r.cut), Bytes: bytes, First: r.now, Last: r.now})
}

// drainLimit is how long, after ctx ended, a receiver goes on to read from a
// sender that does not stop.
const drainLimit = 2 * time.Second

// draining tells whether to read on after ctx ended, at the given time. While
// reads come back full there is more that was sent before: that takes as long
// as the spool needs for it, and what it does not take is told as lost.
func draining(since time.Time, full bool) bool {
	limit := drainLimit
	if full {
		limit += stopGrace
	}
	return time.Since(since) < limit
}

// leave tells to read no more: the spool takes nothing, and what is not read
// is not lost.
func (r *receiver) leave() bool { return r.keeps && r.closing.Err() != nil }

// A stream is a pipe or a connection.
type stream interface {
	io.Reader
	SetReadDeadline(t time.Time) error
}

// stream receives from in until it ends or is silent for as long as idle, or
// until ctx ended and nothing has come for as long as quiet.
func (r *receiver) stream(ctx context.Context, in stream, f *framer, idle, quiet time.Duration) error {
	stop := context.AfterFunc(ctx, func() { r.deadline(in, 0) })
	defer stop()
	var err error
	for err == nil {
		if idle > 0 {
			r.deadline(in, idle)
		}
		if ctx.Err() != nil { // asked after the deadline was set, lest it replace that of stop
			break
		}
		n := 0
		if n, err = r.read(in, f); err == nil && n < fewBytes {
			pause(ctx, lazy)
		}
	}
	if ctx.Err() != nil && isTimeout(err) {
		err = nil
	}
	for since, full := time.Now(), true; err == nil && !r.leave() && draining(since, full); full = f.full() {
		r.deadline(in, quiet)
		_, err = r.read(in, f)
	}
	if isTimeout(err) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// read reads once and emits the messages that are complete.
func (r *receiver) read(in io.Reader, f *framer) (n int, err error) {
	n, err = in.Read(f.space())
	if failed := r.filled(f, n); failed != nil {
		return n, failed
	}
	return n, err
}

// filled emits the messages that are complete with n bytes more.
func (r *receiver) filled(f *framer, n int) error {
	f.filled(n)
	r.begin()
	var errs error
	for {
		msg, cut, ok := f.next()
		if !ok {
			break
		}
		if err := r.take(msg); err != nil {
			errs = err // all the same: they are counted as lost
		}
		if cut {
			r.cut = r.last
			if f.marked {
				r.missing++ // how many is not known: the sender did not notice
			}
		}
	}
	if r.missing += f.skipped; r.missing > 0 {
		r.truncated(r.missing)
		r.missing, f.skipped = 0, 0
	}
	return errors.Join(errs, r.finish())
}

// rest emits what the stream ended with, a message without its end.
func (r *receiver) rest(f *framer) error {
	rest := f.rest()
	if len(rest) == 0 {
		return nil
	}
	return errors.Join(r.take(rest), r.finish())
}

// datagrams receives from a Unix socket, one message in each datagram, until
// ctx ended and nothing is left. By then it keeps senders out.
func (r *receiver) datagrams(ctx context.Context, conn *net.UnixConn) error {
	socket, err := newSocket(conn)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { r.deadline(conn, 0) })
	defer stop()
	arena := make([]byte, datagramArena+maxMessage+1)
	for err == nil {
		n := 0
		if n, _, err = r.arrived(conn, socket, arena); err == nil && n < fewMessages {
			pause(ctx, brisk)
		}
	}
	if ctx.Err() == nil || !isTimeout(err) {
		return err
	}
	if err := conn.CloseRead(); err != nil {
		return fmt.Errorf("close socket for senders: %w", err)
	}
	err = nil
	empty, full := 0, true
	for since := time.Now(); err == nil && empty < maxQueue && draining(since, full); empty++ {
		r.deadline(conn, drainLimit) // nothing to wait for: senders are out
		n := 0
		if n, full, err = r.arrived(conn, socket, arena); n > 0 {
			empty = 0
		}
	}
	if isTimeout(err) {
		return nil
	}
	return err
}

const (
	// receiveBuffer is what the kernel may hold for a datagram socket, in bytes.
	receiveBuffer = 16 << 20
	// datagramArena is what is read in one go, in bytes.
	datagramArena = 256 << 10
	// maxQueue is more datagrams than a Unix socket holds. So many without a
	// byte are none at all: a socket that was closed for senders reads as empty
	// datagrams in the end.
	maxQueue = 10000
)

// arrived waits for a datagram, takes what else is there, and emits it. It
// returns how many had a message in them, and whether the arena is full, so
// that there may be more.
func (r *receiver) arrived(conn io.Reader, socket *socket, arena []byte) (count int, full bool, err error) {
	n, err := conn.Read(arena[:maxMessage+1])
	if err != nil {
		return 0, false, err
	}
	r.begin()
	for ok := true; ok; {
		if n > 0 {
			count++
			if err := r.datagram(arena[:n]); err != nil {
				return count, false, err
			}
		}
		arena = arena[n:]
		if full = len(arena) <= maxMessage; full {
			break
		}
		n, ok = socket.more(arena[:maxMessage+1])
	}
	return count, full, r.finish()
}

// datagram takes one message. One byte more than a message may have tells that
// it was longer.
func (r *receiver) datagram(msg []byte) error {
	if len(msg) <= maxMessage {
		return r.take(msg)
	}
	if err := r.take(msg[:maxMessage]); err != nil {
		return err
	}
	r.cut = r.last
	r.truncated(1)
	return nil
}

// deadline makes reads fail after d. That it cannot be set happens with a
// closed file only, where reads fail anyway.
func (r *receiver) deadline(in interface{ SetReadDeadline(time.Time) error }, d time.Duration) {
	if err := in.SetReadDeadline(time.Now().Add(d)); err != nil {
		r.source.opts.Log.Debug("cannot set a deadline", "input", r.thing, "error", err)
	}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
