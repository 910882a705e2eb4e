package proxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openloganalytics/agent/internal/secret"
)

func TestParse(t *testing.T) {
	tests := []struct {
		text           string
		want           string // String
		user, password string
	}{
		{text: "proxy.example.com", want: "http://proxy.example.com:80"},
		{text: "proxy.example.com:3128", want: "http://proxy.example.com:3128"},
		{text: "http://proxy.example.com:3128\n", want: "http://proxy.example.com:3128"},
		{text: "https://proxy.example.com", want: "https://proxy.example.com:443"},
		{text: "HTTPS://proxy.example.com/", want: "https://proxy.example.com:443"},
		{text: "10.0.0.4:08080", want: "http://10.0.0.4:8080"},
		{text: "[2001:db8::1]", want: "http://[2001:db8::1]:80"},
		{text: "https://[2001:db8::1]:3128", want: "https://[2001:db8::1]:3128"},
		{text: "me:pw@host:1", want: "http://host:1", user: "me", password: "pw"},
		{text: "me@host", want: "http://host:80", user: "me"},
		{text: ":@host", want: "http://host:80"},
		{text: "@host", want: "http://host:80"},
		{text: "me:p@ss:w/rd@host:1", want: "http://host:1", user: "me", password: "p@ss:w/rd"},
		{text: "me:p%40ss%3a@host", want: "http://host:80", user: "me", password: "p@ss:"},
		{text: "me:100%@host", want: "http://host:80", user: "me", password: "100%"},
		{text: "me:%zz%4%41@host", want: "http://host:80", user: "me", password: "%zz%4A"},
		{text: "dom%5Cme:pw@host", want: "http://host:80", user: `dom\me`, password: "pw"},
		{text: "me:a://b@host", want: "http://host:80", user: "me", password: "a://b"},
		{text: "https://me:a://b@[::1]:9", want: "https://[::1]:9", user: "me", password: "a://b"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			p, err := Parse(secret.New(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if got := p.String(); got != tt.want {
				t.Errorf("String() = %q, want %q", got, tt.want)
			}
			want := ""
			if tt.user != "" {
				want = "Basic " + base64.StdEncoding.EncodeToString([]byte(tt.user+":"+tt.password))
			}
			got := ""
			if p.authorization != nil {
				got = p.authorization.Reveal()
			}
			if got != want {
				t.Errorf("authorization %q, want %q", got, want)
			}
		})
	}
}

func TestParseNamesThePartAtFault(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", "empty"},
		{" \n", "empty"},
		{"socks5://canary@host:1", "scheme"},
		{"user:canary@", "host"},
		{"user:canary", "port"},
		{"host:", "port"},
		{"canary@host:0", "port"},
		{"canary@host:65536", "port"},
		{"canary@host:+1", "port"},
		{"canary@fe80::1", "brackets"},
		{"canary@[fe80::1%25eth0]:1", "brackets"},
		{"canary@[10.0.0.1]:1", "brackets"},
		{"canary@[::1", "brackets"},
		{"canary@[::1]x", "brackets"},
		{"canary@höst", "xn--"},
		{"canary@ho st:1", "host"},
		{"canary@host:80/path", "port"},
		{"us%3Aer:canary@host", "user name"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			p, err := Parse(secret.New(tt.text))
			if err == nil {
				t.Fatalf("Parse accepted it as %v", p)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not name %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("error %q repeats the setting", err)
			}
		})
	}
}

func TestNothingPrintsThePassword(t *testing.T) {
	p, err := Parse(secret.New("https://me:canary@proxy.example.com:3128"))
	if err != nil {
		t.Fatal(err)
	}
	encoded := base64.StdEncoding.EncodeToString([]byte("me:canary"))
	transport := new(http.Transport)
	p.Apply(transport)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://service.example.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	via, err := transport.Proxy(request)
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprintf("%v %+v %#v %s %v", p, p, *p, p, via)
	if strings.Contains(printed, "canary") || strings.Contains(printed, encoded) {
		t.Errorf("printed as %s", printed)
	}
}

func TestWhatTakesTheProxy(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://environment.example.com:1")
	t.Setenv("https_proxy", "http://environment.example.com:1")
	t.Setenv("NO_PROXY", "service.example.com")
	p, err := Parse(secret.New("proxy.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, url string
		proxy     *Proxy
		want      string
		wantErr   bool
	}{
		{name: "the service", url: "https://service.example.com/", proxy: p, want: "http://proxy.example.com:80"},
		{name: "plain http", url: "http://service.example.com/", proxy: p, wantErr: true},
		{name: "instance metadata", url: "http://169.254.169.254/metadata", proxy: p, want: ""},
		{name: "link-local IPv6", url: "http://[fe80::1]/metadata", proxy: p, want: ""},
		{name: "no proxy set", url: "https://service.example.com/", want: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
			tt.proxy.Apply(transport)
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tt.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.proxy == nil {
				if transport.Proxy != nil {
					t.Error("the environment's proxy is left in force")
				}
				return
			}
			via, err := transport.Proxy(request)
			if (err != nil) != tt.wantErr {
				t.Fatalf("error = %v, want error: %v", err, tt.wantErr)
			}
			got := ""
			if via != nil {
				got = via.String()
			}
			if got != tt.want {
				t.Errorf("goes through %q, want %q", got, tt.want)
			}
		})
	}
}

// TestTunnel sends requests through a proxy of either scheme to a server that
// wants a client certificate, and looks at what the proxy saw.
func TestTunnel(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 || r.Header.Get("Proxy-Authorization") != "" {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	defer server.Close()

	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			relay := newRelay(t, server.TLS.Certificates[0], scheme)
			tests := []struct {
				name, user string
				wantStatus int
			}{
				{"right password", "me:p%40ss@", 0},
				{"wrong password", "me:pass@", http.StatusProxyAuthRequired},
				{"no password", "", http.StatusProxyAuthRequired},
			}
			for _, tt := range tests {
				t.Run(tt.name, func(t *testing.T) {
					p, err := Parse(secret.New(scheme + "://" + tt.user + relay.address))
					if err != nil {
						t.Fatal(err)
					}
					roots := x509.NewCertPool()
					roots.AddCert(server.Certificate())
					transport := &http.Transport{TLSClientConfig: &tls.Config{
						MinVersion: tls.VersionTLS12, RootCAs: roots,
						Certificates: []tls.Certificate{clientCertificate(t)},
					}}
					p.Apply(transport)
					defer transport.CloseIdleConnections()
					status, err := get(t, transport, server.URL)
					var refused *ConnectError
					switch {
					case tt.wantStatus == 0 && (err != nil || status != http.StatusOK):
						t.Errorf("status %d, error %v, want 200", status, err)
					case tt.wantStatus != 0 && (!errors.As(err, &refused) || refused.Status != tt.wantStatus):
						t.Errorf("status %d, error %v, want ConnectError with %d", status, err, tt.wantStatus)
					case err != nil && strings.Contains(err.Error(), "pass"):
						t.Errorf("error %q holds the password", err)
					}
				})
			}
			if relay.sawCertificate() {
				t.Error("the proxy was shown the client certificate")
			}
		})
	}
}

func TestUnreachableProxyIsToldFromTheServer(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		p, err := Parse(secret.New(scheme + "://127.0.0.1:1"))
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("no way")
		}}
		p.Apply(transport)
		_, err = get(t, transport, "https://service.example.com/")
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "proxyconnect" {
			t.Errorf("%s: error %v, want a proxyconnect *net.OpError", scheme, err)
		}
	}
}

func get(t *testing.T, transport *http.Transport, url string) (int, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// A relay is a CONNECT proxy for the user me with the password p@ss.
type relay struct {
	address      string
	certificates chan int // how many each TLS client showed
}

func newRelay(t *testing.T, certificate tls.Certificate, scheme string) *relay {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{address: listener.Addr().String(), certificates: make(chan int, 16)}
	if scheme == "https" {
		listener = tls.NewListener(listener, &tls.Config{
			MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert,
			Certificates: []tls.Certificate{certificate},
		})
	}
	server := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return r
}

func (r *relay) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if request.TLS != nil {
		r.certificates <- len(request.TLS.PeerCertificates)
	}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:p@ss"))
	if request.Method != http.MethodConnect || request.Header.Get("Proxy-Authorization") != want {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	behind, err := new(net.Dialer).DialContext(request.Context(), "tcp", request.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	front, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if _, err := front.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")); err != nil {
		return
	}
	pump(front, buffered.Reader, behind)
}

// pump copies both ways until one side ends.
func pump(front net.Conn, fromFront *bufio.Reader, behind net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// A tunnel that breaks ends; there is nobody to tell.
		_, _ = fromFront.WriteTo(behind)
		_ = behind.Close()
	}()
	_, _ = bufio.NewReader(behind).WriteTo(front)
	_ = front.Close()
	<-done
}

func (r *relay) sawCertificate() bool {
	for {
		select {
		case n := <-r.certificates:
			if n > 0 {
				return true
			}
		default:
			return false
		}
	}
}

func clientCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"proxy.example.com", "https://me:p%40ss@[2001:db8::1]:3128\n", "me:a://b@host:1", "%", "[", "@", ":@:", "http://",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(secret.New(text))
		if err != nil {
			return
		}
		again, err := Parse(secret.New(p.String()))
		if err != nil {
			t.Fatalf("Parse(%q) is %s, which Parse refuses: %v", text, p, err)
		}
		if again.String() != p.String() {
			t.Errorf("Parse(%q) is %s, which reads as %s", text, p, again)
		}
	})
}
