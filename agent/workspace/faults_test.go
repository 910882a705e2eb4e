package workspace

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/upload"
)

// TestU02RequestCutAnywhere cuts the connection after each count of bytes that
// the client sends: nothing is accepted that was not sent whole.
func TestU02RequestCutAnywhere(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		s.saveOnboarded()
		c := s.client()
		s.run(c)
		var written, limit atomic.Int64
		c.transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := s.dial(ctx, network, address)
			return &shortConn{Conn: conn, written: &written, limit: &limit}, err
		}
		limit.Store(1 << 30)
		if got := c.Send(t.Context(), testBatch()); got.Answer != upload.Accepted {
			t.Fatalf("%+v", got)
		}
		synctest.Wait()
		whole := written.Load()
		taken := len(s.seen(uploadPath))
		for n := int64(0); n < whole-100; n += 37 { // the handshake's own length varies by a few bytes
			c.transport.CloseIdleConnections()
			written.Store(0)
			limit.Store(n)
			if got := c.Send(t.Context(), testBatch()); got.Answer != upload.Retry || got.Code != string(ConnectionLost) {
				t.Errorf("cut after %d of %d bytes: %+v", n, whole, got)
			}
		}
		for _, r := range s.seen(uploadPath)[taken:] {
			if bytes.Equal(r.body, testBatch().Body) {
				t.Error("a whole request arrived although it was cut")
			}
		}
	})
}

// A shortConn ends once so many bytes were written.
type shortConn struct {
	net.Conn
	written, limit *atomic.Int64
}

func (c *shortConn) Write(b []byte) (int, error) {
	left := max(0, c.limit.Load()-c.written.Load())
	n, err := c.Conn.Write(b[:min(int64(len(b)), left)])
	c.written.Add(int64(n))
	if err == nil && n < len(b) {
		err = errors.Join(io.ErrClosedPipe, c.Close())
	}
	return n, err
}

// TestU10UploadsAreNotTrustedToStrangers: whoever does not prove to be the
// service gets no data; the state says whom that is from and until when, and
// what waited is accepted once the service is back.
func TestU10UploadsAreNotTrustedToStrangers(t *testing.T) {
	year := func(n int) time.Time { return time.Now().AddDate(n, 0, 0) }
	host := hostOnly(odsAddress)
	tests := []struct {
		name  string
		serve func(s *service, l net.Listener)
		cause Cause
		says  []string
	}{
		{"expired", func(s *service, l net.Listener) {
			s.serveTLS(l, s.authority.issue(s.t, year(-2), year(-1), host), 0)
		}, TLSExpired, []string{"Test CA", "1999-01-01"}},
		{"another name", func(s *service, l net.Listener) {
			s.serveTLS(l, s.authority.issue(s.t, year(-1), year(1), "evil.example"), 0)
		}, TLSName, []string{"Test CA", "2001-01-01"}},
		{"an inspecting proxy's authority", func(s *service, l net.Listener) {
			s.serveTLS(l, newAuthority(s.t, "Corp Inspection CA").issue(s.t, year(-1), year(1), host), 0)
		}, TLSUntrusted, []string{"Corp Inspection CA", "2001-01-01", "trust store"}},
		{"self-signed", func(s *service, l net.Listener) {
			self := newAuthority(s.t, "Self", host)
			s.serveTLS(l, tls.Certificate{Certificate: [][]byte{self.certificate.Raw}, PrivateKey: self.key}, 0)
		}, TLSUntrusted, []string{"Self"}},
		{"TLS 1.1", func(s *service, l net.Listener) { s.serveTLS(l, s.certs, tls.VersionTLS11) }, TLSProtocol, []string{"1.2"}},
		{"no TLS", func(s *service, l net.Listener) { s.serve(l, http.NotFoundHandler()) }, TLSProtocol, []string{"not with TLS"}},
		{"silence", func(s *service, l net.Listener) { s.swallow(l) }, Timeout, []string{host}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(s *service) {
				t := s.t
				s.saveOnboarded()
				good := s.listeners[odsAddress]
				tt.serve(s, s.listen(odsAddress))
				c := s.client()
				s.run(c)
				got := c.Send(t.Context(), testBatch())
				if got.Answer != upload.Retry || got.Code != string(tt.cause) || len(s.seen("")) != 0 {
					t.Errorf("%+v after %d requests, want Retry with %s", got, len(s.seen("")), tt.cause)
				}
				wantState(t, c, "unreachable", tt.cause)
				for _, text := range tt.says {
					if !strings.Contains(got.Why, text) {
						t.Errorf("%q does not say %q", got.Why, text)
					}
				}
				s.mu.Lock()
				s.listeners[odsAddress] = good
				s.mu.Unlock()
				if got := c.Send(t.Context(), testBatch()); got.Answer != upload.Accepted {
					t.Errorf("from the service itself: %+v", got)
				}
			})
		})
	}
}

// TestU11ClockSkew: a clock that is off by up to years is learned and told; what
// is signed has the service's time. When it is off by more than the server's
// certificate is valid nothing is sent, the state names the clock, and all is
// well once the clock is.
func TestU11ClockSkew(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		skew   time.Duration
		trust  bool // the server's certificate is valid by the wrong clock
		learns bool
	}{
		{20 * time.Minute, true, true},
		{-20 * time.Minute, true, true},
		{10 * day, true, true},
		{-10 * day, true, true},
		{300 * day, true, true},
		{-300 * day, true, true},
		{3650 * day, false, false},
		{-3650 * day, false, false},
	} {
		t.Run(tt.skew.String(), func(t *testing.T) {
			bubble(t, func(s *service) {
				t := s.t
				var skew atomic.Int64
				skew.Store(int64(tt.skew))
				s.answer(strict)
				s.writeKey(testKey)
				c := s.client(func(o *Options) { o.Clock = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) } })
				s.run(c)
				state, cause, message, _ := c.State()
				if tt.trust && (state != "rejected" || cause != string(ClockSkew)) || !strings.Contains(message, "clock") || !s.keyIsThere() {
					t.Errorf("at first: %s, %s: %s", state, cause, message)
				}
				if n := len(s.seen("")); !tt.trust && n != 0 {
					t.Errorf("%d requests to a server that could not be verified", n)
				}
				if !tt.learns {
					skew.Store(0)
				}
				time.Sleep(5 * time.Second)
				wantState(t, c, "connected", "")
				if got := time.Until(c.now()).Abs(); got > 2*time.Second {
					t.Errorf("the service's time is off by %v", got)
				}
				if n := strings.Count(s.log.String(), "clock is wrong"); tt.learns && n != 1 {
					t.Errorf("the clock was warned of %d times", n)
				}
			})
		})
	}
}

// strict answers as the service does that wants its own time.
func strict(w http.ResponseWriter, r *http.Request) {
	date, err := time.Parse(time.RFC3339Nano, r.Header.Get("x-ms-Date"))
	if err != nil || time.Since(date).Abs() > maxSkew || time.Now().Before(r.TLS.PeerCertificates[0].NotBefore) {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	healthy(w, r)
}

// TestU13EnvironmentNamesNoProxy: without a proxy setting the way is direct,
// whatever the environment says.
func TestU13EnvironmentNamesNoProxy(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"} {
		t.Setenv(name, "http://environment.test:1")
	}
	bubble(t, func(s *service) {
		t := s.t
		s.writeKey(testKey)
		s.saveIdentity()
		c := s.client()
		s.run(c)
		if got := c.Send(t.Context(), testBatch()); got.Answer != upload.Accepted {
			t.Errorf("%+v", got)
		}
		for _, address := range s.dials {
			if address != omsAddress && address != odsAddress {
				t.Errorf("dials %s", address)
			}
		}
	})
}

// TestU14AddressFamilies has names with addresses of both kinds, and servers at
// one or both of them.
func TestU14AddressFamilies(t *testing.T) {
	four, six := net.IPv4(127, 0, 0, 1), net.IPv6loopback
	tests := []struct {
		name    string
		addrs   []net.IP
		servers []net.IP
	}{
		{"IPv6 only", []net.IP{six}, []net.IP{six}},
		{"IPv4 only", []net.IP{four}, []net.IP{four}},
		{"both", []net.IP{four, six}, []net.IP{four, six}},
		{"nobody at the IPv6 address", []net.IP{four, six}, []net.IP{four}},
		{"nobody at the IPv4 address", []net.IP{four, six}, []net.IP{six}},
		{"no way to the IPv6 address", []net.IP{four, net.ParseIP("100::1")}, []net.IP{four}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &service{t: t, authority: newAuthority(t, "Test CA"), dir: t.TempDir(), handler: healthy}
			id := s.saveIdentity()
			port := s.serveAt(tt.servers)
			domain := fmt.Sprintf("%s:%d", testDomain, port)
			if err := (&registration{Thumbprint: id.thumbprint(), Domain: domain, OnboardedAt: time.Now().AddDate(0, 0, -7)}).save(s.dir); err != nil {
				t.Fatal(err)
			}
			c, err := New(Options{ID: testWorkspace, Domain: domain, Dir: s.dir, RootCAs: s.authority.pool(), Resolver: &net.Resolver{
				PreferGo: true,
				Dial: func(context.Context, string, string) (net.Conn, error) {
					near, far := newPipe()
					go answerNames(far, tt.addrs)
					return near, nil
				},
			}})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.load(); err != nil {
				t.Fatal(err)
			}
			defer c.transport.CloseIdleConnections()
			if got := c.Send(t.Context(), testBatch()); got.Answer != upload.Accepted {
				t.Errorf("%+v", got)
			}
		})
	}
}

// serveAt serves at one free port of the addresses.
func (s *service) serveAt(addresses []net.IP) (port int) {
	s.t.Helper()
	s.certs = s.authority.issue(s.t, time.Now().AddDate(-1, 0, 0), time.Now().AddDate(1, 0, 0), hostOnly(odsAddress))
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{s.certs}, ClientAuth: tls.RequireAnyClientCert}
	for range 20 { // the other address may not have the port free
		var listeners []net.Listener
		for _, ip := range addresses {
			l, err := new(net.ListenConfig).Listen(s.t.Context(), "tcp", net.JoinHostPort(ip.String(), fmt.Sprint(port)))
			if err != nil {
				break
			}
			listeners = append(listeners, l)
			port = l.Addr().(*net.TCPAddr).Port
		}
		if len(listeners) == len(addresses) {
			for _, l := range listeners {
				server := httptest.NewUnstartedServer(s)
				if err := server.Listener.Close(); err != nil {
					s.t.Fatal(err)
				}
				server.Listener, server.TLS = l, config
				server.StartTLS()
				s.t.Cleanup(server.Close)
			}
			return port
		}
		for _, l := range listeners {
			if err := l.Close(); err != nil {
				s.t.Fatal(err)
			}
		}
		port = 0
	}
	s.t.Fatal("no port is free")
	return 0
}

// answerNames answers questions for addresses with those of their kind.
func answerNames(conn net.Conn, addresses []net.IP) {
	defer conn.Close()
	for {
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		question := make([]byte, int(length[0])<<8|int(length[1]))
		if _, err := io.ReadFull(conn, question); err != nil {
			return
		}
		end := 12 + bytes.IndexByte(question[12:], 0) + 5
		reply := append([]byte{question[0], question[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question[12:end]...)
		for _, ip := range addresses {
			kind, data := byte(1), []byte(ip.To4())
			if data == nil {
				kind, data = 28, ip
			}
			if question[end-3] == kind {
				reply[7]++
				reply = append(reply, 0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 1, 0, byte(len(data)))
				reply = append(reply, data...)
			}
		}
		if _, err := conn.Write(append([]byte{byte(len(reply) >> 8), byte(len(reply))}, reply...)); err != nil {
			return
		}
	}
}

// TestU16CompressionRefused: the very batch goes uncompressed, and so do all
// others for an hour; then compression is tried again.
func TestU16CompressionRefused(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		s.saveOnboarded()
		var refusing atomic.Bool
		s.answer(func(w http.ResponseWriter, r *http.Request) {
			if refusing.Load() && r.Header.Get("Content-Encoding") != "" {
				w.WriteHeader(http.StatusUnsupportedMediaType)
			}
		})
		c := s.client()
		s.run(c)
		batch := testBatch()
		row := []byte(`{"Message":"a row"}`)
		batch.Body, batch.Raw = record.Body(batch.Table, [][]byte{row}), 100
		raw, err := record.Inflate(batch.Body, 1000)
		if err != nil {
			t.Fatal(err)
		}
		steps := []struct {
			wait     time.Duration
			refusing bool
			want     []string // what is sent
		}{
			{0, true, []string{"deflate", ""}},
			{time.Minute, true, []string{""}},
			{plainFor - 2*time.Minute, true, []string{""}},
			{2 * time.Minute, true, []string{"deflate", ""}},
			{plainFor + time.Second, false, []string{"deflate"}},
			{time.Second, false, []string{"deflate"}},
		}
		for i, step := range steps {
			time.Sleep(step.wait)
			refusing.Store(step.refusing)
			before := len(s.seen(uploadPath))
			if got := c.Send(t.Context(), batch); got.Answer != upload.Accepted {
				t.Errorf("step %d: %+v", i, got)
			}
			wantState(t, c, "connected", "")
			var sent []string
			ids := map[string]bool{}
			for _, r := range s.seen(uploadPath)[before:] {
				encoding := r.header.Get("Content-Encoding")
				sent = append(sent, encoding)
				ids[r.header.Get("X-Request-ID")] = true
				if want := map[string][]byte{"deflate": batch.Body, "": raw}[encoding]; !bytes.Equal(r.body, want) {
					t.Errorf("step %d: sent %q as %q", i, r.body, encoding)
				}
			}
			if strings.Join(sent, ",") != strings.Join(step.want, ",") || len(ids) != len(sent) {
				t.Errorf("step %d: sent %q with %d request ids, want %q", i, sent, len(ids), step.want)
			}
		}
		if n := strings.Count(s.log.String(), "goes uncompressed"); n != 2 {
			t.Errorf("%d lines in the log", n)
		}
	})
}

// TestU17NoNetworkAtBoot: ten minutes without a network, told in a line for
// each cause although the causes take turns, end in an onboarding.
func TestU17NoNetworkAtBoot(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		s.saveIdentity()
		s.writeKey(testKey)
		start, dials := time.Now(), 0
		c := s.client(func(o *Options) {
			o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				dials++
				switch {
				case time.Since(start) >= 10*time.Minute:
					return s.dial(ctx, network, address)
				case dials%2 == 0:
					return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "server misbehaving", IsTemporary: true}}
				}
				return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", errNetUnreachable)}
			}
		})
		s.run(c)
		for range 4 { // as an uploader would, meanwhile
			if got := c.Send(t.Context(), testBatch()); got.Answer != upload.Retry || got.Code != string(Onboarding) {
				t.Errorf("%+v", got)
			}
		}
		time.Sleep(30 * time.Minute)
		wantState(t, c, "connected", "")
		if n := strings.Count(s.log.String(), "cannot onboard"); n != 2 || dials < 6 {
			t.Errorf("%d lines for 2 causes and %d tries:\n%s", n, dials, s.log.String())
		}
		if got := c.Send(t.Context(), testBatch()); got.Answer != upload.Accepted {
			t.Errorf("%+v", got)
		}
	})
}

// TestU18SlowLink: a body that advances but does not arrive in time is too
// large for the link, unless it is a single row.
func TestU18SlowLink(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		s.saveOnboarded()
		s.slow(2000) // bytes a second
		c := s.client()
		s.run(c)
		large := testBatch()
		large.Body = make([]byte, 1<<20)
		rand.Read(large.Body)
		large.Rows = 2
		if got := c.Send(t.Context(), large); got.Answer != upload.TooLarge || !strings.Contains(got.Why, "slow") {
			t.Errorf("two rows: %+v", got)
		}
		large.Rows = 1
		if got := c.Send(t.Context(), large); got.Answer != upload.Retry || got.Code != string(Timeout) {
			t.Errorf("one row: %+v", got)
		}
		s.slow(0)
		c.transport.CloseIdleConnections()
		large.Rows = 2
		if got := c.Send(t.Context(), large); got.Answer != upload.Retry {
			t.Errorf("a link that takes nothing: %+v", got)
		}
	})
}
