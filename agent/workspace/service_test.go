package workspace

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openloganalytics/agent/internal/logfile"
)

const (
	testDomain = "opinsights.test"
	omsAddress = testWorkspace + ".oms." + testDomain + ":443"
	odsAddress = testWorkspace + ".ods." + testDomain + ":443"
	dscAddress = testWorkspace + ".agentsvc.azure-automation.net:443"
)

// A service is a workspace on a network in memory, whose time is the bubble's.
// It writes down what it was asked, and answers as its handler says.
type service struct {
	t         *testing.T
	authority authority
	certs     tls.Certificate // for both names

	dir string // the client's folder
	log logBuffer

	mu        sync.Mutex
	listeners map[string]*listener
	dials     []string
	handler   http.HandlerFunc
	requests  []request
	states    []string // all that State ever said
}

// A request is one that arrived.
type request struct {
	at         time.Time
	method     string
	url        string // host, path and query
	proto      string
	header     http.Header
	body       []byte
	thumbprint string // of the client's certificate
}

// bubble runs a test in a bubble with a service in it, and holds in the end
// that the key was seen nowhere but in its file.
func bubble(t *testing.T, test func(s *service)) {
	t.Helper()
	testRSA() // takes long: outside
	synctest.Test(t, func(t *testing.T) {
		s := &service{
			t: t, authority: newAuthority(t, "Test CA"), dir: filepath.Join(t.TempDir(), testWorkspace),
			listeners: map[string]*listener{}, handler: healthy,
		}
		s.certs = s.authority.issue(t, time.Now().AddDate(-1, 0, 0), time.Now().AddDate(1, 0, 0), hostOnly(omsAddress), hostOnly(odsAddress), hostOnly(dscAddress))
		config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{s.certs}, ClientAuth: tls.RequireAnyClientCert}
		for _, address := range []string{omsAddress, odsAddress, dscAddress} {
			s.serve(tls.NewListener(s.listen(address), config), s)
		}
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		test(s)
		s.checkKeyIsNowhere()
	})
}

// A logBuffer keeps what is logged from any goroutine.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(line)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func hostOnly(address string) string { return strings.TrimSuffix(address, ":443") }

// healthy answers as a workspace does that takes everything.
func healthy(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/AgentService.svc/") {
		w.Header().Set("Content-Type", "application/xml; charset=utf-8")
		// A client that went away shows up in the client.
		_, _ = io.WriteString(w, topologyAnswer)
	}
}

// status answers with one status, and a body.
func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

func (s *service) answer(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = h
}

// ServeHTTP implements http.Handler.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A body that breaks off is one of the faults that tests make.
	body, _ := io.ReadAll(r.Body)
	leaf := r.TLS.PeerCertificates[0]
	s.mu.Lock()
	s.requests = append(s.requests, request{
		at: time.Now(), method: r.Method, url: r.Host + r.URL.RequestURI(), proto: r.Proto, header: r.Header.Clone(), body: body,
		thumbprint: (&identity{certificate: tls.Certificate{Leaf: leaf}}).thumbprint(),
	})
	handler := s.handler
	s.mu.Unlock()
	handler(w, r)
}

// seen returns the requests so far whose URL holds part.
func (s *service) seen(part string) []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.requests), func(r request) bool { return !strings.Contains(r.url, part) })
}

// serve serves connections until the test ends.
func (s *service) serve(l net.Listener, h http.Handler) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Hour, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	s.t.Cleanup(func() {
		if err := server.Close(); err != nil {
			s.t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			s.t.Error(err)
		}
		time.Sleep(time.Second) // which the server gives a connection to end in
	})
}

// client returns a client of the service that logs into s.log.
func (s *service) client(change ...func(*Options)) *Client {
	s.t.Helper()
	logger, closer, err := logfile.Open(logfile.Options{Mirror: &s.log, Level: logfile.LevelDebug})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := closer.Close(); err != nil {
			s.t.Error(err)
		}
	})
	o := Options{
		ID: testWorkspace, Domain: testDomain, Dir: s.dir, KeyFile: s.keyFile(), Host: testHost(),
		RootCAs: s.authority.pool(), Dial: s.dial, Log: logger,
	}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	c.o.OnChange = func() {
		state, cause, message, _ := c.State()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.states = append(s.states, state+" "+cause+" "+message)
	}
	return c
}

// run starts the client's life and returns what ends it, which the test's end
// does as well.
func (s *service) run(c *Client) (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(stop)
	synctest.Wait()
	return stop
}

func (s *service) keyFile() string { return filepath.Join(s.dir, "workspace.key") }

func (s *service) writeKey(key string) {
	s.t.Helper()
	if err := os.WriteFile(s.keyFile()+".new", []byte(key+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.keyFile()+".new", s.keyFile()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) keyIsThere() bool {
	_, err := os.Stat(s.keyFile())
	return !errors.Is(err, fs.ErrNotExist)
}

// saveIdentity spares the client the making of a key.
func (s *service) saveIdentity() *identity {
	s.t.Helper()
	id := testIdentity(s.t, time.Now())
	if err := id.save(s.dir); err != nil {
		s.t.Fatal(err)
	}
	return id
}

// saveOnboarded makes the client one that was onboarded before.
func (s *service) saveOnboarded() *identity {
	s.t.Helper()
	id := s.saveIdentity()
	r := &registration{Thumbprint: id.thumbprint(), Domain: testDomain, OnboardedAt: time.Now().AddDate(0, 0, -7)}
	if err := r.save(s.dir); err != nil {
		s.t.Fatal(err)
	}
	return id
}

// wantState fails the test unless the client's state is as said.
func wantState(t *testing.T, c *Client, state string, cause Cause) {
	t.Helper()
	synctest.Wait()
	gotState, gotCause, message, _ := c.State()
	if gotState != state || gotCause != string(cause) {
		t.Errorf("state %q, cause %q (%s), want %q, %q", gotState, gotCause, message, state, cause)
	}
	if (message == "") != (cause == "") {
		t.Errorf("cause %q with message %q", gotCause, message)
	}
}

// checkKeyIsNowhere looks for the key, as text and as bytes, in all that left
// the client and all that it wrote.
func (s *service) checkKeyIsNowhere() {
	raw, err := base64.StdEncoding.DecodeString(testKey)
	if err != nil {
		s.t.Fatal(err)
	}
	check := func(where, text string) {
		if strings.Contains(text, testKey) || strings.Contains(text, string(raw)) {
			s.t.Errorf("the key is in %s", where)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	check("the log", s.log.String())
	check("a state", strings.Join(s.states, "\n"))
	for _, r := range s.requests {
		check("a URL", r.url)
		check("a body", string(r.body))
		for name, values := range r.header {
			check("the header "+name, strings.Join(values, "\n"))
		}
	}
	err = filepath.WalkDir(s.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path == s.keyFile() {
			return err
		}
		text, err := os.ReadFile(path)
		check(path, string(text))
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
}

// A listener accepts connections that dial makes.
type listener struct {
	address string
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (s *service) listen(address string) *listener {
	l := &listener{address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners[address] = l
	return l
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.address, Net: "memory"} }

// dial is Options.Dial.
func (s *service) dial(ctx context.Context, _, address string) (net.Conn, error) {
	s.mu.Lock()
	s.dials = append(s.dials, address)
	s.mu.Unlock()
	return s.connect(ctx, address)
}

func (s *service) connect(ctx context.Context, address string) (net.Conn, error) {
	s.mu.Lock()
	l := s.listeners[address]
	s.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errRefused)}
	}
	near, far := newPipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// An authority issues server certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string, hosts ...string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: hosts, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().AddDate(-20, 0, 0), NotAfter: time.Now().AddDate(20, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{certificate, key}
}

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

func (a authority) issue(t *testing.T, from, to time.Time, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: names, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
