package emulator

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// The workspace and key of the published vectors: the bytes 00 to 3F.
const (
	testWorkspace = "11111111-2222-3333-4444-555555555555"
	testKey       = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw=="
	secondKey     = "qoTgVB0a1393p4FUncrY0nc/U1/CkOYlXz3ok3Oe79gSB6NLa853hiQzcwcyBb10Rjj7iswRvoJGtLJUD/o/yw=="
	testDomain    = "emulator.test"
	testGUID      = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
)

var testTime = time.Date(2024, 1, 2, 3, 4, 5, 123456789, time.UTC)

// A world is an emulator that is being served, with its clock in our hands.
type world struct {
	*Emulator
	t *testing.T

	mu  sync.Mutex
	now time.Time

	service, gatewayAt, apiAt string
	stop                      func() error
}

// open serves an emulator until the test ends.
func open(t *testing.T, options ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, now: testTime}
	o := Options{
		Dir:        t.TempDir(),
		Workspaces: []Workspace{{ID: testWorkspace, Keys: []string{testKey, secondKey}}},
		Domain:     testDomain,
		Clock: func() time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.now
		},
	}
	for _, option := range options {
		option(&o)
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	w.Emulator = e
	listeners := Listeners{Service: listenLocal(t), Gateway: listenLocal(t), API: listenLocal(t)}
	w.service, w.gatewayAt, w.apiAt = listeners.Service.Addr().String(), listeners.Gateway.Addr().String(), listeners.API.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Serve(ctx, listeners) }()
	w.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Errorf("Serve() = %v", err)
		}
	})
	return w
}

func listenLocal(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (w *world) setTime(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = at
}

// await waits until done, looking again at every change.
func (w *world) await(done func() bool) {
	w.t.Helper()
	for {
		changed := w.changed.wait()
		if done() {
			return
		}
		select {
		case <-changed:
		case <-time.After(30 * time.Second):
			w.t.Fatal("what was awaited did not happen")
		}
	}
}

// client trusts the emulator's authority and shows cert, if there is one.
// Whatever host it asks for, it gets the emulator.
func (w *world) client(cert *tls.Certificate) *http.Client {
	w.t.Helper()
	pem, err := os.ReadFile(w.CAFile())
	if err != nil {
		w.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	transport := &http.Transport{TLSClientConfig: config, DialContext: w.dial}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (w *world) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", w.service)
}

// dialTLS opens a connection for requests that net/http would not send.
func (w *world) dialTLS(host string) net.Conn {
	w.t.Helper()
	config := w.client(nil).Transport.(*http.Transport).TLSClientConfig
	config.ServerName = host
	conn, err := (&tls.Dialer{Config: config}).DialContext(w.t.Context(), "tcp", w.service)
	if err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// viaGateway makes a client go through the gateway.
func (w *world) viaGateway(c *http.Client, user *url.Userinfo) *http.Client {
	transport := c.Transport.(*http.Transport)
	transport.DialContext = nil
	transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: w.gatewayAt, User: user})
	return c
}

// A result is an answer, read.
type result struct {
	status int
	header http.Header
	body   string
	reason string // of a refusal
	err    error
}

func do(c *http.Client, r *http.Request) result {
	response, err := c.Do(r)
	if err != nil {
		return result{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	out := result{status: response.StatusCode, header: response.Header, body: string(body), err: err}
	if strings.HasPrefix(response.Header.Get("Content-Type"), "application/xml") {
		var document struct{ Reason string }
		if err := xml.Unmarshal(body, &document); err != nil {
			out.err = err
		}
		out.reason = document.Reason
	} else if json.Valid(body) {
		var document struct{ Error string }
		if err := json.Unmarshal(body, &document); err == nil {
			out.reason = document.Error
		}
	}
	return out
}

// want fails the test unless the answer has that status and reason.
func (r result) want(t *testing.T, status int, reason string) {
	t.Helper()
	if r.err != nil || r.status != status || r.reason != reason {
		t.Fatalf("got %d %q (error %v), want %d %q; body: %s", r.status, r.reason, r.err, status, reason, r.body)
	}
}

// rsaKeys are made once; they take a while.
var rsaKeys = sync.OnceValues(func() ([2]*rsa.PrivateKey, error) {
	var keys [2]*rsa.PrivateKey
	for i := range keys {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return keys, err
		}
		keys[i] = key
	}
	return keys, nil
})

func rsaKey(t *testing.T, i int) *rsa.PrivateKey {
	t.Helper()
	keys, err := rsaKeys()
	if err != nil {
		t.Fatal(err)
	}
	return keys[i]
}

// agentCertificate makes the certificate that an agent makes for itself;
// change spoils it.
func agentCertificate(t *testing.T, key *rsa.PrivateKey, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(4711),
		Subject: pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: testWorkspace},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: testGUID},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "Linux Monitoring Agent"},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Microsoft"},
		}},
		NotBefore:             testTime.Truncate(time.Second),
		NotAfter:              testTime.Truncate(time.Second).AddDate(0, 0, 365),
		SignatureAlgorithm:    x509.SHA256WithRSA,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	if change != nil {
		change(template)
	}
	return signedBy(t, template, template, key, key)
}

func signedBy(t *testing.T, template, parent *x509.Certificate, key, signer *rsa.PrivateKey) *tls.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// An onboarding is a request that the service takes, until a test spoils it.
type onboarding struct {
	cert *tls.Certificate // shown in the handshake
	body string
	date string
	key  string
	// spoil changes the finished request.
	spoil func(*http.Request)
}

const operatingSystem = `<OperatingSystem><InContainer>False</InContainer>` +
	`<Telemetry PercentUserTime="1" PercentPrivilegedTime="0.5" UsedMemory="20480" PercentUsedMemory="2"></Telemetry>` +
	`<ProcessorArchitecture>x64</ProcessorArchitecture><Name>Ubuntu 20.04 (x86_64)</Name>` +
	`<Manufacturer>Canonical Group Limited</Manufacturer><Version>20.04</Version></OperatingSystem>`

func newOnboarding(t *testing.T) *onboarding {
	t.Helper()
	cert := agentCertificate(t, rsaKey(t, 0), nil)
	return &onboarding{cert: cert, body: topologyBody(cert), date: "2024-01-02T03:04:05.123456789+00:00", key: testKey}
}

func topologyBody(cert *tls.Certificate) string {
	return "<?xml version=\"1.0\"?>\n" +
		`<AgentTopologyRequest xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema"` +
		` xmlns="http://schemas.microsoft.com/WorkloadMonitoring/HealthServiceProtocol/2014/09/">` +
		`<FullyQualfiedDomainName>host1.example.test</FullyQualfiedDomainName><EntityTypeId>` + testGUID + `</EntityTypeId>` +
		`<AuthenticationCertificate>` + base64.StdEncoding.EncodeToString(cert.Certificate[0]) + `</AuthenticationCertificate>` +
		operatingSystem + `</AgentTopologyRequest>`
}

func (o *onboarding) request(t *testing.T) *http.Request {
	t.Helper()
	sum := sha256.Sum256([]byte(o.body))
	hash := base64.StdEncoding.EncodeToString(sum[:])
	r := post(t, "https://"+testWorkspace+".oms."+testDomain+"/AgentService.svc/LinuxAgentTopologyRequest", o.body, map[string]string{
		"x-ms-Date":           o.date,
		"x-ms-version":        "August, 2014",
		"x-ms-SHA256_Content": hash,
		"Authorization":       testWorkspace + "; " + hmacBase64(t, o.key, o.date+"\n"+hash+"\n"),
		"User-Agent":          "LinuxMonitoringAgent/1.19.0-0",
		"Accept-Language":     "en-US",
		"Content-Type":        "application/x-www-form-urlencoded",
	})
	if o.spoil != nil {
		o.spoil(r)
	}
	return r
}

// heartbeat is the same request without what onboarding signs.
func (o *onboarding) heartbeat(t *testing.T) *http.Request {
	t.Helper()
	spoil := o.spoil
	o.spoil = nil
	r := o.request(t)
	o.spoil = spoil
	for _, name := range []string{"x-ms-version", "x-ms-SHA256_Content", "Authorization"} {
		r.Header.Del(name)
	}
	if spoil != nil {
		spoil(r)
	}
	return r
}

func post(t *testing.T, url, body string, header map[string]string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	return r
}

// hmacBase64 signs as a client does, without the emulator's code.
func hmacBase64(t *testing.T, key, text string) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	// RFC 2104, written out.
	inner, outer := sha256.New(), sha256.New()
	block := make([]byte, sha256.BlockSize)
	copy(block, raw)
	for _, b := range block {
		inner.Write([]byte{b ^ 0x36})
		outer.Write([]byte{b ^ 0x5c})
	}
	inner.Write([]byte(text))
	outer.Write(inner.Sum(nil))
	return base64.StdEncoding.EncodeToString(outer.Sum(nil))
}

// onboarded returns the client of an agent that the service knows.
func (w *world) onboarded() *http.Client {
	w.t.Helper()
	o := newOnboarding(w.t)
	c := w.client(o.cert)
	do(c, o.request(w.t)).want(w.t, 200, "")
	return c
}

// An upload is a post of rows that the service takes, until a test spoils it.
type upload struct {
	query string
	body  []byte // as sent
	spoil func(*http.Request)
}

var uploads struct {
	sync.Mutex
	n int
}

func (u upload) request(t *testing.T) *http.Request {
	t.Helper()
	uploads.Lock()
	uploads.n++
	id := fmt.Sprintf("00000000-0000-4000-8000-%012d", uploads.n)
	uploads.Unlock()
	r := post(t, "https://"+testWorkspace+".ods."+testDomain+"/OperationalData.svc/PostJsonDataItems"+u.query, string(u.body), map[string]string{
		"Content-Type":                    "application/json",
		"Content-Encoding":                "deflate",
		"X-Request-ID":                    id,
		"User-Agent":                      "LinuxMonitoringAgent/1.19.0-0",
		"x-ms-app":                        "LinuxMonitoringAgent",
		"x-ms-client-version":             "1.19.0-0",
		"x-ms-client-platform":            "Linux",
		"x-ms-client-request-retry-count": "0",
		"x-ms-AzureRegion":                "westeurope",
	})
	if u.query != "" {
		r.Header.Set("Log-Type", "MyApp")
		r.Header.Set("x-ms-date", "Tue, 02 Jan 2024 03:04:05 GMT")
	}
	if u.spoil != nil {
		u.spoil(r)
	}
	return r
}

// pack compresses as the protocol wants it.
func pack(text string) []byte {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	_, _ = z.Write([]byte(text)) // a Buffer does not fail
	_ = z.Close()
	return b.Bytes()
}

const syslogItem = `{"ident":"sshd","Timestamp":"2024-01-02T03:04:05.123Z","EventTime":"2024-01-02T03:04:04Z","Host":"host1",` +
	`"HostIP":"10.0.0.4","Message":"Accepted <publickey> for root","ProcessId":"811","Facility":"auth","Severity":"info"}`

func syslogBody(items ...string) string {
	return `{"DataType":"LINUX_SYSLOGS_BLOB","IPName":"LOGMANAGEMENT","DataItems":[` + strings.Join(items, ",") + `]}`
}

func syslogUpload(items ...string) upload { return upload{body: pack(syslogBody(items...))} }
