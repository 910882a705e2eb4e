// Package proxy reads the proxy setting and leads connections through it.
//
// The setting is [scheme://][user:password@]host[:port], what the earlier Log
// Analytics agents took, with these particulars:
//
//   - the scheme is http (the default) or https and says how the hop to the
//     proxy is made; what goes through is tunnelled with CONNECT either way;
//   - the last @ ends the user and the password, the first colon between them
//     divides them; %XX escapes in both are decoded, and a percent sign that
//     begins no escape stands for itself;
//   - an IPv6 address stands in brackets;
//   - without a port it is 80 for http and 443 for https. The Log Analytics
//     gateway listens on 8080, which has to be written.
//
// The environment's http_proxy, https_proxy and no_proxy never count.
package proxy

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/openloganalytics/agent/internal/secret"
)

// A Proxy is a parsed proxy setting. A nil Proxy stands for a direct connection.
type Proxy struct {
	scheme string
	host   string // without brackets
	port   string
	// authorization is the Proxy-Authorization header, nil without a user. It
	// is a pointer because fmt prints what an unexported field holds without
	// asking the Secret.
	authorization *secret.Secret
}

// Parse reads a proxy setting; spaces and line ends around it do not count.
// Its errors name the part at fault and repeat nothing of the text: where a
// setting is wrong, any part of it may be the password.
func Parse(text secret.Secret) (*Proxy, error) {
	p, err := parse(strings.TrimSpace(text.Reveal()))
	if err != nil {
		return nil, fmt.Errorf("read proxy setting: %w; write [http://|https://][user:password@]host[:port]", err)
	}
	return p, nil
}

func parse(text string) (*Proxy, error) {
	if text == "" {
		return nil, errors.New("it is empty")
	}
	p := &Proxy{scheme: "http", port: "80"}
	if scheme, rest, found := strings.Cut(text, "://"); found && isScheme(scheme) {
		text = rest
		switch strings.ToLower(scheme) {
		case "http":
		case "https":
			p.scheme, p.port = "https", "443"
		default:
			return nil, errors.New("the scheme is neither http nor https")
		}
	}
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		if err := p.setUser(text[:at]); err != nil {
			return nil, err
		}
		text = text[at+1:]
	}
	return p, p.setAddress(strings.TrimSuffix(text, "/"))
}

// isScheme reports whether s has the form of a URL scheme (RFC 3986, 3.1).
// That tells a scheme from a password that holds "://".
func isScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(c))) {
			return false
		}
	}
	return s != ""
}

// setUser takes user:password. Nothing on both sides, which anonymous proxies
// were once configured with, is no user.
func (p *Proxy) setUser(text string) error {
	user, password, _ := strings.Cut(text, ":")
	user, password = unescape(user), unescape(password)
	if user == "" && password == "" {
		return nil
	}
	if strings.Contains(user, ":") {
		return errors.New("the user name holds a colon, which proxies cannot be told (RFC 7617)")
	}
	basic := secret.New("Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	p.authorization = &basic
	return nil
}

// unescape decodes %XX and leaves every other percent sign as it is.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// setAddress takes host[:port].
func (p *Proxy) setAddress(text string) error {
	host, port, hasPort := strings.Cut(text, ":")
	if inner, bracketed := strings.CutPrefix(text, "["); bracketed {
		var rest string
		var closed bool
		host, rest, closed = strings.Cut(inner, "]")
		addr, err := netip.ParseAddr(host)
		if !closed || err != nil || !addr.Is6() || addr.Zone() != "" {
			return errors.New("the host in brackets is not an IPv6 address")
		}
		port, hasPort = strings.CutPrefix(rest, ":")
		if rest != "" && !hasPort {
			return errors.New("only :port may follow the brackets")
		}
	} else if strings.Contains(port, ":") {
		return errors.New("the host holds a colon: an IPv6 address stands in brackets, as in [2001:db8::1]:3128")
	} else if !isHost(host) {
		return errors.New("the host is not a name or an address: an international name is written in its xn-- form")
	}
	if hasPort {
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil || number == 0 {
			return errors.New("the port is not a number from 1 to 65535")
		}
		p.port = strconv.FormatUint(number, 10)
	}
	p.host = host
	return nil
}

// isHost reports whether s can be a host name or an IPv4 address.
func isHost(s string) bool {
	for _, c := range []byte(s) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && !strings.ContainsRune("0123456789.-_", rune(c)) {
			return false
		}
	}
	return s != "" && len(s) <= 253
}

// String returns scheme://host:port, without user and password, and "direct"
// for a nil Proxy.
func (p *Proxy) String() string {
	if p == nil {
		return "direct"
	}
	return p.scheme + "://" + net.JoinHostPort(p.host, p.port)
}

// A ConnectError is the proxy's refusal to open a tunnel.
type ConnectError struct {
	Proxy  string // scheme://host:port
	Status int    // what it answered: 407 wants a user and password
}

func (e *ConnectError) Error() string {
	return fmt.Sprintf("proxy %s answered CONNECT with status %d", e.Proxy, e.Status)
}

// Apply makes t connect through the proxy, directly for a nil Proxy. Requests
// to link-local addresses, where Azure's instance metadata is, never take the
// proxy. Call it once, when t's DialContext and TLSClientConfig are set.
//
// User and password travel in the CONNECT header only: the proxy's URL, which
// net/http prints in errors, has neither. A refused tunnel fails with a
// ConnectError, all other trouble on the way to the proxy with a *net.OpError
// whose Op is "proxyconnect".
func (p *Proxy) Apply(t *http.Transport) {
	t.Proxy = nil
	if p == nil {
		return
	}
	via := &url.URL{Scheme: p.scheme, Host: net.JoinHostPort(p.host, p.port)}
	t.Proxy = func(r *http.Request) (*url.URL, error) {
		if addr, err := netip.ParseAddr(r.URL.Hostname()); err == nil && addr.IsLinkLocalUnicast() {
			return nil, nil
		}
		if r.URL.Scheme != "https" {
			return nil, errors.New("only https goes through the proxy")
		}
		return via, nil
	}
	t.GetProxyConnectHeader = func(context.Context, *url.URL, string) (http.Header, error) {
		header := http.Header{}
		if p.authorization != nil {
			header.Set("Proxy-Authorization", p.authorization.Reveal())
		}
		return header, nil
	}
	t.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, response *http.Response) error {
		if response.StatusCode != http.StatusOK {
			return &ConnectError{Proxy: p.String(), Status: response.StatusCode}
		}
		return nil
	}
	if p.scheme == "https" {
		t.DialTLSContext = p.dialTLS(t)
	}
}

// dialTLS returns the first hop to an https proxy. net/http would use t's own
// TLS configuration, and show a client certificate to the proxy that is meant
// for the server behind it.
func (p *Proxy) dialTLS(t *http.Transport) func(context.Context, string, string) (net.Conn, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: p.host}
	if own := t.TLSClientConfig; own != nil {
		config.RootCAs, config.Time = own.RootCAs, own.Time
	}
	dial := t.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if t.TLSHandshakeTimeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, t.TLSHandshakeTimeout)
			defer cancel()
		}
		conn := tls.Client(raw, config)
		if err := conn.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, raw.Close())
		}
		return conn, nil
	}
}
