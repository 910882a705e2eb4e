package workspace

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// How long the parts of an exchange may take.
const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	headerTimeout    = 30 * time.Second
	idleTimeout      = 60 * time.Second
)

// wireServer is where Azure's platform answers the guest agent of every VM.
const wireServer = "168.63.129.16"

// An addressError says that a name led to an address that is never connected to.
type addressError struct{ address string }

func (e *addressError) Error() string {
	return "address " + e.address + " belongs to the platform, not to a service"
}

// maxUnsent is what the system may keep of a request that the network has not
// taken yet, in bytes: what it keeps looks as if it were on its way, and time
// for the answer would run out before a slow link has all of it.
const maxUnsent = 64 << 10

// control looks at a connection before it is made.
func control(ctx context.Context, network, address string, conn syscall.RawConn) error {
	if err := checkAddress(ctx, network, address, conn); err != nil {
		return err
	}
	return limitUnsent(conn)
}

// checkAddress refuses the addresses at which the platform hands out secrets to
// whoever asks: the link-local ones (instance metadata) and the wire server.
// So no name, rebound or misspelt, makes the agent post there. It sees the
// address after name resolution, for each attempt. Loopback is allowed: proxies
// and the workspace emulator run there, and nothing is gained by asking them.
func checkAddress(_ context.Context, _, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("check address %s: %w", address, err)
	}
	ip := target.Addr().Unmap()
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || ip == netip.MustParseAddr(wireServer) {
		return &addressError{ip.String()}
	}
	return nil
}

// newTransport returns the one transport of a client. certificate is asked
// for at each handshake.
func newTransport(o Options, certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)) *http.Transport {
	dial := o.Dial
	if dial == nil {
		dialer := &net.Dialer{Timeout: dialTimeout, Resolver: o.Resolver, ControlContext: control}
		dial = dialer.DialContext
	}
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	transport := &http.Transport{
		DialContext: dial,
		TLSClientConfig: &tls.Config{
			MinVersion:           tls.VersionTLS12,
			RootCAs:              o.RootCAs,
			Time:                 o.Clock,
			GetClientCertificate: certificate,
		},
		Protocols:              http1,
		TLSHandshakeTimeout:    handshakeTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		IdleConnTimeout:        idleTimeout,
		MaxConnsPerHost:        2, // as many as an uploader has in flight
		MaxIdleConnsPerHost:    2,
		MaxResponseHeaderBytes: 16 << 10,
		DisableCompression:     true, // an answer is small, and bounded as it comes
	}
	o.Proxy.Apply(transport)
	return transport
}
