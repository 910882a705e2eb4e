package workspace

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/openloganalytics/agent/internal/proxy"
)

// TestRejected holds which causes are for a person to mend: what enable reports
// as wrong settings.
func TestRejected(t *testing.T) {
	rejected := map[Cause]bool{
		KeyMissing: true, KeyMalformed: true, KeyRejected: true, CertificateRejected: true,
		WorkspaceUnknown: true, ClockSkew: true, ProxyAuth: true,

		Onboarding: false, DNS: false, AddressRefused: false, Refused: false, NoRoute: false,
		Timeout: false, ConnectionLost: false, TLSUntrusted: false, TLSName: false, TLSExpired: false,
		TLSProtocol: false, ProxyUnreachable: false, ProxyRefused: false, ServerBusy: false,
		ServerError: false, Redirected: false, UnexpectedAnswer: false, RequestRefused: false, StateUnusable: false,
	}
	for cause, want := range rejected {
		if got := cause.Rejected(); got != want {
			t.Errorf("%s.Rejected() = %v, want %v", cause, got, want)
		}
	}
}

func TestExplain(t *testing.T) {
	const host = "ws.oms.opinsights.azure.com"
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	leaf := &x509.Certificate{
		Issuer:    pkix.Name{CommonName: "Corp\nInspection CA"},
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(0, 0, -1),
	}
	unverified := func(cause error) error {
		return &tls.CertificateVerificationError{UnverifiedCertificates: []*x509.Certificate{leaf}, Err: cause}
	}
	expired := unverified(x509.CertificateInvalidError{Cert: leaf, Reason: x509.Expired})
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	alert := func(text string) error { return &net.OpError{Op: "remote error", Err: errors.New(text)} }
	hop := func(err error) error { return &net.OpError{Op: "proxyconnect", Net: "tcp", Err: err} }
	connect := func(status int) error {
		return &proxy.ConnectError{Proxy: "http://proxy.example:3128", Status: status}
	}

	tests := []struct {
		name  string
		err   error
		facts Facts
		want  Cause
		says  []string // must be in the sentence
	}{
		{"key refused", nil, Facts{Status: 403, Key: true, Detail: "InvalidWorkspaceKey"}, KeyRejected, []string{host, "403", "InvalidWorkspaceKey", "workspaceKey"}},
		{"key refused at the right time", nil, Facts{Status: 403, Key: true, Date: now.Add(14 * time.Minute)}, KeyRejected, nil},
		{"clock late", nil, Facts{Status: 403, Key: true, Date: now.Add(20 * time.Minute)}, ClockSkew, []string{"20m behind", "15m"}},
		{"clock early", nil, Facts{Status: 403, Date: now.Add(-72 * time.Hour)}, ClockSkew, []string{"3 days ahead"}},
		{"certificate refused", nil, Facts{Status: 401}, CertificateRejected, []string{"certificate", "workspaceKey"}},
		{"no such workspace", nil, Facts{Status: 404}, WorkspaceUnknown, []string{"workspaceId"}},
		{"workspace closed", nil, Facts{Status: 400, Detail: "InactiveCustomer"}, WorkspaceUnknown, []string{"InactiveCustomer"}},
		{"bad request", nil, Facts{Status: 400}, RequestRefused, []string{"400"}},
		{"too large", nil, Facts{Status: 413}, RequestRefused, []string{"413"}},
		{"throttled", nil, Facts{Status: 429}, ServerBusy, []string{"429"}},
		{"overloaded", nil, Facts{Status: 503}, ServerBusy, []string{"503"}},
		{"server error", nil, Facts{Status: 500}, ServerError, []string{"500"}},
		{"request timeout", nil, Facts{Status: 408}, Timeout, []string{"408"}},
		{"redirect", nil, Facts{Status: 302, Detail: "login.example"}, Redirected, []string{"login.example"}},
		{"captive portal", nil, Facts{Status: 200, Detail: "text/html"}, UnexpectedAnswer, []string{"text/html"}},

		{"no such name", dial(&net.DNSError{Err: "no such host", IsNotFound: true}), Facts{}, WorkspaceUnknown, []string{host, "does not exist", "domain"}},
		{"DNS down", dial(&net.DNSError{Err: "server misbehaving", IsTemporary: true}), Facts{}, DNS, []string{host, "server misbehaving"}},
		{"DNS slow", dial(&net.DNSError{Err: "i/o timeout", IsTimeout: true}), Facts{}, DNS, []string{"i/o timeout"}},
		{"platform address", dial(&addressError{"169.254.169.254"}), Facts{}, AddressRefused, []string{"169.254.169.254"}},
		{"refused", dial(os.NewSyscallError("connect", errRefused)), Facts{}, Refused, []string{host}},
		{"no route", dial(os.NewSyscallError("connect", errHostUnreachable)), Facts{}, NoRoute, []string{host}},
		{"no network", dial(os.NewSyscallError("connect", errNetUnreachable)), Facts{}, NoRoute, []string{host}},
		{"dial timeout", dial(os.ErrDeadlineExceeded), Facts{}, Timeout, []string{"443"}},
		{"deadline", context.DeadlineExceeded, Facts{}, Timeout, nil},
		{"stalled", errStalled, Facts{}, Timeout, []string{"1 KiB/s"}},
		{"cut off", io.ErrUnexpectedEOF, Facts{}, ConnectionLost, []string{host}},

		{"unknown authority", unverified(x509.UnknownAuthorityError{Cert: leaf}), Facts{}, TLSUntrusted, []string{`Corp\nInspection`, "2026-05-31", "trust store"}},
		{"other name", unverified(x509.HostnameError{Certificate: leaf, Host: host}), Facts{}, TLSName, []string{"another name"}},
		{"expired", expired, Facts{}, TLSExpired, []string{"2026-05-31", "2026-06-01T12:00:00Z"}},
		{"clock far behind", expired, Facts{Now: now.AddDate(-10, 0, 0)}, ClockSkew, []string{"too early", "days"}},
		{"clock known to be ahead", expired, Facts{Offset: -48 * time.Hour}, ClockSkew, []string{"2 days ahead"}},
		{"clock known but no excuse", expired, Facts{Offset: -time.Hour}, TLSExpired, nil},
		{"our certificate", alert("tls: bad certificate"), Facts{}, CertificateRejected, []string{"workspaceKey"}},
		{"old TLS, said by the server", alert("tls: protocol version not supported"), Facts{}, TLSProtocol, []string{"1.2"}},
		{"old TLS, seen here", errors.New("tls: server selected unsupported protocol version 302"), Facts{}, TLSProtocol, []string{"1.2"}},
		{"no TLS", tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, Facts{}, TLSProtocol, []string{"not with TLS"}},

		{"proxy wants a password", connect(407), Facts{}, ProxyAuth, []string{"http://proxy.example:3128", "407"}},
		{"proxy forbids", connect(403), Facts{}, ProxyRefused, []string{host, "403", "allow"}},
		{"proxy cannot reach", connect(502), Facts{}, ProxyRefused, []string{host, "502"}},
		{"proxy refused", hop(dial(os.NewSyscallError("connect", errRefused))), Facts{}, ProxyUnreachable, []string{"http://proxy.example:3128"}},
		{"proxy unknown", hop(dial(&net.DNSError{Err: "no such host", IsNotFound: true})), Facts{}, ProxyUnreachable, []string{"name does not exist"}},
		{"proxy untrusted", hop(unverified(x509.UnknownAuthorityError{Cert: leaf})), Facts{}, ProxyUnreachable, []string{"Inspection"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.facts.Host, tt.facts.Proxy = host, "http://proxy.example:3128"
			if tt.facts.Now.IsZero() {
				tt.facts.Now = now
			}
			err := tt.err
			if err != nil {
				err = fmt.Errorf("wrapped: %w", err)
			}
			cause, text := Explain(err, tt.facts)
			if cause != tt.want {
				t.Errorf("cause %s, want %s (%s)", cause, tt.want, text)
			}
			for _, want := range tt.says {
				if !strings.Contains(text, want) {
					t.Errorf("%q does not say %q", text, want)
				}
			}
			if strings.ContainsAny(text, "\n\r") {
				t.Errorf("%q has a line end", text)
			}
		})
	}
}

func TestCheckAddress(t *testing.T) {
	tests := []struct {
		address string
		refused bool
	}{
		{"169.254.169.254:443", true},
		{"169.254.1.1:443", true},
		{"[fe80::1%eth0]:443", true},
		{"[::ffff:169.254.169.254]:443", true},
		{"168.63.129.16:443", true},
		{"[::ffff:168.63.129.16]:443", true},
		{"0.0.0.0:443", true},
		{"224.0.0.1:443", true},
		{"name:443", true},
		{"127.0.0.1:443", false},
		{"[::1]:443", false},
		{"10.0.0.4:443", false},
		{"168.63.129.17:443", false},
		{"[2001:db8::1]:443", false},
	}
	for _, tt := range tests {
		if err := checkAddress(t.Context(), "tcp", tt.address, nil); (err != nil) != tt.refused {
			t.Errorf("checkAddress(%s) = %v, want refused: %v", tt.address, err, tt.refused)
		}
	}
}
