// Package syslog is the source of syslog messages, as the syslog daemon hands
// them on, or as programs and devices send them.
//
// rsyslog writes into a named pipe (see handler/syslogd). It needs no port, it
// can be opened by the daemon and the agent alone, what was written stays in it
// while the agent restarts, and when it is full rsyslog keeps the messages in
// its own queue on disk. syslog-ng writes to a Unix stream socket; while nobody
// listens there it keeps the messages in a queue of its own. A Unix socket, and UDP and TCP on the loopback
// address, are there for other senders on the machine.
//
// A Listener is a source of its own: a port for other machines and appliances,
// by UDP, TCP or TLS. There is none unless the settings ask for one.
//
// Senders that can wait (pipe, Unix socket, TCP, TLS) are made to wait while
// the spool has no room. UDP is not: what does not fit is dropped and told as
// lost.
package syslog

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/internal/logfile"
)

// Options say what is received where.
type Options struct {
	// Pipe is the path of the named pipe that rsyslog writes to. A missing one
	// is made with mode 0660.
	Pipe string
	// Socket is the path of a Unix datagram socket, made anew at every start.
	// It has mode 0660 when SocketGID names the group that may write to it,
	// else 0666, as /dev/log has.
	Socket    string
	SocketGID int
	// Stream is the path of a Unix stream socket that syslog-ng writes to, made
	// anew at every start. Each message is a line.
	Stream string
	// UDP and TCP are addresses to listen on, "127.0.0.1:514". They must be
	// loopback: nobody authenticates a sender of syslog.
	UDP, TCP string

	// Selectors say which messages are wanted: those that any of them has.
	Selectors []Selector
	// Security are the same for security messages (CEF and Cisco ASA), which
	// then land in CommonSecurityLog, and never in Syslog as well. What no
	// security selector has is a message like any other.
	Security []Selector

	// Hostname is this machine's short name, for messages that name no host.
	Hostname string
	// Addresses returns this machine's addresses, the first of which is the
	// HostIP of its own messages. It is asked every five minutes.
	Addresses func() []string

	Log *logfile.Logger
	Now func() time.Time // time.Now if nil

	queue int // bytes of datagrams that wait at most; 0 is maxQueued
}

// A Source receives syslog messages.
type Source struct {
	name     string
	inputs   []input
	opts     Options
	wanted   atomic.Pointer[Selection]
	security Selection

	self   *self
	tables [laneCount]*record.Table
	levels *levels
}

// An input is one thing to receive from.
type input struct {
	thing   string // as status names it
	receive func(context.Context, *receiver) error
}

var _ source.Source = (*Source)(nil)

// New checks the options and returns the source of this machine's messages. At
// least one of the five inputs is given.
func New(o Options) (*Source, error) {
	s, err := newSource("syslog", o)
	if err != nil {
		return nil, err
	}
	if o.Pipe != "" {
		s.inputs = append(s.inputs, input{o.Pipe, s.receivePipe})
	}
	if o.Socket != "" {
		s.inputs = append(s.inputs, input{o.Socket, s.receiveSocket})
	}
	if o.Stream != "" {
		s.inputs = append(s.inputs, input{o.Stream, s.receiveStream})
	}
	for _, local := range []struct{ protocol, address string }{{UDP, o.UDP}, {TCP, o.TCP}} {
		if local.address == "" {
			continue
		}
		if err := checkLoopback(local.address); err != nil {
			return nil, fmt.Errorf("open syslog source: %w", err)
		}
		p := &port{source: s, protocol: local.protocol, network: local.protocol, address: local.address, most: maxLocal, idle: defaultIdle}
		s.inputs = append(s.inputs, input{local.protocol + " " + local.address, p.receive})
	}
	if len(s.inputs) == 0 {
		return nil, errors.New("open syslog source: nothing to receive from: give a pipe, a socket, or a UDP or TCP address")
	}
	return s, nil
}

func newSource(name string, o Options) (*Source, error) {
	wanted, err := Compile(o.Selectors)
	if err != nil {
		return nil, fmt.Errorf("open syslog source: %w", err)
	}
	security, err := Compile(o.Security)
	if err != nil {
		return nil, fmt.Errorf("open syslog source: %w", err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Source{
		name: name, opts: o, security: security, tables: newTables(), levels: newLevels(),
		self: &self{name: o.Hostname, addresses: o.Addresses, now: o.Now},
	}
	s.wanted.Store(&wanted)
	return s, nil
}

// SelectAs makes the messages wanted that other wants, at any time: nothing is
// closed and no message is lost by it.
func (s *Source) SelectAs(other *Source) { s.wanted.Store(other.wanted.Load()) }

func checkLoopback(address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read address %q: %w; write 127.0.0.1:PORT or [::1]:PORT", address, err)
	}
	if !at.Addr().IsLoopback() || at.Port() == 0 {
		return fmt.Errorf("listen on %s: only a port of a loopback address is allowed, because anybody who reaches it can write "+
			"into the log; use 127.0.0.1:PORT, or a listener for other machines", address)
	}
	return nil
}

// Name returns "syslog", and of a listener "syslog:udp:10.0.0.4:5514", with *
// for all addresses.
func (s *Source) Name() string { return s.name }

// Inputs returns what messages are received from, as status names it.
func (s *Source) Inputs() []string {
	names := make([]string, len(s.inputs))
	for i, in := range s.inputs {
		names[i] = in.thing
	}
	return names
}

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
	for _, in := range s.inputs {
		inputs.Go(func() {
			s.keep(ctx, out, in.thing, func() error { return in.receive(ctx, s.receiver(closing, out, in.thing)) })
		})
	}
	inputs.Wait()
	if err := out.Flush(closing); err != nil {
		return fmt.Errorf("flush syslog messages: %w", err)
	}
	return nil
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
	err = r.datagrams(ctx, conn)
	return errors.Join(err, conn.Close())
}
