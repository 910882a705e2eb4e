package syslog

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// Protocols of a Listener.
const (
	UDP = "udp" // one message in a datagram (RFC 5426)
	TCP = "tcp" // octet counts or line ends (RFC 6587)
	TLS = "tls" // the same, encrypted (RFC 5425)
)

// A Listener is a port on which other machines and appliances send syslog.
// Whoever reaches it can write into the log: only TLS with ClientCAFile knows
// its senders.
type Listener struct {
	Protocol string // UDP, TCP or TLS
	// Address is an IP address of this machine; empty stands for all of them.
	Address string
	Port    int

	// CertificateFile and KeyFile (PEM) are what a TLS listener shows to its
	// senders. ClientCAFile holds the authorities whose certificates senders
	// have to show; empty lets in everybody. The files are read again when they
	// change.
	CertificateFile, KeyFile, ClientCAFile string

	// MaxConnections is how many senders of TCP and TLS may be connected at a
	// time; 0 stands for 500. One more is refused.
	MaxConnections int
	// Idle is how long such a sender may be silent before it has to connect
	// again; 0 stands for 15 minutes.
	Idle time.Duration
}

const (
	defaultConnections = 500
	// maxLocal is the same for the TCP port of the loopback address.
	maxLocal    = 64
	defaultIdle = 15 * time.Minute
	// handshakeLimit is how long a sender of TLS may take to introduce itself.
	handshakeLimit = 10 * time.Second
	// tcpQuiet is how long nothing comes from a connection that is empty.
	tcpQuiet = 100 * time.Millisecond
)

// NewListener returns the source of what arrives at l. Of the options it takes
// everything but the inputs.
func NewListener(l Listener, o Options) (*Source, error) {
	p, err := l.open()
	if err != nil {
		return nil, fmt.Errorf("open syslog listener: %w", err)
	}
	shown := l.Address
	if shown == "" {
		shown = "*"
	}
	at := net.JoinHostPort(shown, strconv.Itoa(l.Port))
	s, err := newSource("syslog:"+l.Protocol+":"+at, o)
	if err != nil {
		return nil, err
	}
	p.source = s
	s.inputs = []input{{l.Protocol + " " + at, p.receive}}
	return s, nil
}

// open checks l and returns its port.
func (l *Listener) open() (*port, error) {
	p := &port{
		protocol: l.Protocol, network: "tcp", address: net.JoinHostPort(l.Address, strconv.Itoa(l.Port)),
		most: l.MaxConnections, idle: l.Idle,
	}
	switch l.Protocol {
	case UDP:
		p.network = "udp"
	case TCP:
	case TLS:
		if l.CertificateFile == "" || l.KeyFile == "" {
			return nil, errors.New("TLS needs a certificate and its key; give CertificateFile and KeyFile")
		}
		p.identity = &identity{certificate: l.CertificateFile, key: l.KeyFile, clientCA: l.ClientCAFile}
	default:
		return nil, fmt.Errorf("%q is no protocol; use udp, tcp or tls", l.Protocol)
	}
	if l.Protocol != TLS && l.CertificateFile+l.KeyFile+l.ClientCAFile != "" {
		return nil, fmt.Errorf("%s has no certificates; use tls, or leave them out", l.Protocol)
	}
	if l.Port < 1 || l.Port > 65535 {
		return nil, fmt.Errorf("%d is no port; use 1 to 65535", l.Port)
	}
	if l.Address != "" {
		ip, err := netip.ParseAddr(l.Address)
		if err != nil {
			return nil, fmt.Errorf("read address: %w; give an IP address of this machine, or none for all", err)
		}
		if ip.Is4() { // 0.0.0.0 means IPv4, and not IPv6 besides
			p.network += "4"
		}
	}
	if p.most == 0 {
		p.most = defaultConnections
	}
	if p.idle == 0 {
		p.idle = defaultIdle
	}
	return p, nil
}

// A port is what a Listener, or a loopback address, is at work.
type port struct {
	source   *Source
	protocol string
	network  string // as package net names it
	address  string
	identity *identity // of TLS
	most     int       // connections at a time
	idle     time.Duration
}

// receive receives at the port until ctx ends.
func (p *port) receive(ctx context.Context, r *receiver) error {
	if p.protocol == UDP {
		return p.receiveUDP(ctx, r)
	}
	if p.identity != nil {
		p.identity.log = p.source.opts.Log
		if _, err := p.identity.current(nil); err != nil {
			return fmt.Errorf("receive syslog: %w", err)
		}
	}
	return p.accept(ctx, r)
}

func (p *port) receiveUDP(ctx context.Context, r *receiver) error {
	address, err := net.ResolveUDPAddr(p.network, p.address)
	if err != nil {
		return fmt.Errorf("receive syslog: %w", err)
	}
	conn, err := net.ListenUDP(p.network, address)
	if err != nil {
		return fmt.Errorf("receive syslog: %w", err)
	}
	r.out.Trouble(r.thing, "")
	return r.receiveUDP(ctx, conn)
}

// accept takes connections until ctx ends, and waits for their ends.
func (p *port) accept(ctx context.Context, r *receiver) error {
	address, err := net.ResolveTCPAddr(p.network, p.address)
	if err != nil {
		return fmt.Errorf("receive syslog: %w", err)
	}
	listener, err := net.ListenTCP(p.network, address)
	if err != nil {
		return fmt.Errorf("receive syslog: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { p.close(listener) })
	defer stop()
	r.out.Trouble(r.thing, "")

	var open sync.WaitGroup
	defer open.Wait()
	slots := make(chan struct{}, p.most)
	for {
		conn, err := listener.AcceptTCP()
		if err != nil {
			p.close(listener)
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("receive syslog: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			r.out.Trouble(r.thing, fmt.Sprintf("%d senders are connected, one more was refused; allow more connections, "+
				"or let a syslog daemon gather the senders into one stream", p.most))
			p.close(conn)
			continue
		}
		open.Go(func() {
			p.converse(ctx, p.source.receiver(r.closing, r.out, r.thing), conn)
			<-slots
			r.out.Trouble(r.thing, "")
		})
	}
}

// A conversation is a connection that can be shut for writing.
type conversation interface {
	net.Conn
	CloseWrite() error
}

// converse reads one connection to its end. When ctx ends it shuts its own
// side, so that a sender who looks before it writes, as rsyslog does, stops in
// time; the connection closes when what was read is durable.
func (p *port) converse(ctx context.Context, r *receiver, raw *net.TCPConn) {
	from := raw.RemoteAddr().String()
	defer p.close(raw)
	conn, err := p.greet(ctx, raw)
	if err != nil {
		if ctx.Err() == nil {
			p.source.opts.Log.Warn("sender refused", "input", r.thing, "from", from, "error", err)
		}
		return
	}
	stop := context.AfterFunc(ctx, func() {
		if err := conn.CloseWrite(); err != nil {
			p.source.opts.Log.Debug("cannot shut a connection", "from", from, "error", err)
		}
	})
	defer stop()
	if at, ok := raw.RemoteAddr().(*net.TCPAddr); ok {
		r.peer = at.AddrPort().Addr().Unmap().WithZone("")
	}
	f := &framer{}
	err = errors.Join(r.stream(ctx, conn, f, p.idle, tcpQuiet), r.rest(f))
	if ctx.Err() != nil {
		err = errors.Join(err, r.out.Flush(r.closing))
	}
	if err != nil {
		p.source.opts.Log.Debug("connection ended", "from", from, "error", err)
	}
}

// greet makes of a new connection one that can be read.
func (p *port) greet(ctx context.Context, raw *net.TCPConn) (conversation, error) {
	if p.identity == nil {
		return raw, nil
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	below := &buffered{Conn: raw}
	conn := tls.Server(below, p.identity.config())
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return &tlsConn{conn, below}, nil
}

// close closes what nothing was written to.
func (p *port) close(c io.Closer) { p.source.close(c) }
