package syslog

import (
	"context"
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
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sourcetest"
)

// listen starts a listener at the loopback address and returns where.
func listen(t *testing.T, l Listener) (address, thing string, out *sourcetest.Emitter, stop func()) {
	t.Helper()
	network := "tcp"
	if l.Protocol == UDP {
		network = "udp"
	}
	address = freePort(t, network)
	l.Address, l.Port = "127.0.0.1", int(netip.MustParseAddrPort(address).Port())
	thing = l.Protocol + " " + address
	out = emitter(thing)
	s, err := NewListener(l, Options{Selectors: everything(), Hostname: "vm"})
	if err != nil {
		t.Fatal(err)
	}
	stop = runSource(t, s, out)
	return address, thing, out, stop
}

func TestNewListenerRefuses(t *testing.T) {
	tests := []struct {
		l    Listener
		want string
	}{
		{Listener{Protocol: "relp", Port: 1}, `"relp" is no protocol`},
		{Listener{Protocol: UDP}, "0 is no port"},
		{Listener{Protocol: TCP, Port: 65536}, "65536 is no port"},
		{Listener{Protocol: TCP, Port: 1, Address: "web-01"}, "give an IP address"},
		{Listener{Protocol: TLS, Port: 1, KeyFile: "/k"}, "needs a certificate"},
		{Listener{Protocol: TCP, Port: 1, ClientCAFile: "/a"}, "tcp has no certificates"},
	}
	for _, tt := range tests {
		if _, err := NewListener(tt.l, Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("NewListener(%+v) = %v, want an error with %q", tt.l, err, tt.want)
		}
	}
}

func TestListenerNames(t *testing.T) {
	for want, l := range map[string]Listener{
		"syslog:udp:*:5514":             {Protocol: UDP, Port: 5514},
		"syslog:tcp:10.0.0.4:5514":      {Protocol: TCP, Port: 5514, Address: "10.0.0.4"},
		"syslog:tls:[2001:db8::1]:6514": {Protocol: TLS, Port: 6514, Address: "2001:db8::1", CertificateFile: "/c", KeyFile: "/k"},
	} {
		s, err := NewListener(l, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if s.Name() != want {
			t.Errorf("name %q, want %q", s.Name(), want)
		}
	}
}

// TestOrigin holds who is named as Host and HostIP.
func TestOrigin(t *testing.T) {
	own := &self{name: "vm", now: time.Now, addresses: func() []string { return []string{"10.0.0.4"} }}
	tests := []struct{ host, peer, name, ip string }{
		{"", "", "vm", "10.0.0.4"},
		{"", "127.0.0.1", "vm", "10.0.0.4"},
		{"", "10.1.0.1", "10.1.0.1", "10.1.0.1"},
		{"fw-1", "10.1.0.1", "fw-1", "10.1.0.1"},
		{"fw-1", "::1", "fw-1", unknownIP},
		{"localhost", "2001:db8::1", "localhost", "2001:db8::1"},
		{"10.9.9.9", "10.1.0.1", "10.9.9.9", "10.9.9.9"},
	}
	batch := record.NewBatch(newTable(), record.NewCompressor())
	w := newWriter(own, newLevels())
	w.begin(testNow)
	for range 2 { // the second time from memory
		for _, tt := range tests {
			var peer netip.Addr
			if tt.peer != "" {
				peer = netip.MustParseAddr(tt.peer)
			}
			w.add(batch, &Message{Host: []byte(tt.host), Time: testNow}, peer)
			if want := fmt.Sprintf(`"Host":%q,"HostIP":%q`, tt.name, tt.ip); string(w.origin) != want {
				t.Errorf("host %q of peer %q: %s, want %s", tt.host, tt.peer, w.origin, want)
			}
		}
	}
	for i := range 3 * maxOrigins {
		w.find(fmt.Appendf(nil, "made-up-%d", i), netip.Addr{})
	}
	if len(w.origins) > maxOrigins {
		t.Errorf("%d origins are remembered, want at most %d", len(w.origins), maxOrigins)
	}
}

// TestListenerLimitsConnections: one sender too many is refused, and the status
// says so until there is room again.
func TestListenerLimitsConnections(t *testing.T) {
	address, thing, out, _ := listen(t, Listener{Protocol: TCP, MaxConnections: 1})
	opened(t, out, thing)
	first := dial(t, "tcp", address)
	send(t, first, numbered(0)+"\n")
	if err := out.WaitRows(within(t), 1); err != nil {
		t.Fatal(err)
	}
	second := dial(t, "tcp", address)
	if err := out.Wait(within(t), func() bool { return strings.Contains(out.Troubles()[thing], "one more was refused") }); err != nil {
		t.Fatal(err)
	}
	if n, err := second.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("one connection too many reads %d bytes, %v; want the end", n, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	opened(t, out, thing) // the trouble is over
	send(t, dial(t, "tcp", address), numbered(1)+"\n")
	if err := out.WaitRows(within(t), 2); err != nil {
		t.Fatal(err)
	}
	checkNumbered(t, out, 2)
}

func TestSilentSenderHasToGo(t *testing.T) {
	address, thing, out, _ := listen(t, Listener{Protocol: TCP, Idle: 100 * time.Millisecond})
	opened(t, out, thing)
	if _, err := dial(t, "tcp", address).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a silent sender reads %v, want the end", err)
	}
}

// TestSenderOfTCPWaits: while the spool takes nothing the sender is held up,
// and nothing of what it has sent is lost.
func TestSenderOfTCPWaits(t *testing.T) {
	address, thing, out, stop := listen(t, Listener{Protocol: TCP})
	opened(t, out, thing)
	out.Block()
	conn := dial(t, "tcp", address)
	padding := strings.Repeat(" ", 10000)
	sent, heldUp := 0, false
	for !heldUp && sent < 100000 {
		if err := conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := io.WriteString(conn, numbered(sent)+padding+"\n")
		if heldUp = errors.Is(err, os.ErrDeadlineExceeded); heldUp {
			out.Unblock()
			if err := conn.SetWriteDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			send(t, conn, (numbered(sent) + padding + "\n")[n:])
		} else if err != nil {
			t.Fatal(err)
		}
		sent++
	}
	if !heldUp {
		t.Fatalf("%d messages of 10 KB were taken while the spool takes nothing", sent)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := out.WaitRows(within(t), sent); err != nil {
		t.Fatal(err)
	}
	stop()
	if got := len(out.Rows("Syslog")); got != sent || len(out.Losses()) > 0 {
		t.Errorf("%d rows, losses %+v; want %d and none", got, out.Losses(), sent)
	}
}

// An authority signs certificates for a test.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key = a.make(1)
	return a
}

func (a *authority) make(serial int64) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprintf("test %d", serial)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: a.cert == nil, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// write puts a new certificate and its key into the files.
func (a *authority) write(serial int64, certificate, key string) {
	a.t.Helper()
	cert, private := a.make(serial)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	a.put(key, "PRIVATE KEY", der)
	a.put(certificate, "CERTIFICATE", cert.Raw)
}

func (a *authority) put(path, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// TestTLS: records of every size arrive in order; a renewed certificate is
// shown to the next sender; a broken one is not used.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certificate, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	a := newAuthority(t)
	a.write(2, certificate, key)
	address, thing, out, stop := listen(t, Listener{Protocol: TLS, CertificateFile: certificate, KeyFile: key})
	opened(t, out, thing)
	connect := func(serial int64) *tls.Conn {
		t.Helper()
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: a.pool()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != serial {
			t.Errorf("certificate %d is shown, want %d", got, serial)
		}
		return conn
	}
	conn := connect(2)
	n := 0
	for ; n < 1000; n++ { // one record each, by octet count and by line
		if n%2 == 0 {
			send(t, conn, numbered(n)+"\n")
		} else {
			send(t, conn, fmt.Sprintf("%d %s", len(numbered(n)), numbered(n)))
		}
	}
	var many strings.Builder
	for ; n < 5000; n++ {
		many.WriteString(numbered(n) + "\n")
	}
	send(t, conn, many.String()) // records of full length
	send(t, conn, "<13>app[7]: message ")
	if err := out.WaitRows(within(t), n); err != nil {
		t.Fatal(err)
	}
	send(t, conn, fmt.Sprintf("%d\n", n)) // the other half of a message
	n++
	if err := out.WaitRows(within(t), n); err != nil {
		t.Fatal(err)
	}

	a.write(3, certificate, key)
	connect(3)
	if err := os.WriteFile(certificate, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	send(t, connect(3), numbered(n)+"\n")
	n++
	if err := out.WaitRows(within(t), n); err != nil {
		t.Fatal(err)
	}
	stop()
	if m, err := conn.Read(make([]byte, 1)); m != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after the stop the sender reads %d bytes, %v; want an orderly end", m, err)
	}
	checkNumbered(t, out.Crash(), n)
}

// TestTLSKnowsItsSenders: with authorities of senders, only their certificates
// let in; old versions of TLS do not.
func TestTLSKnowsItsSenders(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	a, senders := newAuthority(t), newAuthority(t)
	a.write(2, file("c"), file("k"))
	senders.write(3, file("sc"), file("sk"))
	a.write(4, file("oc"), file("ok")) // of an authority that is not trusted for senders
	senders.put(file("ca"), "CERTIFICATE", senders.cert.Raw)
	address, thing, out, stop := listen(t, Listener{Protocol: TLS, CertificateFile: file("c"), KeyFile: file("k"), ClientCAFile: file("ca")})
	opened(t, out, thing)
	try := func(config *tls.Config) error {
		config.RootCAs = a.pool()
		conn, err := tls.Dial("tcp", address, config)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, numbered(0)+"\n"); err != nil {
			return err
		}
		if err := conn.CloseWrite(); err != nil {
			return err
		}
		if _, err = conn.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	with := func(c, k string) []tls.Certificate {
		pair, err := tls.LoadX509KeyPair(file(c), file(k))
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{pair}
	}
	for name, config := range map[string]*tls.Config{
		"no certificate":      {},
		"another authority's": {Certificates: with("oc", "ok")},
		"TLS 1.1":             {Certificates: with("sc", "sk"), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
	} {
		if err := try(config); err == nil {
			t.Errorf("a sender with %s is let in", name)
		}
	}
	if err := try(&tls.Config{Certificates: with("sc", "sk")}); err != nil {
		t.Errorf("a sender with a certificate is refused: %v", err)
	}
	stop()
	checkNumbered(t, out, 1)
}

// TestTLSWithoutCertificate: the trouble names the file, and the listener opens
// when the file is there.
func TestTLSWithoutCertificate(t *testing.T) {
	dir := t.TempDir()
	certificate, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	_, thing, out, _ := listen(t, Listener{Protocol: TLS, CertificateFile: certificate, KeyFile: key})
	if err := out.Wait(within(t), func() bool { return strings.Contains(out.Troubles()[thing], certificate) }); err != nil {
		t.Fatal(err)
	}
	newAuthority(t).write(2, certificate, key)
	opened(t, out, thing)
}

// discard takes rows and keeps none.
type discard struct {
	source.Emitter
	batch *record.Batch
}

func (d *discard) Emit(_ context.Context, _ *record.Table, fill func(*record.Batch), _ ...source.Checkpoint) error {
	fill(d.batch)
	d.batch.Begin()
	d.batch.Cut()
	return nil
}

// TestMessagesCostNoAllocation: from a burst of datagrams of many senders to
// their rows. What is left is by burst.
func TestMessagesCostNoAllocation(t *testing.T) {
	s, err := NewListener(Listener{Protocol: UDP, Port: 5514}, Options{Selectors: everything(), Hostname: "vm", Now: func() time.Time { return testNow }})
	if err != nil {
		t.Fatal(err)
	}
	r := s.receiver(t.Context(), &discard{batch: record.NewBatch(newTable(), record.NewCompressor())}, "udp")
	var b burst
	const count = 1000
	for i := range count {
		peer := netip.AddrFrom4([4]byte{10, 1, 0, byte(i % 50)})
		b.add(fmt.Appendf(nil, "<%d>Nov 24 10:00:%02d fw-%d app[%d]: text", i%192, i%60, i%20, i), peer)
	}
	allocs := testing.AllocsPerRun(20, func() {
		if err := r.burst(&b); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > count/20 {
		t.Errorf("%v allocations for %d messages", allocs, count)
	}
}
