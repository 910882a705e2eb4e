// Package syslog is the source of syslog messages, as the syslog daemon hands
// them on, or as programs and devices send them.
//
// rsyslog writes into a named pipe (see handler/rsyslog). It needs no port, it
// can be opened by the daemon and the agent alone, what was written stays in it
// while the agent restarts, and when it is full rsyslog keeps the messages in
// its own queue on disk. A Unix socket, and UDP and TCP on the loopback
// address, are there for other senders.
//
// Senders that can wait (pipe, Unix socket, TCP) are made to wait while the
// spool has no room. UDP is not: what does not fit is dropped, oldest first,
// and told as lost.
package syslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/internal/logfile"
)

// Options say what is received where. At least one of the four inputs is given.
type Options struct {
	// Pipe is the path of the named pipe that rsyslog writes to. A missing one
	// is made with mode 0660.
	Pipe string
	// Socket is the path of a Unix datagram socket, made anew at every start.
	// It has mode 0660 when SocketGID names the group that may write to it,
	// else 0666, as /dev/log has.
	Socket    string
	SocketGID int
	// UDP and TCP are addresses to listen on, "127.0.0.1:514". They must be
	// loopback: nobody authenticates a sender of syslog.
	UDP, TCP string

	// Selectors say which messages are wanted: those that any of them has.
	Selectors []Selector

	// Hostname is this machine's short name, for messages that name no host.
	Hostname string
	// Addresses returns this machine's addresses, the first of which is the
	// HostIP of its own messages. It is asked every five minutes.
	Addresses func() []string

	Log *logfile.Logger
	Now func() time.Time // time.Now if nil
}

// A Source receives syslog messages.
type Source struct {
	opts   Options
	wanted Selection
	self   *self
	table  *record.Table
}

var _ source.Source = (*Source)(nil)

// New checks the options and returns the source.
func New(o Options) (*Source, error) {
	wanted, err := Compile(o.Selectors)
	if err != nil {
		return nil, fmt.Errorf("open syslog source: %w", err)
	}
	for _, address := range []string{o.UDP, o.TCP} {
		if err := checkLoopback(address); err != nil {
			return nil, fmt.Errorf("open syslog source: %w", err)
		}
	}
	if o.Pipe == "" && o.Socket == "" && o.UDP == "" && o.TCP == "" {
		return nil, errors.New("open syslog source: nothing to receive from: give a pipe, a socket, or a UDP or TCP address")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Source{
		opts: o, wanted: wanted, table: newTable(),
		self: &self{name: o.Hostname, addresses: o.Addresses, now: o.Now},
	}, nil
}

func checkLoopback(address string) error {
	if address == "" {
		return nil
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read address %q: %w; write 127.0.0.1:PORT or [::1]:PORT", address, err)
	}
	if !at.Addr().IsLoopback() || at.Port() == 0 {
		return fmt.Errorf("listen on %s: only a port of a loopback address is allowed, because anybody who reaches it can write "+
			"into the log; use 127.0.0.1:PORT, and let rsyslog receive from other machines", address)
	}
	return nil
}

// Name returns "syslog".
func (s *Source) Name() string { return "syslog" }

// stopGrace is how long, after ctx ended, the spool may take to accept what
// was received before.
const stopGrace = 10 * time.Second

// Run receives until ctx ends. Then it takes no more, emits what was sent
// before, and returns when that is durable.
func (s *Source) Run(ctx context.Context, out source.Emitter) error {
	// closing ends a while after ctx, for what is still to be emitted.
	closing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(stopGrace, cancel) })
	defer stop()

	var inputs sync.WaitGroup
	start := func(thing string, receive func(context.Context, *receiver) error) {
		if thing == "" {
			return
		}
		inputs.Go(func() {
			s.keep(ctx, out, thing, func() error { return receive(ctx, s.receiver(closing, out, thing)) })
		})
	}
	start(s.opts.Pipe, s.receivePipe)
	start(s.opts.Socket, s.receiveSocket)
	start(label("udp", s.opts.UDP), s.receiveUDP)
	start(label("tcp", s.opts.TCP), s.receiveTCP)
	inputs.Wait()
	if err := out.Flush(closing); err != nil {
		return fmt.Errorf("flush syslog messages: %w", err)
	}
	return nil
}

// label names a network address as status shows it.
func label(network, address string) string {
	if address == "" {
		return ""
	}
	return network + " " + address
}

// Waits between two attempts to open an input, doubled from the first to the last.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// keep receives from one input until ctx ends, and tries again when that
// fails. receive clears the trouble once it is open.
func (s *Source) keep(ctx context.Context, out source.Emitter, thing string, receive func() error) {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := receive()
		if ctx.Err() != nil {
			if err != nil {
				s.opts.Log.Warn("stopped receiving with an error", "input", thing, "error", err)
			}
			return
		}
		out.Trouble(thing, fmt.Sprintf("%v; the agent goes on trying", err))
		pause(ctx, wait)
	}
}

// receivePipe reads the pipe. It is open for writing too: then it has no end,
// and what is in it stays when rsyslog restarts.
func (s *Source) receivePipe(ctx context.Context, r *receiver) error {
	pipe, err := openPipe(s.opts.Pipe)
	if err != nil {
		return err
	}
	r.out.Trouble(r.thing, "")
	r.keeps = true
	f := &framer{marked: true}
	if err = r.stream(ctx, pipe, f, 0, pipeQuiet); ctx.Err() != nil {
		if !r.leave() {
			err = errors.Join(err, r.leavePlugged(pipe, f))
		}
	}
	return errors.Join(err, r.rest(f), pipe.Close())
}

// leavePlugged takes what is left in the pipe and leaves it full.
func (r *receiver) leavePlugged(pipe *os.File, f *framer) error {
	const attempts = 100
	for range attempts {
		before, err := plug(pipe)
		if err == nil {
			for len(before) > 0 {
				n := copy(f.space(), before)
				before = before[n:]
				if err := r.filled(f, n); err != nil {
					return err
				}
			}
			return nil
		}
		r.deadline(pipe, pipeQuiet)
		if _, err := r.read(pipe, f); err != nil && !isTimeout(err) {
			return err
		}
	}
	r.source.opts.Log.Info("rsyslog writes too fast for the pipe to be filled; what it writes now waits there", "pipe", r.thing)
	return nil
}

// pipeQuiet is how long nothing comes from a pipe that is empty.
const pipeQuiet = 20 * time.Millisecond

func (s *Source) receiveSocket(ctx context.Context, r *receiver) error {
	conn, err := listenUnix(s.opts.Socket, s.opts.SocketGID)
	if err != nil {
		return err
	}
	r.out.Trouble(r.thing, "")
	err = r.datagrams(ctx, conn, brisk, conn.CloseRead)
	return errors.Join(err, conn.Close())
}

// udpPatience is how long UDP messages wait for room in the spool.
const udpPatience = 2 * time.Second

func (s *Source) receiveUDP(ctx context.Context, r *receiver) error {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(s.opts.UDP)))
	if err != nil {
		return fmt.Errorf("receive syslog: %w", err)
	}
	r.out.Trouble(r.thing, "")
	r.patience = udpPatience
	err = r.datagrams(ctx, conn, lazy, nil)
	return errors.Join(err, conn.Close())
}

const (
	maxConnections = 64
	// idleConnection is how long a TCP sender may be silent before it has to
	// connect again.
	idleConnection = 15 * time.Minute
	// tcpQuiet is how long nothing comes from a connection that is empty.
	tcpQuiet = 100 * time.Millisecond
)

func (s *Source) receiveTCP(ctx context.Context, r *receiver) error {
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s.opts.TCP)))
	if err != nil {
		return fmt.Errorf("receive syslog: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { s.close(listener) })
	defer stop()
	r.out.Trouble(r.thing, "")

	var open sync.WaitGroup
	defer open.Wait()
	slots := make(chan struct{}, maxConnections)
	for {
		conn, err := listener.AcceptTCP()
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
			r.out.Trouble(r.thing, fmt.Sprintf("%d senders are connected, one more was refused; "+
				"let them send to rsyslog, which hands all messages on in one stream", maxConnections))
			s.close(conn)
			continue
		}
		open.Go(func() {
			s.receiveConn(ctx, s.receiver(r.closing, r.out, r.thing), conn)
			<-slots
			r.out.Trouble(r.thing, "")
		})
	}
}

// receiveConn reads one connection. When ctx ends it shuts its own side, so
// that a sender who looks before it writes, as rsyslog does, stops in time.
func (s *Source) receiveConn(ctx context.Context, r *receiver, conn *net.TCPConn) {
	defer s.close(conn)
	stop := context.AfterFunc(ctx, func() {
		if err := conn.CloseWrite(); err != nil {
			s.opts.Log.Debug("cannot shut a connection", "from", conn.RemoteAddr().String(), "error", err)
		}
	})
	defer stop()
	f := &framer{}
	if err := errors.Join(r.stream(ctx, conn, f, idleConnection, tcpQuiet), r.rest(f)); err != nil {
		s.opts.Log.Debug("connection ended", "from", conn.RemoteAddr().String(), "error", err)
	}
}

// close closes what nothing was written to.
func (s *Source) close(c io.Closer) {
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		s.opts.Log.Debug("cannot close", "error", err)
	}
}
