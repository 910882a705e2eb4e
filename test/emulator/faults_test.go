package emulator

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// order adds a fault, or fails.
func (w *world) order(f Fault) Fault {
	w.t.Helper()
	f, err := w.AddFault(f)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func (w *world) syslogRows() int {
	w.t.Helper()
	rows, err := w.Rows(testWorkspace, "Syslog")
	if err != nil {
		w.t.Fatal(err)
	}
	return len(rows)
}

// TestFaultStatus answers with each status for as many requests as ordered.
func TestFaultStatus(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	for _, tt := range []struct {
		fault  Fault
		reason string
	}{
		{Fault{Status: 503}, "ServiceUnavailable"},
		{Fault{Status: 429, RetryAfter: "next week"}, "TooManyRequests"},
		{Fault{Status: 403}, "Forbidden"},
		{Fault{Status: 401}, "Unauthorized"},
		{Fault{Status: 404}, "NotFound"},
		{Fault{Status: 413}, "RequestEntityTooLarge"},
		{Fault{Status: 400, Reason: "InactiveCustomer"}, "InactiveCustomer"},
		{Fault{Status: 500}, "InternalServerError"},
	} {
		tt.fault.Kind, tt.fault.Endpoint, tt.fault.Times = FaultStatus, "ods", 2
		f := w.order(tt.fault)
		for range 2 {
			got := do(agent, syslogUpload(syslogItem).request(t))
			got.want(t, tt.fault.Status, tt.reason)
			if got.header.Get("Retry-After") != tt.fault.RetryAfter {
				t.Errorf("Retry-After = %q, want %q", got.header.Get("Retry-After"), tt.fault.RetryAfter)
			}
		}
		before := w.syslogRows()
		do(agent, syslogUpload(syslogItem).request(t)).want(t, 200, "")
		if w.syslogRows() != before+1 {
			t.Errorf("%d rows, want %d", w.syslogRows(), before+1)
		}
		if got := w.Faults()[f.ID-1]; got.Struck != 2 || got.Active() {
			t.Errorf("fault = %+v, want struck twice and spent", got)
		}
	}
	if n := len(w.Rejections()); n != 0 {
		t.Errorf("%d rejections, want none: the requests were good", n)
	}
	if got := w.Totals(); got.Faulted != 16 || got.Refused != 0 || got.Accepted != 9 {
		t.Errorf("Totals() = %+v", got)
	}
}

// TestFaultRedirect makes sure that a redirect leads nowhere.
func TestFaultRedirect(t *testing.T) {
	w := open(t)
	w.order(Fault{Kind: FaultStatus, Status: 307, Times: 1})
	c := w.client(nil)
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	got := do(c, newOnboarding(t).request(t))
	if got.status != 307 || got.header.Get("Location") != "https://elsewhere.invalid/" {
		t.Errorf("got %d to %q", got.status, got.header.Get("Location"))
	}
}

// TestFaultPoison refuses only what holds the marker, until it is cleared.
func TestFaultPoison(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	f := w.order(Fault{Kind: FaultStatus, Status: 400, Reason: "InvalidDataFormat", Marker: "POISON"})
	poison := strings.Replace(syslogItem, "Accepted", "POISON", 1)
	do(agent, syslogUpload(syslogItem, poison).request(t)).want(t, 400, "InvalidDataFormat")
	do(agent, syslogUpload(syslogItem).request(t)).want(t, 200, "")
	do(agent, syslogUpload(poison).request(t)).want(t, 400, "InvalidDataFormat")
	w.ClearFaults(f.ID)
	do(agent, syslogUpload(poison).request(t)).want(t, 200, "")
	if n := w.syslogRows(); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

// TestFaultTooManyRows answers 413 until the client halves its batch.
func TestFaultTooManyRows(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	w.order(Fault{Kind: FaultStatus, Status: 413, OverRows: 2})
	do(agent, syslogUpload(syslogItem, syslogItem, syslogItem).request(t)).want(t, 413, "RequestEntityTooLarge")
	do(agent, syslogUpload(syslogItem, syslogItem).request(t)).want(t, 200, "")
}

// TestFaultScope strikes one endpoint of one workspace only.
func TestFaultScope(t *testing.T) {
	const other = "99999999-2222-3333-4444-555555555555"
	w := open(t, func(o *Options) {
		o.Workspaces = append(o.Workspaces, Workspace{ID: other, Keys: []string{testKey}})
	})
	o := newOnboarding(t)
	c := w.client(o.cert)
	w.order(Fault{Kind: FaultStatus, Status: 503, Endpoint: "heartbeat"})
	w.order(Fault{Kind: FaultStatus, Status: 503, Workspace: other})
	do(c, o.request(t)).want(t, 200, "")
	do(c, o.heartbeat(t)).want(t, 503, "ServiceUnavailable")
	do(c, syslogUpload(syslogItem).request(t)).want(t, 200, "")
	u := syslogUpload(syslogItem)
	u.spoil = func(r *http.Request) { r.Host = other + ".ods." + testDomain }
	do(c, u.request(t)).want(t, 503, "ServiceUnavailable")
}

// TestFaultSlow waits before it takes the request.
func TestFaultSlow(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	waited := make(chan time.Duration, 1)
	w.sleep = func(_ context.Context, d time.Duration) { waited <- d }
	w.order(Fault{Kind: FaultSlow, Delay: Duration(90 * time.Second), Times: 1})
	do(agent, syslogUpload(syslogItem).request(t)).want(t, 200, "")
	if d := <-waited; d != 90*time.Second {
		t.Errorf("waited %v, want 90s", d)
	}
	do(agent, syslogUpload(syslogItem).request(t)).want(t, 200, "")
	if n := w.syslogRows(); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

// TestFaultStall never answers: the client gives up, or the emulator stops.
func TestFaultStall(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	w.order(Fault{Kind: FaultStall})
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	got := make(chan result, 2)
	go func() { got <- do(agent, syslogUpload(syslogItem).request(t).WithContext(ctx)) }()
	w.await(func() bool { return w.Faults()[0].Struck == 1 })
	giveUp()
	if r := <-got; !errors.Is(r.err, context.Canceled) {
		t.Errorf("the client got %+v", r)
	}
	go func() { got <- do(agent, syslogUpload(syslogItem).request(t)) }()
	w.await(func() bool { return w.Faults()[0].Struck == 2 })
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if r := <-got; r.err == nil {
		t.Errorf("the client got %+v from the emulator that stopped", r)
	}
	if n := w.syslogRows(); n != 0 {
		t.Errorf("%d rows, want none", n)
	}
}

// TestFaultConnection spoils the connection before and after the rows are
// kept, straight and through the gateway.
func TestFaultConnection(t *testing.T) {
	isReset := func(r result) bool {
		return r.err != nil && !errors.Is(r.err, io.EOF) && !errors.Is(r.err, io.ErrUnexpectedEOF)
	}
	for name, through := range map[string]func(*world, *http.Client) *http.Client{
		"straight": func(_ *world, c *http.Client) *http.Client { return c },
		"gateway":  func(w *world, c *http.Client) *http.Client { return w.viaGateway(c, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t)
			o := newOnboarding(t)
			agent := through(w, w.client(o.cert))
			do(agent, o.request(t)).want(t, 200, "")
			send := func() result { return do(agent, syslogUpload(syslogItem).request(t)) }

			w.order(Fault{Kind: FaultReset, Times: 1})
			if r := send(); !isReset(r) || w.syslogRows() != 0 {
				t.Errorf("reset: got %+v and %d rows", r, w.syslogRows())
			}
			w.order(Fault{Kind: FaultLostAnswer, Times: 1})
			if r := send(); !isReset(r) || w.syslogRows() != 1 {
				t.Errorf("lost answer: got %+v and %d rows", r, w.syslogRows())
			}
			send().want(t, 200, "") // the duplicate
			w.order(Fault{Kind: FaultCut, Times: 1})
			if r := send(); r.err == nil || w.syslogRows() != 3 {
				t.Errorf("cut: got %+v and %d rows", r, w.syslogRows())
			}
			// A refused request keeps its answer: the fault waits for one to spoil.
			w.order(Fault{Kind: FaultLostAnswer, Times: 1})
			do(agent, syslogUpload().request(t)).want(t, 400, "InvalidDataFormat")
			if r := send(); !isReset(r) || w.syslogRows() != 4 {
				t.Errorf("lost answer: got %+v and %d rows", r, w.syslogRows())
			}
		})
	}
}

// TestFaultCutAnywhere closes the connection after each number of bytes.
func TestFaultCutAnywhere(t *testing.T) {
	w := open(t)
	o := newOnboarding(t)
	c := w.client(o.cert)
	for _, n := range []int{1, 9, 12, 17, 40, 180, 400} {
		w.order(Fault{Kind: FaultCut, Bytes: n, Times: 1})
		if r := do(c, o.request(t)); r.err == nil {
			t.Errorf("after %d bytes the client got %+v", n, r)
		}
	}
	w.order(Fault{Kind: FaultCut, Bytes: 1 << 20, Times: 1})
	do(c, o.request(t)).want(t, 200, "")
}

// TestFaultCertificate shows bad certificates to new connections.
func TestFaultCertificate(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	do(agent, syslogUpload(syslogItem).request(t)).want(t, 200, "") // leaves a connection open
	for _, tt := range []struct {
		certificate string
		is          func(error) bool
	}{
		{"expired", func(err error) bool {
			var target x509.CertificateInvalidError
			return errors.As(err, &target) && target.Reason == x509.Expired
		}},
		{"wrong-host", func(err error) bool {
			var target x509.HostnameError
			return errors.As(err, &target)
		}},
		{"untrusted", func(err error) bool {
			var target x509.UnknownAuthorityError
			return errors.As(err, &target)
		}},
		{"none", func(err error) bool { return err != nil && strings.Contains(err.Error(), "remote error: tls") }},
	} {
		w.order(Fault{Kind: FaultCertificate, Certificate: tt.certificate, Times: 1, Workspace: testWorkspace})
		if tt.certificate == "expired" { // the open connection carries one more request and is closed
			do(agent, syslogUpload(syslogItem).request(t)).want(t, 200, "")
		}
		if r := do(agent, syslogUpload(syslogItem).request(t)); !tt.is(r.err) {
			t.Errorf("%s: the client got %+v", tt.certificate, r)
		}
		w.await(func() bool {
			for _, x := range w.Rejections() {
				if x.Reason == "TLSHandshake" && x.Detail != "" {
					return true
				}
			}
			return false
		})
	}
	do(agent, syslogUpload(syslogItem).request(t)).want(t, 200, "")
}

// TestSkew moves the service's clock and its Date header.
func TestSkew(t *testing.T) {
	w := open(t)
	o := newOnboarding(t)
	c := w.client(o.cert)
	if err := w.Set(Settings{QueryInterval: "PT1H", Skew: Duration(20 * time.Minute)}); err != nil {
		t.Fatal(err)
	}
	got := do(c, o.request(t))
	got.want(t, 403, "ClockSkew")
	if date := got.header.Get("Date"); date != "Tue, 02 Jan 2024 03:24:05 GMT" {
		t.Errorf("Date = %q", date)
	}
	o.date = "2024-01-02T03:24:05.123456789+00:00"
	do(c, o.request(t)).want(t, 200, "")
}

// TestFaultChecks refuses orders that make no sense.
func TestFaultChecks(t *testing.T) {
	w := open(t)
	for _, f := range []Fault{
		{},
		{Kind: "flood"},
		{Kind: FaultStatus, Status: 200},
		{Kind: FaultStatus, Status: 503, Endpoint: "oms"},
		{Kind: FaultStatus, Status: 503, Workspace: "99999999-2222-3333-4444-555555555555"},
		{Kind: FaultStatus, Status: 503, Times: -1},
		{Kind: FaultSlow},
		{Kind: FaultCertificate, Certificate: "old"},
		{Kind: FaultCertificate, Certificate: "expired", Endpoint: "ods"},
		{Kind: FaultCut, Endpoint: "gateway"},
	} {
		if got, err := w.AddFault(f); err == nil {
			t.Errorf("AddFault(%+v) = %+v, want an error", f, got)
		}
	}
	if len(w.Faults()) != 0 {
		t.Errorf("Faults() = %+v", w.Faults())
	}
}

// TestGateway leads to the service's hosts and nowhere else.
func TestGateway(t *testing.T) {
	w := open(t)
	o := newOnboarding(t)
	do(w.viaGateway(w.client(o.cert), nil), o.request(t)).want(t, 200, "")
	agent := w.viaGateway(w.client(o.cert), nil)
	do(agent, syslogUpload(syslogItem).request(t)).want(t, 200, "")

	for _, host := range []string{
		"www.example.com", testWorkspace + ".oms.opinsights.azure.com", "99999999-2222-3333-4444-555555555555.ods." + testDomain,
		testWorkspace + ".ods." + testDomain + ":8443", "127.0.0.1",
	} {
		u := syslogUpload(syslogItem)
		u.spoil = func(r *http.Request) { r.URL.Host = host }
		if r := do(agent, u.request(t)); r.err == nil || !strings.Contains(r.err.Error(), "Forbidden") {
			t.Errorf("to %s: got %+v, want Forbidden", host, r)
		}
	}
	plain, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.gatewayAt+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := do(http.DefaultClient, plain); r.status != 405 {
		t.Errorf("GET: got %+v, want 405", r)
	}
}

// TestGatewayPassword asks for a user and password and changes them.
func TestGatewayPassword(t *testing.T) {
	w := open(t, func(o *Options) { o.GatewayUser, o.GatewayPassword = "agent", "s3cret:p@ss" })
	send := func(user *url.Userinfo) result {
		return do(w.viaGateway(w.client(nil), user), syslogUpload(syslogItem).request(t))
	}
	for _, user := range []*url.Userinfo{nil, url.User("agent"), url.UserPassword("agent", "wrong"), url.UserPassword("root", "s3cret:p@ss")} {
		if r := send(user); r.err == nil || !strings.Contains(r.err.Error(), "Proxy Authentication Required") {
			t.Errorf("as %v: got %+v, want 407", user, r)
		}
	}
	send(url.UserPassword("agent", "s3cret:p@ss")).want(t, 403, "MissingClientCertificate")
	s := w.Settings()
	s.GatewayUser = ""
	if err := w.Set(s); err != nil {
		t.Fatal(err)
	}
	send(nil).want(t, 403, "MissingClientCertificate")
}

// TestGatewayFaults has the gateway refuse, stall and reset; what is ordered
// for the service does not touch it.
func TestGatewayFaults(t *testing.T) {
	w := open(t)
	send := func(ctx context.Context) result {
		return do(w.viaGateway(w.client(nil), nil), syslogUpload(syslogItem).request(t).WithContext(ctx))
	}
	w.order(Fault{Kind: FaultStatus, Status: 403, Endpoint: "gateway", Times: 1})
	if r := send(t.Context()); r.err == nil || !strings.Contains(r.err.Error(), "Forbidden") {
		t.Errorf("refused: got %+v", r)
	}
	w.order(Fault{Kind: FaultReset, Endpoint: "gateway", Times: 1})
	if r := send(t.Context()); r.err == nil || errors.Is(r.err, io.EOF) {
		t.Errorf("reset: got %+v", r)
	}
	f := w.order(Fault{Kind: FaultStall, Endpoint: "gateway", Times: 1})
	ctx, giveUp := context.WithCancel(t.Context())
	got := make(chan result, 1)
	go func() { got <- send(ctx) }()
	w.await(func() bool { return w.Faults()[f.ID-1].Struck == 1 })
	giveUp()
	if r := <-got; !errors.Is(r.err, context.Canceled) {
		t.Errorf("stall: got %+v", r)
	}
	w.order(Fault{Kind: FaultStatus, Status: 503})
	send(t.Context()).want(t, 503, "ServiceUnavailable")
}
