package syslog

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/logfile"
)

// An identity is the certificate that a listener shows, and the authorities
// that its senders need. Both are renewed by others: the files are looked at
// again for each new connection.
type identity struct {
	certificate, key, clientCA string // paths, PEM
	log                        *logfile.Logger

	mu    sync.Mutex
	seen  [3]stamp
	valid *tls.Config // made from the files as seen
}

// A stamp tells one writing of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

// config is for tls.Server.
func (i *identity) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: i.current}
}

// current returns the configuration that the files now say. While they are
// being replaced, or are broken, the one before stays in force.
func (i *identity) current(*tls.ClientHelloInfo) (*tls.Config, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	seen := i.stamps()
	if i.valid != nil && seen == i.seen {
		return i.valid, nil
	}
	fresh, err := i.load()
	switch {
	case err == nil:
		i.valid = fresh
	case i.valid == nil:
		return nil, err
	default:
		i.log.Warn("new certificate files are not used; the ones before stay in force", "error", err)
	}
	i.seen = seen
	return i.valid, nil
}

func (i *identity) stamps() (all [3]stamp) {
	for n, path := range []string{i.certificate, i.key, i.clientCA} {
		if info, err := os.Stat(path); err == nil { // a missing file is load's to tell
			all[n] = stamp{info.ModTime(), info.Size()}
		}
	}
	return all
}

// certificateLimit is more than any chain or list of authorities takes.
const certificateLimit = 1 << 20

func (i *identity) load() (*tls.Config, error) {
	certificate, err := readForTLS("certificate", i.certificate)
	if err != nil {
		return nil, err
	}
	key, err := readForTLS("private key", i.key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("use certificate %s with key %s: %w", i.certificate, i.key, err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if i.clientCA == "" {
		return config, nil
	}
	authorities, err := readForTLS("authorities of senders", i.clientCA)
	if err != nil {
		return nil, err
	}
	config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !config.ClientCAs.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("read authorities of senders: %s holds no PEM certificate", i.clientCA)
	}
	return config, nil
}

func readForTLS(what, path string) ([]byte, error) {
	data, err := atomicfile.ReadLimited(path, certificateLimit)
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("read %s: %w; the agent's user has to be able to read it", what, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return data, nil
}

// A tlsConn reads all that has come, as a read of TCP does, and not one record
// alone: senders make a record of each message.
type tlsConn struct {
	*tls.Conn
	below *buffered
}

func (c *tlsConn) Read(p []byte) (n int, err error) {
	n, err = c.Conn.Read(p)
	c.below.only = true
	defer func() { c.below.only = false }()
	for err == nil && n < len(p) {
		m := 0
		m, err = c.Conn.Read(p[n:])
		n += m
	}
	if n > 0 {
		err = nil // it comes again
	}
	return n, err
}

// tlsBuffer is what is read below TLS at a time, in bytes: a record of full length.
const tlsBuffer = 17 << 10

// A buffered connection is the one below TLS.
type buffered struct {
	net.Conn
	only bool // what is in the buffer; the connection is not waited for
	buf  []byte
	rest []byte // of buf
}

func (b *buffered) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		if b.only {
			return 0, os.ErrDeadlineExceeded // TLS goes on after it
		}
		if b.buf == nil {
			b.buf = make([]byte, tlsBuffer)
		}
		n, err := b.Conn.Read(b.buf)
		if n <= 0 {
			return 0, err
		}
		b.rest = b.buf[:n]
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}
