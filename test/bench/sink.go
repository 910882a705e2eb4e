//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// domain is where the workspace of the benchmark lives. No resolver knows it:
// our agent reaches it through the sink's gateway.
const domain = "bench.test"

// An authority is the certificate that every sink shows: it signs itself.
type authority struct {
	file        string // PEM
	certificate tls.Certificate
}

func newAuthority(file, workspace string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", workspace + ".oms." + domain, workspace + ".ods." + domain},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return nil, err
	}
	return &authority{file, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}, nil
}

// A sink is an HTTPS server that takes whatever agents upload, in any format:
// it looks for the marks of the lines only. It plays the workspace's
// onboarding endpoint as well, and its gateway takes CONNECT for any name.
type sink struct {
	Port    string // of HTTPS
	Gateway string // URL for our agent's proxy setting
	// later keeps bodies as they are until settle, so that looking into them
	// takes no CPU from who is being measured.
	later  bool
	outage atomic.Bool // answer 503
	wire   atomic.Int64
	door   *door
	server *http.Server
	proxy  *http.Server

	mu        sync.Mutex
	held      []body
	seen      []uint64
	unique    int64
	total     int64
	requests  int64
	refused   int64
	broken    int64 // bodies that could not be read
	first     time.Time
	last      time.Time
	latencies []time.Duration
}

type body struct {
	bytes    []byte
	encoding string
	at       time.Time
}

// newSink serves at once. It knows lines up to number most.
func newSink(ca *authority, most int, later bool) (*sink, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	gateway, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &sink{later: later, seen: make([]uint64, most/64+1), Gateway: "http://" + gateway.Addr().String()}
	_, s.Port, err = net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return nil, errors.Join(err, listener.Close(), gateway.Close())
	}
	s.door = &door{Listener: listener, wire: &s.wire, ready: make(chan net.Conn), closed: make(chan struct{})}
	quiet := log.New(io.Discard, "", 0)
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	s.server = &http.Server{Handler: s, ErrorLog: quiet, Protocols: http1, ReadHeaderTimeout: time.Minute, TLSConfig: &tls.Config{
		Certificates: []tls.Certificate{ca.certificate},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if !strings.HasSuffix(hello.ServerName, domain) {
				return nil, nil
			}
			// As the service does: an agent shows its certificate.
			return &tls.Config{Certificates: []tls.Certificate{ca.certificate}, ClientAuth: tls.RequestClientCert}, nil
		},
	}}
	s.proxy = &http.Server{Handler: http.HandlerFunc(s.connect), ErrorLog: quiet, Protocols: http1, ReadHeaderTimeout: time.Minute}
	go s.door.accept()
	go func() { _ = s.server.ServeTLS(s.door, "", "") }() // ends with close
	go func() { _ = s.proxy.Serve(gateway) }()
	return s, nil
}

func (s *sink) close() { _ = errors.Join(s.proxy.Close(), s.server.Close()) }

// A door lets in connections from its listener and those that the gateway
// tunnels, and counts their bytes.
type door struct {
	net.Listener
	wire   *atomic.Int64
	ready  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (d *door) accept() {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return
		}
		d.let(c)
	}
}

func (d *door) let(c net.Conn) {
	select {
	case d.ready <- counted{c, d.wire}:
	case <-d.closed:
		_ = c.Close() // nothing was promised
	}
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.ready:
		return c, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Listener.Close()
}

type counted struct {
	net.Conn
	wire *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wire.Add(int64(n))
	return n, err
}

// connect makes a tunnel into the sink itself, whatever its end is named.
func (s *sink) connect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
		return
	}
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		_ = c.Close() // nobody is there any more
		return
	}
	s.door.let(c)
}

const topologyAnswer = `<?xml version="1.0"?><LinuxAgentTopologyResponse queryInterval="PT1H" xmlns="http://schemas.microsoft.com/WorkloadMonitoring/HealthServiceProtocol/2014/09/">` +
	`<CertificateUpdateEndpoint updateCertificate="false">https://%[1]s/ConfigurationService.Svc/RenewCertificate</CertificateUpdateEndpoint>` +
	`</LinuxAgentTopologyResponse>`

// ServeHTTP implements http.Handler.
func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := readBody(r)
	at := time.Now()
	if err != nil {
		return // cut short; the agent has to send it again
	}
	switch {
	case r.Method != http.MethodPost:
		return
	case strings.HasSuffix(r.URL.Path, "/LinuxAgentTopologyRequest"):
		fmt.Fprintf(w, topologyAnswer, r.Host)
		return
	case s.outage.Load():
		s.mu.Lock()
		s.refused++
		s.mu.Unlock()
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	s.take(body{text, r.Header.Get("Content-Encoding"), at})
	if strings.HasSuffix(r.URL.Path, "_bulk") {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"took":1,"errors":false,"items":[]}`)
	} else if kind := r.Header.Get("Content-Type"); strings.Contains(kind, "protobuf") {
		w.Header().Set("Content-Type", kind)
	}
}

func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength < 0 {
		return io.ReadAll(r.Body)
	}
	text := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, text)
	return text, err
}

func (s *sink) take(b body) {
	if !s.later {
		s.read(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.later {
		s.held = append(s.held, b)
	}
	if s.first.IsZero() {
		s.first = b.at
	}
	s.last = b.at
	s.requests++
}

// settle looks into what was held back.
func (s *sink) settle() {
	s.mu.Lock()
	held := s.held
	s.held = nil
	s.mu.Unlock()
	for _, b := range held {
		s.read(b)
	}
}

// read looks for the marks in a body.
func (s *sink) read(b body) {
	raw, err := decode(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.broken++
		return
	}
	for {
		i := bytes.Index(raw, []byte("n="))
		if i < 0 {
			return
		}
		before := byte(' ')
		if i > 0 {
			before = raw[i-1]
		}
		raw = raw[i+2:]
		n, length := digits(raw)
		if length == 0 || before != ' ' && before != ';' {
			continue
		}
		s.total++
		if word, bit := n/64, uint64(1)<<(n%64); word < int64(len(s.seen)) && s.seen[word]&bit == 0 {
			s.seen[word] |= bit
			s.unique++
		}
		raw = raw[length:]
		if len(raw) > 4 && string(raw[1:4]) == "at=" {
			written, length := digits(raw[4:])
			s.latencies = append(s.latencies, time.Duration(b.at.UnixNano()-written))
			raw = raw[4+length:]
		}
	}
}

func decode(b body) ([]byte, error) {
	var in io.Reader
	var err error
	switch {
	case strings.Contains(b.encoding, "gzip"):
		in, err = gzip.NewReader(bytes.NewReader(b.bytes))
	case strings.Contains(b.encoding, "deflate"):
		in, err = zlib.NewReader(bytes.NewReader(b.bytes))
	default:
		return b.bytes, nil
	}
	if err != nil {
		return nil, err
	}
	out := bytes.NewBuffer(make([]byte, 0, 8*len(b.bytes)+512))
	_, err = out.ReadFrom(in)
	return out.Bytes(), err
}

func digits(b []byte) (n int64, length int) {
	for length < len(b) && b[length]-'0' < 10 {
		n = n*10 + int64(b[length]-'0')
		length++
	}
	return n, length
}

// A count is what a sink has seen.
type count struct {
	Unique, Total, Requests, Refused, Wire, Broken int64
	first, last                                    time.Time
}

func (s *sink) count() count {
	s.mu.Lock()
	defer s.mu.Unlock()
	return count{s.unique, s.total, s.requests, s.refused, s.wire.Load(), s.broken, s.first, s.last}
}

// latency returns the part of the lines, 0 to 1, that took no longer.
func (s *sink) latency(part float64) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.latencies) == 0 {
		return 0
	}
	slices.Sort(s.latencies)
	return s.latencies[int(part*float64(len(s.latencies)-1))]
}
