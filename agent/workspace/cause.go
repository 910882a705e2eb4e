package workspace

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/openloganalytics/agent/internal/proxy"
)

// A Cause is the short stable word for what keeps a workspace from taking
// data. It is what programs compare; the sentence beside it is for people.
type Cause string

// Causes. Those that a person has to mend in the settings or on this machine
// come first: see Rejected.
const (
	KeyMissing          Cause = "key-missing"          // never onboarded, and no key to do it with
	KeyMalformed        Cause = "key-malformed"        // the key is not base64
	KeyRejected         Cause = "key-rejected"         // 403 to the key
	CertificateRejected Cause = "certificate-rejected" // 401 or 403 to the certificate, or a TLS alert about it
	WorkspaceUnknown    Cause = "workspace-unknown"    // the name does not exist, or 404
	ClockSkew           Cause = "clock-skew"           // this machine's clock is wrong
	ProxyAuth           Cause = "proxy-auth"           // the proxy wants another user or password

	Onboarding       Cause = "onboarding"        // not done yet
	DNS              Cause = "dns"               // the name could not be looked up
	AddressRefused   Cause = "address-refused"   // the name leads to an address that is never asked
	Refused          Cause = "refused"           // nobody listens
	NoRoute          Cause = "no-route"          // the network is not there
	Timeout          Cause = "timeout"           // no answer in time
	ConnectionLost   Cause = "connection-lost"   // the connection broke
	TLSUntrusted     Cause = "tls-untrusted"     // no known authority signed the server's certificate
	TLSName          Cause = "tls-name"          // the server's certificate is for another name
	TLSExpired       Cause = "tls-expired"       // the server's certificate has expired
	TLSProtocol      Cause = "tls-protocol"      // no common TLS version, or no TLS at all
	ProxyUnreachable Cause = "proxy-unreachable" // no connection to the proxy
	ProxyRefused     Cause = "proxy-refused"     // the proxy opens no tunnel to the service
	ServerBusy       Cause = "server-busy"       // 429 or 503
	ServerError      Cause = "server-error"      // 5xx
	Redirected       Cause = "redirected"        // 3xx
	UnexpectedAnswer Cause = "unexpected-answer" // not an answer that the service gives
	RequestRefused   Cause = "request-refused"   // 400, 413 and other 4xx
	StateUnusable    Cause = "state-unusable"    // the identity folder cannot be written
)

// Rejected reports whether waiting does not help: a person has to mend the
// settings or the machine. With every other cause the workspace is unreachable,
// and the agent goes on trying with hope.
func (c Cause) Rejected() bool {
	switch c {
	case KeyMissing, KeyMalformed, KeyRejected, CertificateRejected, WorkspaceUnknown, ClockSkew, ProxyAuth:
		return true
	case Onboarding, DNS, AddressRefused, Refused, NoRoute, Timeout, ConnectionLost,
		TLSUntrusted, TLSName, TLSExpired, TLSProtocol, ProxyUnreachable, ProxyRefused,
		ServerBusy, ServerError, Redirected, UnexpectedAnswer, RequestRefused, StateUnusable:
		return false
	}
	return false
}

// maxSkew is how far this machine's clock may be from the service's: beyond it
// the service refuses a signature.
const maxSkew = 15 * time.Minute

// Facts is what is known about an exchange besides its error.
type Facts struct {
	Host  string    // who was asked, host or host:port
	Proxy string    // scheme://host:port, empty when direct
	Key   bool      // the request was signed with the workspace key
	Now   time.Time // by this machine's clock
	// Offset is how far the service's clock was ahead of this machine's when
	// it last said so.
	Offset time.Duration

	// Of the answer, when there was one.
	Status int
	Date   time.Time // zero when it had none
	// Detail is the service's own word for a refusal, the host that a
	// redirect leads to, or what makes an answer unexpected.
	Detail string
}

// Explain returns why an exchange failed, and a sentence that says what is
// wrong, what shows it and what to do about it. err is the transport's; with a
// nil err the answer's status is explained.
func Explain(err error, f Facts) (Cause, string) {
	if err == nil {
		return explainStatus(f)
	}
	if refused, ok := errors.AsType[*proxy.ConnectError](err); ok {
		return explainProxyAnswer(refused.Status, f)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "proxyconnect" {
		return ProxyUnreachable, explainHop(op.Err, f)
	}
	return explainNetwork(err, f)
}

// explainHop explains what went wrong on the way to the proxy.
func explainHop(err error, f Facts) string {
	_, host, _ := strings.Cut(f.Proxy, "://")
	cause, text := explainNetwork(err, Facts{Host: host, Now: f.Now})
	if cause == WorkspaceUnknown {
		text = "its name does not exist"
	}
	return fmt.Sprintf("the proxy %s cannot be used: %s; check the proxy setting", f.Proxy, text)
}

func explainProxyAnswer(status int, f Facts) (Cause, string) {
	switch {
	case status == http.StatusProxyAuthRequired:
		return ProxyAuth, fmt.Sprintf("the proxy %s does not accept the user and password it was given (407): correct them in the proxy setting, with %%40 for an @", f.Proxy)
	case status >= 500:
		return ProxyRefused, fmt.Sprintf("the proxy %s cannot reach %s (it answered %d): look into the proxy's log", f.Proxy, f.Host, status)
	}
	return ProxyRefused, fmt.Sprintf("the proxy %s refuses to connect to %s (it answered %d): allow that host on the proxy", f.Proxy, f.Host, status)
}

func explainNetwork(err error, f Facts) (Cause, string) {
	if cause, text := explainTLS(err, f); cause != "" {
		return cause, text
	}
	var lookup *net.DNSError
	var address *addressError
	var timeout net.Error
	switch {
	case errors.As(err, &address):
		return AddressRefused, fmt.Sprintf("%s leads to %s, which is never connected to: check this machine's DNS and hosts file", f.Host, address.address)
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return WorkspaceUnknown, fmt.Sprintf("the name %s does not exist: check workspaceId and domain, and whether the DNS servers of this machine know public names", f.Host)
	case errors.As(err, &lookup):
		return DNS, fmt.Sprintf("the name %s cannot be looked up (%s): check the DNS servers of this machine", f.Host, lookup.Err)
	case errors.Is(err, errRefused):
		return Refused, fmt.Sprintf("%s refuses the connection (%s): check firewalls and whether a proxy is needed", f.Host, last(err))
	case errors.Is(err, errHostUnreachable), errors.Is(err, errNetUnreachable):
		return NoRoute, fmt.Sprintf("there is no way to %s (%s): check this machine's network and routes", f.Host, last(err))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errStalled), errors.As(err, &timeout) && timeout.Timeout():
		return Timeout, fmt.Sprintf("%s does not answer in time (%s): check that outbound TCP port 443 is open, and whether a proxy is needed", f.Host, last(err))
	}
	return ConnectionLost, fmt.Sprintf("the connection to %s broke (%s): a firewall or an intercepting proxy may be in between", f.Host, last(err))
}

// last returns the innermost error's text, without the chain of addresses
// around it.
func last(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// explainTLS returns an empty Cause when err is not about TLS.
func explainTLS(err error, f Facts) (Cause, string) {
	var alert *net.OpError
	if errors.As(err, &alert) && alert.Op == "remote error" {
		return explainAlert(alert.Err.Error(), f)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return TLSProtocol, fmt.Sprintf("%s answers, but not with TLS: something else than the service listens there, or a captive portal is in between", f.Host)
	}
	var untrusted *tls.CertificateVerificationError
	if !errors.As(err, &untrusted) {
		if strings.HasPrefix(last(err), "tls: ") {
			return TLSProtocol, fmt.Sprintf("TLS with %s fails (%s): TLS 1.2 or newer is needed", f.Host, last(err))
		}
		return "", ""
	}
	var leaf *x509.Certificate
	shown := "no certificate"
	if len(untrusted.UnverifiedCertificates) > 0 {
		leaf = untrusted.UnverifiedCertificates[0]
		shown = fmt.Sprintf("a certificate issued by %.100q, valid from %s to %s",
			leaf.Issuer.String(), leaf.NotBefore.UTC().Format(time.DateOnly), leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &name):
		return TLSName, fmt.Sprintf("%s shows %s, for another name: something else answers in its place; check DNS and proxies", f.Host, shown)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return explainExpired(leaf, shown, f)
	}
	return TLSUntrusted, fmt.Sprintf("%s shows %s, from an authority that this machine does not trust: if a proxy of yours inspects TLS, exempt %s or add its authority to the system's trust store", f.Host, shown, f.Host)
}

// explainExpired tells an expired certificate from a wrong clock, which looks
// the same from here.
func explainExpired(leaf *x509.Certificate, shown string, f Facts) (Cause, string) {
	now := f.Now.UTC().Format(time.RFC3339)
	corrected := f.Now.Add(f.Offset)
	switch {
	case leaf == nil:
	case f.Now.Before(leaf.NotBefore):
		return ClockSkew, fmt.Sprintf("%s shows %s, but this machine's clock says %s, at least %s too early: set the clock",
			f.Host, shown, now, round(leaf.NotBefore.Sub(f.Now)))
	case f.Now.After(leaf.NotAfter) && beyondSkew(f.Offset) && corrected.After(leaf.NotBefore) && corrected.Before(leaf.NotAfter):
		return ClockSkew, fmt.Sprintf("%s shows %s, but this machine's clock says %s, which is %s: set the clock",
			f.Host, shown, now, ahead(-f.Offset))
	}
	return TLSExpired, fmt.Sprintf("%s shows %s, and this machine's clock says %s: if the clock is right the certificate has expired, which whoever runs the server or a proxy in between has to renew", f.Host, shown, now)
}

// explainAlert explains what the server said when it ended a handshake.
func explainAlert(alert string, f Facts) (Cause, string) {
	for _, word := range []string{"certificate", "access denied", "unknown authority"} {
		if strings.Contains(alert, word) {
			return CertificateRejected, fmt.Sprintf("%s does not accept this machine's certificate (%s): %s", f.Host, alert, keyAgain)
		}
	}
	return TLSProtocol, fmt.Sprintf("%s ends the TLS handshake (%s): TLS 1.2 or newer is needed", f.Host, alert)
}

// keyAgain is how a machine gets a certificate that the workspace knows.
const keyAgain = "apply the extension again with workspaceId and workspaceKey, this machine is then registered anew"

func explainStatus(f Facts) (Cause, string) {
	answer := fmt.Sprintf("%d", f.Status)
	if f.Detail != "" {
		answer += ", " + f.Detail
	}
	switch {
	case f.Status >= 200 && f.Status < 300:
		return UnexpectedAnswer, fmt.Sprintf("%s answers, but not as the service does (%s): a captive portal or an intercepting proxy may be in between", f.Host, answer)
	case f.Status >= 300 && f.Status < 400:
		return Redirected, fmt.Sprintf("%s sends the request elsewhere (%s), which is not followed: a captive portal or an intercepting proxy may be in between", f.Host, answer)
	case f.Status == http.StatusUnauthorized || f.Status == http.StatusForbidden:
		return explainForbidden(answer, f)
	case f.Status == http.StatusNotFound, inactive(f.Detail):
		return WorkspaceUnknown, fmt.Sprintf("%s knows no such workspace (%s): check workspaceId and domain, and that the workspace was not deleted", f.Host, answer)
	case f.Status == http.StatusRequestTimeout:
		return Timeout, fmt.Sprintf("the request did not reach %s in time (%s): the network may be slow", f.Host, answer)
	case f.Status == http.StatusTooManyRequests || f.Status == http.StatusServiceUnavailable:
		return ServerBusy, fmt.Sprintf("%s is busy (%s): the agent tries again by itself", f.Host, answer)
	case f.Status >= 500:
		return ServerError, fmt.Sprintf("%s has trouble (%s): the agent tries again by itself; if it lasts, look at Azure's service health", f.Host, answer)
	}
	return RequestRefused, fmt.Sprintf("%s refuses the request (%s): please report this with the agent's log", f.Host, answer)
}

// inactive reports whether the service's word says that the workspace is
// closed (Azure Monitor, HTTP Data Collector API, return codes).
func inactive(word string) bool { return word == "InactiveCustomer" || word == "InvalidCustomerId" }

func explainForbidden(answer string, f Facts) (Cause, string) {
	if !f.Date.IsZero() && beyondSkew(f.Date.Sub(f.Now)) {
		return ClockSkew, fmt.Sprintf("%s refuses the request (%s), and this machine's clock is %s: set the clock, it may differ by %s at most",
			f.Host, answer, ahead(f.Now.Sub(f.Date)), round(maxSkew))
	}
	if f.Key {
		return KeyRejected, fmt.Sprintf("%s refuses the workspace key (%s): copy the primary or secondary key of this workspace from the portal into the protected setting workspaceKey", f.Host, answer)
	}
	return CertificateRejected, fmt.Sprintf("%s refuses this machine's certificate (%s): %s", f.Host, answer, keyAgain)
}

func beyondSkew(d time.Duration) bool { return d.Abs() > maxSkew }

// ahead says how far a clock is ahead by d or, when d is negative, behind.
func ahead(d time.Duration) string {
	if d < 0 {
		return round(-d) + " behind"
	}
	return round(d) + " ahead"
}

// round prints a span as a person would say it: minutes, or days when it is long.
func round(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}
