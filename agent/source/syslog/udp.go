package syslog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/source"
)

// UDP is read by one goroutine and emitted by another, with a queue of bursts
// between them: while the spool syncs or is full, the socket is read on, because
// the kernel's own buffer is small where nobody has raised net.core.rmem_max.
// When the queue is full its oldest burst is lost.
const (
	// burstSize is when a burst is passed on, in bytes of messages.
	burstSize = 256 << 10
	// maxQueued is how much waits at most, in bytes.
	maxQueued = 32 << 20
	// spareBursts are kept for use again.
	spareBursts = 4
)

// A burst is datagrams that were read one after the other.
type burst struct {
	bytes []byte
	ends  []int // of each datagram in bytes
	peers []netip.Addr
}

// add appends a datagram.
func (b *burst) add(msg []byte, peer netip.Addr) {
	b.bytes = append(b.bytes, msg...)
	b.ends = append(b.ends, len(b.bytes))
	b.peers = append(b.peers, peer)
}

// join appends the datagrams of another burst.
func (b *burst) join(other *burst) {
	before := len(b.bytes)
	b.bytes = append(b.bytes, other.bytes...)
	for _, end := range other.ends {
		b.ends = append(b.ends, before+end)
	}
	b.peers = append(b.peers, other.peers...)
}

// size is what it takes in memory, in bytes.
func (b *burst) size() int {
	const each = 32 // an end and a peer
	return len(b.bytes) + each*len(b.ends)
}

// receiveUDP receives from conn until ctx ended and what had come by then is
// emitted, and closes it.
func (r *receiver) receiveUDP(ctx context.Context, conn *net.UDPConn) error {
	socket, err := newUDPSocket(conn)
	if err != nil {
		return err
	}
	if socket.room < receiveBuffer {
		r.source.opts.Log.Info("the system allows a small receive buffer only; for bursts raise net.core.rmem_max",
			"input", r.thing, "bytes", socket.room, "wanted", receiveBuffer)
	}
	// reading ends with ctx, or when what was read cannot be emitted.
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(reading, func() { r.deadline(socket, 0) })
	defer stop()

	q := newBurstQueue(cmp.Or(r.source.opts.queue, maxQueued))
	var emitting sync.WaitGroup
	var failed error
	emitting.Go(func() {
		for b := q.take(); b != nil; b = q.take() {
			if err := r.burst(b); err != nil && failed == nil {
				failed = err
				cancel()
			}
			q.keep(b)
		}
	})
	err = r.readUDP(reading, socket, q)
	if ctx.Err() != nil {
		err = errors.Join(err, r.drainUDP(socket, q))
	}
	q.close()
	emitting.Wait()
	return errors.Join(err, failed, socket.Close())
}

// readUDP fills the queue until ctx ends, which ends the deadline of reads.
func (r *receiver) readUDP(ctx context.Context, socket *udpSocket, q *burstQueue) error {
	for {
		b := q.next()
		empty, err := socket.read(b)
		if failed := r.pass(b, socket, q); failed != nil {
			return failed
		}
		switch {
		case isTimeout(err):
			return nil
		case err != nil:
			return fmt.Errorf("receive syslog: %w", err)
		case empty:
			pause(ctx, socket.gather)
		}
	}
}

// drainUDP takes what came before the stop: as much as the kernel's buffer can
// have held then. What comes meanwhile from a sender that does not stop is taken
// for as long as a drain may last.
func (r *receiver) drainUDP(socket *udpSocket, q *burstQueue) error {
	held := 2 * socket.room // the kernel doubles what it is asked for
	for since, empty := time.Now(), false; !empty && draining(since, held > 0); {
		b := q.next()
		var err error
		empty, err = socket.rest(b)
		held -= len(b.bytes)
		if failed := r.pass(b, socket, q); failed != nil {
			return failed
		}
		if err != nil {
			return fmt.Errorf("receive syslog: %w", err)
		}
	}
	return nil
}

// pass puts a burst into the queue, and tells what the kernel dropped.
func (r *receiver) pass(b *burst, socket *udpSocket, q *burstQueue) error {
	if drops := socket.drops(); drops > 0 {
		now := r.source.opts.Now()
		r.out.Lost(source.Loss{Reason: "socket-buffer-full", Records: drops, First: now, Last: now})
	}
	return r.enqueue(b, q)
}

// enqueue puts a burst into the queue, and tells what is lost for it.
func (r *receiver) enqueue(b *burst, q *burstQueue) error {
	var errs error
	for !q.put(b) {
		errs = errors.Join(errs, r.loseOldest(q))
	}
	return errs
}

// loseOldest takes a burst off the queue, for which the spool had no room in
// all the time that the queue lasts, and emits it without waiting: what the
// spool does not take now is counted as lost.
func (r *receiver) loseOldest(q *burstQueue) error {
	b, _ := q.oldest()
	if b == nil {
		return nil // it has just been taken to be emitted
	}
	over, cancel := context.WithCancel(r.closing)
	cancel()
	err := r.source.receiver(over, r.out, r.thing).burst(b)
	q.keep(b)
	return err
}

// A burstQueue holds bursts of at most limit bytes.
type burstQueue struct {
	limit int
	spare chan *burst
	wake  chan struct{} // something was put in, or the queue was closed

	mu      sync.Mutex
	waiting []*burst
	used    int // of waiting
	closed  bool
}

func newBurstQueue(limit int) *burstQueue {
	return &burstQueue{limit: limit, spare: make(chan *burst, spareBursts), wake: make(chan struct{}, 1)}
}

// next returns an empty burst.
func (q *burstQueue) next() *burst {
	select {
	case b := <-q.spare:
		b.bytes, b.ends, b.peers = b.bytes[:0], b.ends[:0], b.peers[:0]
		return b
	default:
		return &burst{}
	}
}

// put adds a burst unless there is no room for it. Small ones are joined, so
// that the room is for messages.
func (q *burstQueue) put(b *burst) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	size, last := b.size(), len(q.waiting)-1
	switch {
	case len(b.ends) == 0:
		q.keep(b)
		return true
	case len(q.waiting) > 0 && q.used+size > q.limit:
		return false
	case last >= 0 && len(q.waiting[last].bytes)+len(b.bytes) <= burstSize:
		q.waiting[last].join(b)
		q.keep(b)
	default:
		q.waiting = append(q.waiting, b)
	}
	q.used += size
	q.signal()
	return true
}

// take waits for the oldest burst, and returns nil when the queue is closed
// and empty.
func (q *burstQueue) take() *burst {
	for {
		b, closed := q.oldest()
		if b != nil || closed {
			return b
		}
		<-q.wake
	}
}

// oldest takes the oldest burst out, nil when there is none.
func (q *burstQueue) oldest() (b *burst, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return nil, q.closed
	}
	b, q.waiting = q.waiting[0], q.waiting[1:]
	q.used -= b.size()
	return b, q.closed
}

func (q *burstQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

func (q *burstQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// keep keeps a burst for use again, unless there are enough or it is too large.
func (q *burstQueue) keep(b *burst) {
	if cap(b.bytes) > 2*burstSize {
		return
	}
	select {
	case q.spare <- b:
	default:
	}
}

// burst emits the messages of a burst.
func (r *receiver) burst(b *burst) error {
	r.begin()
	start := 0
	var errs error
	for i, end := range b.ends {
		r.peer = b.peers[i]
		if err := r.take(b.bytes[start:end]); err != nil {
			errs = err // all the same: they are counted as lost
		}
		start = end
	}
	return errors.Join(errs, r.finish())
}
