package emulator

import (
	"bufio"
	"crypto/subtle"
	"errors"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// gateway is a forward proxy like the Log Analytics gateway: HTTP CONNECT, for
// hosts of the service only. It needs neither name resolution nor a network:
// the tunnel ends in this very process.
func (e *Emulator) gateway(tunnels *handover) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := e.now()
		x := Exchange{Endpoint: endpointGateway, Time: now, Method: r.Method, Path: clip(r.RequestURI, 200)}
		host, port, err := net.SplitHostPort(strings.ToLower(r.Host))
		role, known := e.hosts[host]
		if known {
			x.Workspace = role.workspace.id
		}
		p := place{x.Workspace, endpointGateway}
		if f, ok := e.faults.strike(p, Fault.delays); ok {
			x.Fault = f.Kind
			e.sleep(r.Context(), time.Duration(f.Delay))
		}
		var no *refusal
		f, struck := e.faults.strike(p, Fault.beforehand)
		switch {
		case struck && f.Kind == FaultStatus:
			x.Fault, no = f.Kind, f.refusal()
		case struck:
			x.Fault = f.Kind
			e.record(x)
			e.spoilTunnel(w, r, f)
			return
		case r.Method != http.MethodConnect:
			no = refuse(http.StatusMethodNotAllowed, "MethodNotAllowed", "the gateway takes CONNECT")
			no.header = http.Header{"Allow": {http.MethodConnect}}
		case !e.mayPass(r):
			no = refuse(http.StatusProxyAuthRequired, "ProxyAuthenticationRequired", "Proxy-Authorization is missing or wrong")
			no.header = http.Header{"Proxy-Authenticate": {`Basic realm="gateway"`}}
		case err != nil || port != "443" || !known:
			no = refuse(http.StatusForbidden, "HostNotAllowed", "the gateway does not lead to %q", clip(r.Host, 100))
		}
		if no != nil {
			x.Status, x.Reason, x.Detail = no.status, no.reason, no.detail
			e.record(x)
			maps.Copy(w.Header(), no.header)
			http.Error(w, no.reason+": "+no.detail, no.status)
			return
		}
		x.Status = http.StatusOK
		e.record(x)
		e.openTunnel(w, tunnels)
	})
}

// mayPass checks the password, if the gateway wants one.
func (e *Emulator) mayPass(r *http.Request) bool {
	settings := e.Settings()
	if settings.GatewayUser == "" {
		return true
	}
	given := &http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
	user, password, ok := given.BasicAuth()
	return ok &&
		subtle.ConstantTimeCompare([]byte(user), []byte(settings.GatewayUser)) == 1 &&
		subtle.ConstantTimeCompare([]byte(password), []byte(settings.GatewayPassword)) == 1
}

func (e *Emulator) openTunnel(w http.ResponseWriter, tunnels *handover) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		e.logf("open tunnel: %v", err)
		return
	}
	_, err = conn.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n"))
	if err == nil {
		err = tunnels.give(tunnel{conn, buffered.Reader})
	}
	if err != nil {
		e.logf("open tunnel: %v", errors.Join(err, conn.Close()))
	}
}

// spoilTunnel stalls or resets instead of answering.
func (e *Emulator) spoilTunnel(w http.ResponseWriter, r *http.Request, f Fault) {
	if f.Kind == FaultStall {
		<-r.Context().Done()
		hangUp()
	}
	e.spoil(w, answer{fate: f.Kind})
}

// A tunnel is a client's connection after CONNECT, with what the client sent
// early.
type tunnel struct {
	net.Conn
	early *bufio.Reader
}

// Read reads what came early, then the connection.
func (t tunnel) Read(p []byte) (int, error) { return t.early.Read(p) }

// A handover is the listener through which the gateway gives its tunnels to
// the service.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHandover() *handover {
	return &handover{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (h *handover) give(conn net.Conn) error {
	select {
	case h.conns <- conn:
		return nil
	case <-h.closed:
		return net.ErrClosed
	}
}

// Accept waits for the next tunnel.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr names the listener; there is no address.
func (h *handover) Addr() net.Addr { return &net.UnixAddr{Name: "gateway", Net: "gateway"} }
