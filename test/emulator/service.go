package emulator

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Endpoints, as exchanges and faults name them.
const (
	endpointOnboarding = "onboarding"
	endpointHeartbeat  = "heartbeat"
	endpointRenewal    = "renewal"
	endpointTelemetry  = "telemetry"
	endpointODS        = "ods"
	endpointCollector  = "collector"
	endpointGateway    = "gateway"

	endpointConfiguration = "configuration"
)

// Paths of the service (OMS agent for Linux, omsadmin.sh and oms_common.rb).
const (
	pathTopology  = "/AgentService.svc/LinuxAgentTopologyRequest"
	pathTelemetry = "/AgentService.svc/AgentTelemetry"
	pathRenewal   = "/ConfigurationService.Svc/RenewCertificate"
	pathODS       = "/OperationalData.svc/PostJsonDataItems"
	pathCollector = "/api/logs"
)

// maxBody is the documented ceiling of a post, in bytes as sent.
const maxBody = 30_000_000

// A call is one request to the service and what is known about it.
type call struct {
	*http.Request
	Exchange
	role role
	body []byte // as sent, at most maxBody
	over bool   // there was more than maxBody
	gone bool   // the client left before the body was complete
	now  time.Time
}

// place is where faults look for the call.
func (c *call) place() place { return place{c.Workspace, c.Endpoint} }

// note adds a remark that is no reason to refuse.
func (c *call) note(format string, args ...any) {
	if len(c.Notes) < 20 {
		c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
	}
}

// peer is the certificate that the client proved to own, nil without one.
func (c *call) peer() *x509.Certificate {
	if c.TLS == nil || len(c.TLS.PeerCertificates) == 0 {
		return nil
	}
	return c.TLS.PeerCertificates[0]
}

// header returns a header that has to be there exactly once. The agent service
// answers 403 when it is missing, the data service 400.
func (c *call) header(name string) (string, *refusal) {
	values := c.Header.Values(name)
	if len(values) > 1 {
		return "", refuse(http.StatusBadRequest, "DuplicateHeader", "%s is there %d times", name, len(values))
	}
	if len(values) == 1 && values[0] != "" {
		return values[0], nil
	}
	status := http.StatusBadRequest
	if c.role.oms {
		status = http.StatusForbidden
	}
	return "", refuse(status, "MissingHeader", "%s is missing", name)
}

// A refusal is the answer to a request that the service does not take.
type refusal struct {
	status         int
	reason, detail string
	header         http.Header
}

func refuse(status int, reason, format string, args ...any) *refusal {
	return &refusal{status: status, reason: reason, detail: fmt.Sprintf(format, args...)}
}

// An answer is what goes back, and how.
type answer struct {
	status int
	header http.Header
	body   []byte
	fate   string // the fault kind that spoils it, or empty
	bytes  int    // what FaultCut lets through
}

// serveService takes every request that came over TLS.
func (e *Emulator) serveService(w http.ResponseWriter, r *http.Request) {
	c := e.receive(w, r)
	if c.gone {
		c.Detail = "the client left before its request was complete"
		e.record(c.Exchange)
		hangUp()
	}
	e.send(w, c, e.answer(c))
}

// receive reads the request and finds out whom it is for.
func (e *Emulator) receive(w http.ResponseWriter, r *http.Request) *call {
	c := &call{Request: r, now: e.now()}
	c.Time = c.now
	c.Exchange.Method = r.Method
	c.Path = clip(r.URL.RequestURI(), 200)
	c.RequestID = clip(r.Header.Get("X-Request-ID"), 64)
	host := strings.ToLower(r.Host)
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if found, ok := e.hosts[host]; ok {
		c.role = found
		c.Workspace = found.workspace.id
	}
	c.Endpoint = endpointOf(c)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	c.body, c.Bytes = body, len(body)
	var tooLarge *http.MaxBytesError
	c.over = errors.As(err, &tooLarge)
	c.gone = err != nil && !c.over
	return c
}

func endpointOf(c *call) string {
	switch path := c.URL.Path; {
	case c.role.workspace == nil:
		return "unknown"
	case c.role.agentsvc:
		return endpointConfiguration
	case c.role.oms && path == pathTopology && c.Header.Get("Authorization") == "":
		return endpointHeartbeat
	case c.role.oms && path == pathTopology:
		return endpointOnboarding
	case c.role.oms && path == pathTelemetry:
		return endpointTelemetry
	case c.role.oms && path == pathRenewal:
		return endpointRenewal
	case !c.role.oms && path == pathODS:
		return endpointODS
	case !c.role.oms && path == pathCollector:
		return endpointCollector
	}
	return "unknown"
}

// answer decides: faults first, then the endpoint, then the faults that spoil
// an answer. The exchange is in the journal before anything is sent.
func (e *Emulator) answer(c *call) answer {
	if f, ok := e.faults.strike(c.place(), Fault.delays); ok {
		c.Fault = f.Kind
		e.sleep(c.Context(), time.Duration(f.Delay))
	}
	out, no := e.decide(c)
	if no == nil && out.fate == "" {
		c.Status = out.status
		if f, ok := e.faults.strike(c.place(), Fault.afterwards); ok {
			c.Fault, out.fate, out.bytes = f.Kind, f.Kind, f.Bytes
		}
	}
	if no != nil {
		c.Status, c.Reason, c.Detail = no.status, no.reason, no.detail
		out = e.refused(c, no)
	}
	e.record(c.Exchange)
	return out
}

func (e *Emulator) decide(c *call) (answer, *refusal) {
	if f, ok := e.faults.strike(c.place(), Fault.beforehand); ok {
		c.Fault = f.Kind
		if f.Kind == FaultStatus {
			return answer{}, f.refusal()
		}
		return answer{fate: f.Kind}, nil
	}
	switch c.Endpoint {
	case endpointOnboarding:
		return e.onboard(c)
	case endpointHeartbeat:
		return e.heartbeat(c)
	case endpointRenewal:
		return e.renew(c)
	case endpointTelemetry:
		return e.telemetry(c)
	case endpointODS:
		return e.postData(c)
	case endpointCollector:
		return e.collect(c)
	case endpointConfiguration:
		return e.configuration(c)
	}
	if c.role.workspace == nil {
		return answer{}, refuse(http.StatusNotFound, "UnknownHost", "no workspace answers to host %q", clip(c.Host, 100))
	}
	return answer{}, refuse(http.StatusNotFound, "UnknownPath", "%s does not serve %q", c.Host, clip(c.URL.Path, 100))
}

// refusal is what FaultStatus answers.
func (f Fault) refusal() *refusal {
	reason := f.Reason
	if reason == "" {
		reason = strings.ReplaceAll(http.StatusText(f.Status), " ", "")
	}
	no := refuse(f.Status, reason, "fault %d was ordered", f.ID)
	no.header = http.Header{}
	if f.RetryAfter != "" {
		no.header.Set("Retry-After", f.RetryAfter)
	}
	if f.Status < 400 {
		no.header.Set("Location", "https://elsewhere.invalid/")
	}
	return no
}

// refused dresses a refusal as the host would: XML with a Reason from the
// agent service, JSON with an Error from the data service.
func (e *Emulator) refused(c *call, no *refusal) answer {
	out := answer{status: no.status, header: no.header}
	if out.header == nil {
		out.header = http.Header{}
	}
	if !c.role.oms {
		out.header.Set("Content-Type", "application/json; charset=utf-8")
		body, err := json.Marshal(struct{ Error, Message string }{no.reason, no.detail})
		if err != nil {
			panic(err) // two strings always marshal
		}
		out.body = body
		return out
	}
	out.header.Set("Content-Type", "application/xml; charset=utf-8")
	out.body = fmt.Appendf(nil, `<?xml version="1.0" encoding="utf-8"?><Error xmlns=%q><Reason>%s</Reason><Message>%s</Message></Error>`,
		namespace, escapeXML(no.reason), escapeXML(no.detail))
	return out
}

func escapeXML(text string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(text)); err != nil {
		panic(err) // a Builder does not fail
	}
	return b.String()
}

// send puts the answer on the wire, or does to the connection what the fault
// says.
func (e *Emulator) send(w http.ResponseWriter, c *call, out answer) {
	if out.fate == FaultStall {
		<-c.Context().Done()
		hangUp()
	}
	if out.header == nil {
		out.header = http.Header{}
	}
	out.header.Set("Date", c.now.UTC().Format(http.TimeFormat))
	out.header.Set("Content-Length", strconv.Itoa(len(out.body)))
	if c.over || e.faults.waiting(Fault.atHandshake) {
		out.header.Set("Connection", "close")
	}
	if out.fate != "" {
		e.spoil(w, out)
		return
	}
	maps.Copy(w.Header(), out.header)
	w.WriteHeader(out.status)
	if _, err := w.Write(out.body); err != nil {
		e.logf("answer to %s %s: %v", c.Exchange.Method, c.Path, err)
	}
}

// spoil takes the connection over and cuts or resets it.
func (e *Emulator) spoil(w http.ResponseWriter, out answer) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		e.logf("spoil answer: %v", err)
		return
	}
	if out.fate == FaultCut {
		_, err = conn.Write(firstBytes(out))
		if err == nil {
			err = conn.Close()
		}
	} else {
		err = reset(conn)
	}
	if err != nil {
		e.logf("spoil answer: %v", err)
	}
}

// hangUp ends a handler and the connection. To return without an answer would
// make net/http say 200, and the client would take its rows for kept.
func hangUp() { panic(http.ErrAbortHandler) }

// firstBytes is the beginning of the answer that FaultCut lets through.
func firstBytes(out answer) []byte {
	var wire bytes.Buffer
	fmt.Fprintf(&wire, "HTTP/1.1 %d %s\r\n", out.status, http.StatusText(out.status))
	if err := out.header.Write(&wire); err != nil {
		panic(err) // a Buffer does not fail
	}
	wire.WriteString("\r\n")
	wire.Write(out.body)
	n := out.bytes
	if n == 0 {
		n = wire.Len() / 2
	}
	return wire.Bytes()[:min(n, wire.Len())]
}

// reset closes the connection so that the peer sees a reset, no TLS good-bye.
func reset(conn net.Conn) error {
	switch c := conn.(type) {
	case *tls.Conn:
		return reset(c.NetConn())
	case tunnel:
		return reset(c.Conn)
	case *net.TCPConn:
		if err := c.SetLinger(0); err != nil {
			return err
		}
	}
	return conn.Close()
}

// clip shortens what a client sent before it is shown.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
