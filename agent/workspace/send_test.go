package workspace

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/upload"
	"github.com/openloganalytics/agent/internal/proxy"
	"github.com/openloganalytics/agent/internal/secret"
)

func testBatch() upload.Batch {
	return upload.Batch{
		ID: 7, Rows: 1, Raw: 30, Failures: 3, Body: []byte("x\x9c the very bytes"),
		Table: &record.Table{Name: "Syslog", DataType: "LINUX_SYSLOGS_BLOB", IPName: "LOGMANAGEMENT"},
	}
}

// TestUpload follows uploads to standard and custom tables by the letter.
func TestUpload(t *testing.T) {
	azure := func(o *Options) {
		o.ResourceID, o.Region = "/subscriptions/s/resourceGroups/g", "westeurope"
		o.CloudID, o.UUID = "7783-7084-3265-9085-8269-3286-77", "99999999-aaaa-bbbb-cccc-dddddddddddd"
	}
	common := map[string]string{
		"Content-Type": "application/json", "Content-Encoding": "deflate", "Content-Length": "17",
		"User-Agent": "LinuxMonitoringAgent/1.2.3-0", "X-Ms-App": "LinuxMonitoringAgent", "X-Ms-Client-Version": "1.2.3-0",
		"X-Ms-Client-Platform": "Linux", "X-Ms-Client-Request-Retry-Count": "3", "X-Ms-Azureregion": "OnPremise",
	}
	tests := []struct {
		name   string
		change func(*Options)
		table  record.Table
		url    string
		header map[string]string // besides common
	}{
		{
			name: "standard", change: func(*Options) {}, table: *testBatch().Table,
			url: "/OperationalData.svc/PostJsonDataItems",
		},
		{
			name: "in Azure", change: azure, table: *testBatch().Table,
			url: "/OperationalData.svc/PostJsonDataItems",
			header: map[string]string{
				"X-Ms-Azureresourceid": "/subscriptions/s/resourceGroups/g", "X-Ms-Azureregion": "westeurope",
				"X-Ms-Omscloudid": "7783-7084-3265-9085-8269-3286-77", "X-Ms-Uuid": "99999999-aaaa-bbbb-cccc-dddddddddddd",
			},
		},
		{
			name: "custom", change: func(*Options) {}, table: record.Table{Name: "MyApp_CL", LogType: "MyApp", TimeField: "EventTime"},
			url:    "/OperationalData.svc/PostJsonDataItems?api-version=2016-04-01",
			header: map[string]string{"Log-Type": "MyApp", "X-Ms-Date": "Sat, 01 Jan 2000 00:00:00 GMT", "Time-Generated-Field": "EventTime"},
		},
		{
			name: "custom without a time", change: func(*Options) {}, table: record.Table{Name: "MyApp_CL", LogType: "MyApp"},
			url:    "/OperationalData.svc/PostJsonDataItems?api-version=2016-04-01",
			header: map[string]string{"Log-Type": "MyApp", "X-Ms-Date": "Sat, 01 Jan 2000 00:00:00 GMT"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(s *service) {
				t := s.t
				id := s.saveOnboarded()
				c := s.client(tt.change)
				s.run(c)
				batch := testBatch()
				batch.Table = &tt.table
				got := c.Send(t.Context(), batch)
				requests := s.seen("")
				if len(requests) != 1 {
					t.Fatalf("%d requests, result %+v", len(requests), got)
				}
				r := requests[0]
				want := http.Header{"X-Request-Id": {got.RequestID}}
				for _, headers := range []map[string]string{common, tt.header} {
					for name, value := range headers {
						want.Set(name, value)
					}
				}
				if diff := cmp.Diff(want, r.header); diff != "" {
					t.Errorf("header (-want +got):\n%s", diff)
				}
				if err := uuid.Validate(got.RequestID); err != nil {
					t.Error(err)
				}
				if got.Answer != upload.Accepted || got.Why != "" || got.Code != "" {
					t.Errorf("result %+v, want accepted", got)
				}
				if r.method != http.MethodPost || r.url != hostOnly(odsAddress)+tt.url || !bytes.Equal(r.body, batch.Body) || r.thumbprint != id.thumbprint() {
					t.Errorf("%s %s with %q and certificate %s", r.method, r.url, r.body, r.thumbprint)
				}
				wantState(t, c, "connected", "")
				if _, _, _, last := c.State(); !last.Equal(time.Now()) {
					t.Errorf("last accepted %v", last)
				}
				if again := c.Send(t.Context(), batch); again.RequestID == got.RequestID {
					t.Error("two attempts with one request id")
				}
				if n := len(s.dials); n != 1 {
					t.Errorf("%d connections for two uploads", n)
				}
			})
		})
	}
}

func TestUploadWaitsForTheOnboarding(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		s.saveIdentity()
		s.answer(status(403, ""))
		c := s.client()
		s.run(c)
		start := time.Now()
		got := c.Send(t.Context(), testBatch())
		if got.Answer != upload.Retry || got.Code != string(Onboarding) || got.RequestID != "" || time.Since(start) != readyWait {
			t.Errorf("after %v %+v, want Retry with %s", time.Since(start), got, Onboarding)
		}

		s.answer(status(500, ""))
		s.writeKey(testKey)
		time.Sleep(keyPoll)
		s.answer(healthy)
		start = time.Now()
		if got := c.Send(t.Context(), testBatch()); got.Answer != upload.Accepted {
			t.Errorf("result %+v, want accepted", got)
		}
		if waited := time.Since(start); waited == 0 || waited > 10*time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

// TestUploadAndState holds what each answer does to the state.
func TestUploadAndState(t *testing.T) {
	tests := []struct {
		name   string
		answer http.HandlerFunc
		want   upload.Answer
		state  string
		cause  Cause
	}{
		{"accepted", status(200, ""), upload.Accepted, "connected", ""},
		{"bad rows say nothing about the workspace", status(400, `{"Error":"InvalidDataFormat"}`), upload.Refused, "starting", ""},
		{"nor do too many", status(413, ""), upload.TooLarge, "starting", ""},
		{"certificate refused", status(403, ""), upload.Hold, "rejected", CertificateRejected},
		{"workspace deleted", status(404, ""), upload.Hold, "rejected", WorkspaceUnknown},
		{"workspace closed", status(400, `{"Error":"InactiveCustomer"}`), upload.Hold, "rejected", WorkspaceUnknown},
		{"throttled", status(429, ""), upload.Retry, "unreachable", ServerBusy},
		{"server error", status(500, ""), upload.Retry, "unreachable", ServerError},
		{"redirect", http.RedirectHandler("https://"+hostOnly(odsAddress)+"/elsewhere", http.StatusTemporaryRedirect).ServeHTTP, upload.Hold, "unreachable", Redirected},
		{"U15 captive portal", status(200, "<!DOCTYPE html><html>"), upload.Retry, "unreachable", UnexpectedAnswer},
		{"clock", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			w.WriteHeader(403)
		}, upload.Hold, "rejected", ClockSkew},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(s *service) {
				t := s.t
				s.saveOnboarded()
				s.answer(tt.answer)
				c := s.client()
				s.run(c)
				got := c.Send(t.Context(), testBatch())
				if got.Answer != tt.want || (got.Answer != upload.Accepted) != (got.Why != "") {
					t.Errorf("result %+v, want %v", got, tt.want)
				}
				wantState(t, c, tt.state, tt.cause)
				if n := len(s.seen("")); n != 1 {
					t.Errorf("%d requests", n)
				}
				s.answer(healthy)
				if got := c.Send(t.Context(), testBatch()); got.Answer != upload.Accepted {
					t.Errorf("after the cure %+v", got)
				}
				wantState(t, c, "connected", "")
			})
		})
	}
}

// TestNewRegistrationSettles: for a while after the onboarding 404 and 500 are
// no trouble.
func TestNewRegistrationSettles(t *testing.T) {
	for _, code := range []int{404, 500} {
		bubble(t, func(s *service) {
			t := s.t
			s.saveIdentity()
			s.writeKey(testKey)
			c := s.client()
			s.run(c)
			s.answer(status(code, ""))
			for range 2 {
				if got := c.Send(t.Context(), testBatch()); got.Answer != upload.Retry {
					t.Errorf("%d: %+v, want Retry", code, got)
				}
				wantState(t, c, "connected", "")
				time.Sleep(settleTime - time.Second)
			}
			time.Sleep(settleTime)
			c.Send(t.Context(), testBatch())
			if state, _, _, _ := c.State(); state == "connected" {
				t.Errorf("%d is no trouble after %v", code, settleTime)
			}
		})
	}
}

// TestOurOwnEndIsNoTrouble: a Send that is cut short says nothing about the
// workspace.
func TestOurOwnEndIsNoTrouble(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		s.saveOnboarded()
		c := s.client()
		s.run(c)
		s.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		time.AfterFunc(time.Millisecond, cancel)
		defer cancel()
		if got := c.Send(ctx, testBatch()); got.Answer != upload.Retry {
			t.Errorf("%+v", got)
		}
		wantState(t, c, "starting", "")
	})
}

// TestU02ConnectionCutAnywhere cuts the connection after each count of bytes
// that the server sends. The batch counts as accepted only when the whole
// answer has come.
func TestU02ConnectionCutAnywhere(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		s.saveOnboarded()
		c := s.client()
		s.run(c)
		if got := c.Send(t.Context(), testBatch()); got.Answer != upload.Accepted {
			t.Fatalf("%+v", got)
		}
		var sent, limit atomic.Int64
		c.transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := s.dial(ctx, network, address)
			return &cutConn{Conn: conn, sent: &sent, limit: &limit}, err
		}
		limit.Store(1 << 30)
		c.transport.CloseIdleConnections()
		if got := c.Send(t.Context(), testBatch()); got.Answer != upload.Accepted {
			t.Fatalf("%+v", got)
		}
		synctest.Wait()
		whole := sent.Load()
		accepted := 0
		for n := int64(0); n < whole; n += 29 {
			c.transport.CloseIdleConnections()
			sent.Store(0)
			limit.Store(n)
			got := c.Send(t.Context(), testBatch())
			switch {
			case got.Answer == upload.Accepted && n < whole-100:
				t.Errorf("accepted after %d of %d bytes", n, whole)
			case got.Answer == upload.Accepted:
				accepted++
			case got.Answer != upload.Retry || got.Code != string(ConnectionLost):
				t.Errorf("cut after %d of %d bytes: %+v", n, whole, got)
			}
		}
		if accepted > 4 {
			t.Errorf("%d cut answers were good enough", accepted)
		}
	})
}

// A cutConn ends once it has read so many bytes.
type cutConn struct {
	net.Conn
	sent, limit *atomic.Int64
}

func (c *cutConn) Read(b []byte) (int, error) {
	left := c.limit.Load() - c.sent.Load()
	if left <= 0 {
		return 0, errors.Join(io.EOF, c.Close())
	}
	n, err := c.Conn.Read(b[:min(int64(len(b)), left)])
	c.sent.Add(int64(n))
	return n, err
}

// TestU08SlowServers: whatever the server does, an attempt ends in time and
// leaves nothing running, which the bubble would notice.
func TestU08SlowServers(t *testing.T) {
	large := testBatch()
	large.Body = make([]byte, 1<<20)
	tests := []struct {
		name  string
		serve func(s *service)
		most  time.Duration
	}{
		{"takes no connection", func(s *service) { s.listen(odsAddress) }, sendTimeout},
		{"no handshake", func(s *service) { s.swallow(s.listen(odsAddress)) }, handshakeTimeout},
		{"no answer", func(s *service) {
			s.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		}, headerTimeout},
		{"answer without end, a byte a second", func(s *service) {
			s.answer(func(w http.ResponseWriter, r *http.Request) {
				for everySecond(r.Context()) {
					// That the client is gone ends the loop.
					_, _ = w.Write([]byte("."))
					_ = http.NewResponseController(w).Flush()
				}
			})
		}, sendTimeout},
		{"takes nothing of the body", func(s *service) { s.slow(0) }, stallTime},
		{"takes 512 bytes of the body a second", func(s *service) { s.slow(512) }, sendTimeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(s *service) {
				t := s.t
				s.saveOnboarded()
				tt.serve(s)
				c := s.client()
				s.run(c)
				start := time.Now()
				got := c.Send(t.Context(), large)
				if got.Answer != upload.Retry || got.Code != string(Timeout) {
					t.Errorf("%+v, want Retry with %s", got, Timeout)
				}
				if took := time.Since(start); took > tt.most || took > sendTimeout {
					t.Errorf("took %v, want at most %v", took, tt.most)
				}
			})
		})
	}
}

// everySecond reports true a second later, false when ctx has ended.
func everySecond(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Second):
		return true
	}
}

// slow serves the data endpoint, reading so many bytes a second.
func (s *service) slow(rate int64) {
	l := tls.NewListener(s.listen(odsAddress), &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{s.certs}, ClientAuth: tls.RequireAnyClientCert,
	})
	s.serve(l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		for everySecond(s.t.Context()) {
			if _, err := io.CopyN(io.Discard, r.Body, rate); err != nil {
				return
			}
		}
	}))
}

// TestU12Proxies goes through a proxy in each of its moods.
func TestU12Proxies(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://environment.test:1")
	t.Setenv("https_proxy", "http://environment.test:1")
	tests := []struct {
		name    string
		setting string
		relay   http.HandlerFunc // nil is one that works
		state   string
		cause   Cause
	}{
		{name: "works", setting: "me:p%40ss@proxy.test:3128", state: "connected"},
		{name: "wrong password", setting: "me:wrong@proxy.test:3128", state: "rejected", cause: ProxyAuth},
		{name: "no password", setting: "proxy.test:3128", state: "rejected", cause: ProxyAuth},
		{name: "forbids", setting: "me:p%40ss@proxy.test:3128", relay: status(403, ""), state: "unreachable", cause: ProxyRefused},
		{name: "cannot reach", setting: "me:p%40ss@proxy.test:3128", relay: status(502, ""), state: "unreachable", cause: ProxyRefused},
		{name: "down", setting: "me:p%40ss@down.test:3128", state: "unreachable", cause: ProxyUnreachable},
		{name: "is no proxy but a captive portal", setting: "me:p%40ss@proxy.test:3128", relay: status(302, ""), state: "unreachable", cause: ProxyRefused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(s *service) {
				t := s.t
				s.saveIdentity()
				s.writeKey(testKey)
				relay := tt.relay
				if relay == nil {
					relay = s.relay
				}
				s.serve(s.listen("proxy.test:3128"), relay)
				via, err := proxy.Parse(secret.New(tt.setting))
				if err != nil {
					t.Fatal(err)
				}
				c := s.client(func(o *Options) { o.Proxy = via })
				s.run(c)
				wantState(t, c, tt.state, tt.cause)
				_, _, message, _ := c.State()
				if tt.cause != "" && !strings.Contains(message, via.String()) {
					t.Errorf("%q does not name the proxy", message)
				}
				for _, password := range []string{"p@ss", "p%40ss", "wrong", "bWU6"} {
					if strings.Contains(message+s.log.String(), password) {
						t.Errorf("a password is in %q or the log", message)
					}
				}
				if tt.cause == "" {
					if got := c.Send(t.Context(), testBatch()); got.Answer != upload.Accepted {
						t.Errorf("upload %+v", got)
					}
				}
				for _, address := range s.dials {
					if "http://"+address != via.String() {
						t.Errorf("dials %s, want the proxy only", address)
					}
				}
			})
		})
	}
}

// relay is a CONNECT proxy for the user me with the password p@ss.
func (s *service) relay(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Proxy-Authorization") != "Basic bWU6cEBzcw==" {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	behind, err := s.connect(r.Context(), r.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	front, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if _, err := io.WriteString(front, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// A tunnel that breaks ends; there is nobody to tell.
		_, _ = buffered.WriteTo(behind)
		_ = behind.Close()
	}()
	_, _ = io.Copy(front, behind)
	_ = front.Close()
	<-done
}

// TestU09Names has the system's way of looking names up meet a name server that
// is broken, or that was taken over.
func TestU09Names(t *testing.T) {
	const noError, serverFailure, noSuchName = 0, 2, 3
	tests := []struct {
		name  string
		rcode byte
		ip    [4]byte
		want  Cause
	}{
		{"no such name", noSuchName, [4]byte{}, WorkspaceUnknown},
		{"server failure", serverFailure, [4]byte{}, DNS},
		{"rebound to instance metadata", noError, [4]byte{169, 254, 169, 254}, AddressRefused},
		{"rebound to the wire server", noError, [4]byte{168, 63, 129, 16}, AddressRefused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &service{t: t, dir: t.TempDir()}
			s.saveOnboarded()
			asked := new(atomic.Int64)
			c, err := New(Options{ID: testWorkspace, Domain: testDomain, Dir: s.dir, Resolver: &net.Resolver{
				PreferGo: true,
				Dial: func(context.Context, string, string) (net.Conn, error) {
					near, far := newPipe()
					go answerDNS(far, tt.rcode, tt.ip, asked)
					return near, nil
				},
			}})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.load(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				before := asked.Load()
				if got := c.Send(t.Context(), testBatch()); got.Answer != upload.Retry || got.Code != string(tt.want) {
					t.Errorf("%+v, want Retry with %s", got, tt.want)
				}
				if asked.Load() == before {
					t.Error("the name was not looked up anew")
				}
			}
		})
	}
}

// answerDNS answers questions as they come over a stream (RFC 1035, 4.2.2),
// those for an IPv4 address with ip.
func answerDNS(conn net.Conn, rcode byte, ip [4]byte, asked *atomic.Int64) {
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
		asked.Add(1)
		end := 12 + bytes.IndexByte(question[12:], 0) + 5 // the name, its type and class
		reply := append([]byte{question[0], question[1], 0x81, 0x80 | rcode, 0, 1, 0, 0, 0, 0, 0, 0}, question[12:end]...)
		if question[end-3] == 1 && rcode == 0 { // type A
			reply[7] = 1
			reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4)
			reply = append(reply, ip[:]...)
		}
		if _, err := conn.Write(append([]byte{byte(len(reply) >> 8), byte(len(reply))}, reply...)); err != nil {
			return
		}
	}
}

// TestRefusedConnection meets a real port that nobody listens on.
func TestRefusedConnection(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	transport := newTransport(Options{Clock: time.Now}, nil)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+address, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(request)
	if err == nil {
		t.Fatal(response.Status, response.Body.Close())
	}
	if cause, text := Explain(err, Facts{Host: address}); cause != Refused {
		t.Errorf("cause %s (%s), want %s", cause, text, Refused)
	}
}

// TestCertificateAlert: a server that refuses the certificate in the handshake
// says so in an alert. With TLS 1.3 that comes when the client is writing
// already, which may find the connection closed before it has read the alert.
func TestCertificateAlert(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(fmt.Sprintf("%x", version), func(t *testing.T) {
			bubble(t, func(s *service) {
				t := s.t
				s.saveOnboarded()
				s.serve(tls.NewListener(s.listen(odsAddress), &tls.Config{
					MinVersion: version, MaxVersion: version, Certificates: []tls.Certificate{s.certs},
					ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: s.authority.pool(),
				}), s)
				c := s.client()
				s.run(c)
				got := c.Send(t.Context(), testBatch())
				for n := 0; version == tls.VersionTLS13 && got.Code == string(ConnectionLost) && n < 100; n++ {
					got = c.Send(t.Context(), testBatch())
				}
				if got.Code != string(CertificateRejected) {
					t.Errorf("%+v, want %s", got, CertificateRejected)
				}
				wantState(t, c, "rejected", CertificateRejected)
			})
		})
	}
}
