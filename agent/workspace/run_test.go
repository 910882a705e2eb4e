package workspace

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestOnboarding follows one onboarding by the letter.
func TestOnboarding(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		s.writeKey(testKey)
		c := s.client()
		if state, _, _, _ := c.State(); state != "starting" {
			t.Errorf("state before Run is %q", state)
		}
		s.run(c)
		wantState(t, c, "connected", "")
		if s.keyIsThere() {
			t.Error("the key file was kept")
		}
		if len(s.states) != 1 {
			t.Errorf("OnChange was called %d times: %q", len(s.states), s.states)
		}

		requests := s.seen("")
		if len(requests) != 1 {
			t.Fatalf("%d requests", len(requests))
		}
		r := requests[0]
		id, err := loadIdentity(s.dir, testWorkspace)
		if err != nil {
			t.Fatal(err)
		}
		if r.method != http.MethodPost || r.url != hostOnly(omsAddress)+"/AgentService.svc/LinuxAgentTopologyRequest" || r.proto != "HTTP/1.1" {
			t.Errorf("%s %s %s", r.method, r.url, r.proto)
		}
		if r.thumbprint != id.thumbprint() {
			t.Error("the client certificate is not the identity's")
		}
		wantBody, err := topologyBody(testHost(), id.guid, id.leaf().Raw)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(wantBody), string(r.body)); diff != "" {
			t.Errorf("body (-want +got):\n%s", diff)
		}
		wantHeader := http.Header{
			"X-Ms-Date":           {OnboardingDate(time.Now())},
			"X-Ms-Version":        {"August, 2014"},
			"X-Ms-Sha256_content": {ContentHash(r.body)},
			"Authorization":       {OnboardingAuthorization(testWorkspace, decodeKey(t, testKey), OnboardingDate(time.Now()), ContentHash(r.body))},
			"User-Agent":          {"LinuxMonitoringAgent/1.2.3-0"},
			"Accept-Language":     {"en-US"},
			"Content-Type":        {"application/x-www-form-urlencoded"},
			"Content-Length":      {fmt.Sprint(len(r.body))},
		}
		if diff := cmp.Diff(wantHeader, r.header); diff != "" {
			t.Errorf("header (-want +got):\n%s", diff)
		}

		got, err := loadRegistration(s.dir)
		if err != nil {
			t.Fatal(err)
		}
		want := &registration{
			Thumbprint: id.thumbprint(), Domain: testDomain, OnboardedAt: time.Now().UTC(), QueryInterval: 3600,
			CertificateUpdate: updateURL, DSC: dscURL, NodeConfiguration: "MicrosoftOperationsManagementLinuxConfiguration.common",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("registration (-want +got):\n%s", diff)
		}
		if expiry, ok := c.CertificateExpiry(); !ok || !expiry.Equal(id.leaf().NotAfter) {
			t.Errorf("CertificateExpiry = %v, %v", expiry, ok)
		}
	})
}

// TestOnboardingFails has every way in which the service does not take the
// machine in, then a service that does: the client keeps the key and gets there.
func TestOnboardingFails(t *testing.T) {
	tests := []struct {
		name   string
		answer http.HandlerFunc
		state  string
		cause  Cause
	}{
		{"wrong key", status(403, "<Error><Reason>InvalidWorkspaceKey</Reason></Error>"), "rejected", KeyRejected},
		{"clock", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(-16*time.Minute).UTC().Format(http.TimeFormat))
			w.WriteHeader(403)
		}, "rejected", ClockSkew},
		{"unknown workspace", status(404, ""), "rejected", WorkspaceUnknown},
		{"server error", status(500, ""), "unreachable", ServerError},
		{"busy", status(503, ""), "unreachable", ServerBusy},
		{"redirect", http.RedirectHandler("https://evil.example/", http.StatusFound).ServeHTTP, "unreachable", Redirected},
		{"captive portal", status(200, "<html><body>log in</body></html>"), "unreachable", UnexpectedAnswer},
		{"no content", status(204, ""), "unreachable", UnexpectedAnswer},
		{"endless answer", func(w http.ResponseWriter, _ *http.Request) {
			for line := []byte(strings.Repeat("<a>", 1000)); ; {
				if _, err := w.Write(line); err != nil {
					return
				}
			}
		}, "unreachable", UnexpectedAnswer},
		{"silence", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "unreachable", Timeout},
		{"cut off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "unreachable", ConnectionLost},
		{"cut off in the answer", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(200)
			_, _ = w.Write([]byte(topologyAnswer[:100]))
			panic(http.ErrAbortHandler)
		}, "unreachable", ConnectionLost},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(s *service) {
				t := s.t
				s.saveIdentity()
				s.writeKey(testKey)
				s.answer(tt.answer)
				c := s.client()
				s.run(c)
				time.Sleep(headerTimeout + time.Second)
				wantState(t, c, tt.state, tt.cause)
				if !s.keyIsThere() {
					t.Error("the key file is gone")
				}
				if _, err := os.Stat(filepath.Join(s.dir, registrationFile)); err == nil {
					t.Error("there is a registration")
				}
				if lines := strings.Count(s.log.String(), "cannot onboard"); lines != 1 {
					t.Errorf("%d log lines for one trouble", lines)
				}

				time.Sleep(time.Hour)
				s.answer(healthy)
				before := len(s.seen(""))
				time.Sleep(15*time.Minute + time.Second)
				wantState(t, c, "connected", "")
				if s.keyIsThere() || len(s.seen("")) != before+1 {
					t.Errorf("key there: %v, requests after the cure: %d", s.keyIsThere(), len(s.seen(""))-before)
				}
			})
		})
	}
}

// TestFiveTriesInTheFirstHalfMinute holds the rhythm of onboarding.
func TestFiveTriesInTheFirstHalfMinute(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		s.saveIdentity()
		s.writeKey(testKey)
		s.answer(status(500, ""))
		s.run(s.client())
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if n := len(s.seen("")); n != 5 {
			t.Errorf("%d tries in 30 s, want 5", n)
		}
		time.Sleep(24 * time.Hour)
		if n := len(s.seen("")); n < 5+24*4 || n > 5+24*8+2 {
			t.Errorf("%d tries in a day, want one in 7.5 to 15 minutes", n)
		}
	})
}

func TestBackOff(t *testing.T) {
	tests := []struct {
		tries          int
		asked          time.Duration
		shortest, most time.Duration
	}{
		{1, 0, time.Second, 2 * time.Second},
		{4, 0, 8 * time.Second, 16 * time.Second},
		{5, 0, 16 * time.Second, 32 * time.Second},
		{9, 0, 256 * time.Second, 512 * time.Second},
		{10, 0, 450 * time.Second, 15 * time.Minute},
		{1 << 40, 0, 450 * time.Second, 15 * time.Minute},
		{1, time.Minute, time.Minute, 2 * time.Minute},
		{10, time.Second, 450 * time.Second, 15 * time.Minute},
	}
	for _, tt := range tests {
		low, high := backOff(tt.tries, tt.asked, 0), backOff(tt.tries, tt.asked, 1)
		if min(low, high) != tt.shortest || max(low, high) != tt.most {
			t.Errorf("backOff(%d, %v) is from %v to %v, want from %v to %v", tt.tries, tt.asked, min(low, high), max(low, high), tt.shortest, tt.most)
		}
	}
}

// TestNoKey waits for one, and takes it within seconds.
func TestNoKey(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		c := s.client()
		s.run(c)
		wantState(t, c, "rejected", KeyMissing)
		time.Sleep(48 * time.Hour)
		if n := len(s.seen("")); n != 0 {
			t.Errorf("%d requests without a key", n)
		}
		s.saveIdentity() // no matter: it was not there when the client looked
		s.writeKey("canary, not base64")
		time.Sleep(keyPoll + time.Second)
		wantState(t, c, "rejected", KeyMalformed)
		s.writeKey(testKey)
		time.Sleep(keyPoll + time.Second)
		wantState(t, c, "connected", "")
		if strings.Contains(s.log.String()+strings.Join(s.states, ""), "canary") {
			t.Error("the malformed key was repeated")
		}
	})
}

// TestIdentitySurvivesARestart: without a key the machine stays who it was, asks
// nothing at start and repeats the topology request after one period.
func TestIdentitySurvivesARestart(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		id := s.saveIdentity()
		s.writeKey(testKey)
		s.run(s.client())()
		if n := len(s.seen("")); n != 1 {
			t.Fatalf("%d requests", n)
		}

		c := s.client()
		s.run(c)
		wantState(t, c, "starting", "")
		time.Sleep(time.Hour - time.Second) // PT1H is what the service wanted
		if n := len(s.seen("")); n != 1 {
			t.Errorf("%d requests before the period is over", n-1)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		requests := s.seen("LinuxAgentTopologyRequest")
		if len(requests) != 2 {
			t.Fatalf("%d topology requests, want a second", len(requests))
		}
		beat := requests[1]
		want := http.Header{
			"X-Ms-Date":       {OnboardingDate(beat.at)},
			"User-Agent":      {"LinuxMonitoringAgent/1.2.3-0"},
			"Accept-Language": {"en-US"},
			"Content-Type":    {"application/x-www-form-urlencoded"},
			"Content-Length":  {fmt.Sprint(len(beat.body))},
		}
		if diff := cmp.Diff(want, beat.header); diff != "" {
			t.Errorf("header (-want +got):\n%s", diff)
		}
		if !bytes.Equal(beat.body, requests[0].body) || beat.thumbprint != id.thumbprint() {
			t.Error("the machine is not who it was")
		}
	})
}

// TestPeriodOfTheTopologyRequest: what the service says counts between a
// minute and a week.
func TestPeriodOfTheTopologyRequest(t *testing.T) {
	tests := []struct {
		asked string
		want  time.Duration
	}{
		{"PT60S", time.Minute},
		{"P7D", 7 * 24 * time.Hour},
		{"PT59S", 20 * time.Minute},
		{"P7DT1S", 20 * time.Minute},
		{"weekly", 20 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.asked, func(t *testing.T) {
			bubble(t, func(s *service) {
				t := s.t
				s.saveIdentity()
				s.writeKey(testKey)
				s.answer(status(200, strings.Replace(topologyAnswer, "PT1H", tt.asked, 1)))
				s.run(s.client())
				time.Sleep(tt.want + time.Second)
				synctest.Wait()
				requests := s.seen("")
				if len(requests) != 2 {
					t.Fatalf("%d requests in %v, want 2", len(requests), tt.want)
				}
				if got := requests[1].at.Sub(requests[0].at); got != tt.want {
					t.Errorf("period %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestFailedTopologyRequestWaitsForTheNextPeriod(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		s.saveOnboarded()
		c := s.client()
		s.answer(status(500, ""))
		s.run(c)
		time.Sleep(defaultBeat + time.Minute)
		wantState(t, c, "starting", "")
		time.Sleep(2 * defaultBeat)
		if n := len(s.seen("")); n != 3 {
			t.Errorf("%d requests in three periods", n)
		}
	})
}

// TestNewKeyProvesItself: an onboarded machine tries a key that comes, and is
// the same machine afterwards.
func TestNewKeyProvesItself(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		id := s.saveOnboarded()
		c := s.client()
		s.run(c)
		s.answer(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/AgentService.svc/") {
				status(403, "<Reason>InvalidWorkspaceKey</Reason>")(w, r)
			}
		})
		s.writeKey(base64.StdEncoding.EncodeToString([]byte("a wrong key")))
		time.Sleep(rareKeyPoll + time.Second)
		wantState(t, c, "rejected", KeyRejected)

		// The certificate is as good as before, and its success hides nothing.
		if got := c.Send(t.Context(), testBatch()); got.Code != "" {
			t.Errorf("upload: %+v", got)
		}
		wantState(t, c, "rejected", KeyRejected)

		s.answer(healthy)
		s.writeKey(testKey)
		time.Sleep(rareKeyPoll + time.Second)
		wantState(t, c, "connected", "")
		for _, r := range s.seen("") {
			if r.thumbprint != id.thumbprint() {
				t.Error("the certificate changed")
			}
		}
	})
}

// TestKeyThatIsTakenBack: with the wrong key gone the old state holds again.
func TestKeyThatIsTakenBack(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		s.saveOnboarded()
		s.writeKey(testKey)
		s.answer(status(403, ""))
		c := s.client()
		s.run(c)
		wantState(t, c, "rejected", KeyRejected)
		if err := os.Remove(s.keyFile()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		wantState(t, c, "starting", "")
	})
}

func TestCorruptIdentityIsSetAside(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		id := s.saveOnboarded()
		path := filepath.Join(s.dir, identityFile)
		if err := os.WriteFile(path, []byte("canary"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.writeKey(testKey)
		c := s.client()
		s.run(c)
		wantState(t, c, "connected", "")
		aside, err := filepath.Glob(path + ".corrupt-*")
		if err != nil || len(aside) != 1 {
			t.Fatalf("set aside: %q, %v", aside, err)
		}
		if text, err := os.ReadFile(aside[0]); err != nil || string(text) != "canary" {
			t.Errorf("%s holds %q, %v", aside[0], text, err)
		}
		if again, err := loadIdentity(s.dir, testWorkspace); err != nil || again.guid == id.guid {
			t.Errorf("identity %v, %v", again, err)
		}
	})
}

// TestLostRegistration: the certificate alone is enough to find out.
func TestLostRegistration(t *testing.T) {
	tests := []struct {
		name   string
		answer http.HandlerFunc
		state  string
		cause  Cause
	}{
		{"the service knows the certificate", healthy, "connected", ""},
		{"the service does not", status(403, ""), "rejected", KeyMissing},
		{"the service is away", status(503, ""), "unreachable", ServerBusy},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(s *service) {
				t := s.t
				s.saveOnboarded()
				if err := os.WriteFile(filepath.Join(s.dir, registrationFile), []byte("{"), 0o600); err != nil {
					t.Fatal(err)
				}
				s.answer(tt.answer)
				c := s.client()
				s.run(c)
				wantState(t, c, tt.state, tt.cause)
				if aside, err := filepath.Glob(filepath.Join(s.dir, registrationFile+".corrupt-*")); err != nil || len(aside) != 1 {
					t.Errorf("set aside: %q, %v", aside, err)
				}
			})
		})
	}
}

// TestAnotherDomain: a registration counts where it was made only.
func TestAnotherDomain(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		id := s.saveIdentity()
		r := &registration{Thumbprint: id.thumbprint(), Domain: "opinsights.azure.us"}
		if err := r.save(s.dir); err != nil {
			t.Fatal(err)
		}
		s.answer(status(403, ""))
		c := s.client()
		s.run(c)
		wantState(t, c, "rejected", KeyMissing)
	})
}

// TestCertificateThatEndsSoon: a key brings a new certificate for the same
// agent, and only once the workspace has accepted it.
func TestCertificateThatEndsSoon(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		old := s.saveOnboarded()
		time.Sleep(330 * 24 * time.Hour)
		s.authorityGoesOn()
		c := s.client()
		s.run(c)
		if lines := strings.Count(s.log.String(), "ends soon"); lines != 1 {
			t.Errorf("%d warnings", lines)
		}

		s.answer(status(403, ""))
		s.writeKey(testKey)
		start := time.Now()
		time.Sleep(time.Minute)
		wantState(t, c, "rejected", KeyRejected)
		if id, err := loadIdentity(s.dir, testWorkspace); err != nil || id.thumbprint() != old.thumbprint() {
			t.Errorf("the certificate was replaced before the new one was accepted: %v", err)
		}

		s.answer(healthy)
		for state := ""; state != "connected" && time.Since(start) < 16*time.Minute; state, _, _, _ = c.State() {
			c.Send(t.Context(), testBatch()) // keeps a connection in use
			time.Sleep(idleTimeout / 2)
		}
		wantState(t, c, "connected", "")
		id, err := loadIdentity(s.dir, testWorkspace)
		if err != nil {
			t.Fatal(err)
		}
		if id.guid != old.guid || id.thumbprint() == old.thumbprint() || !id.fits(time.Now()) {
			t.Errorf("agent %s, was %s; certificate until %v", id.guid, old.guid, id.leaf().NotAfter)
		}
		requests := s.seen("AgentService.svc")
		if last := requests[len(requests)-1]; last.thumbprint != id.thumbprint() {
			t.Error("the new certificate was not shown when it was registered")
		}
		if got := c.Send(t.Context(), testBatch()); got.Code != "" {
			t.Errorf("upload: %+v", got)
		}
		uploads := s.seen("OperationalData.svc")
		if uploads[0].thumbprint != old.thumbprint() || uploads[len(uploads)-1].thumbprint != id.thumbprint() {
			t.Error("uploads do not go on with the new certificate")
		}
	})
}

// authorityGoesOn gives the service a certificate for the time that has come.
func (s *service) authorityGoesOn() {
	for _, address := range []string{omsAddress, odsAddress} {
		certificate := s.authority.issue(s.t, time.Now().AddDate(-1, 0, 0), time.Now().AddDate(1, 0, 0), hostOnly(address))
		s.serve(tls.NewListener(s.listen(address), &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAnyClientCert,
		}), s)
	}
}

// TestClockIsLearnt has a machine whose clock is ten days early. The first
// refusal teaches it the time: what it signs and the certificate that it makes
// are then right, and it says what is wrong.
func TestClockIsLearnt(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		const wrong = 10 * 24 * time.Hour
		s.answer(func(w http.ResponseWriter, r *http.Request) {
			date, err := time.Parse(time.RFC3339Nano, r.Header.Get("x-ms-Date"))
			leaf := r.TLS.PeerCertificates[0]
			if err != nil || time.Since(date).Abs() > maxSkew || time.Now().Before(leaf.NotBefore) {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			healthy(w, r)
		})
		s.writeKey(testKey)
		c := s.client(func(o *Options) { o.Clock = func() time.Time { return time.Now().Add(wrong) } })
		s.run(c)
		wantState(t, c, "rejected", ClockSkew)
		if _, _, message, _ := c.State(); !strings.Contains(message, "10 days ahead") {
			t.Errorf("message %q", message)
		}
		time.Sleep(5 * time.Second)
		wantState(t, c, "connected", "")
		if lines := strings.Count(s.log.String(), "clock is wrong"); lines != 1 {
			t.Errorf("%d warnings", lines)
		}
	})
}

// TestTLS holds that the server is verified, the key never leaves before that,
// and each fault is told from the others.
func TestTLS(t *testing.T) {
	year := func(n int) time.Time { return time.Now().AddDate(n, 0, 0) }
	tests := []struct {
		name  string
		serve func(s *service, l net.Listener)
		state string
		cause Cause
	}{
		{"expired", func(s *service, l net.Listener) {
			s.serveTLS(l, s.authority.issue(s.t, year(-2), year(-1), hostOnly(omsAddress)), 0)
		}, "unreachable", TLSExpired},
		{"from the future", func(s *service, l net.Listener) {
			s.serveTLS(l, s.authority.issue(s.t, year(1), year(2), hostOnly(omsAddress)), 0)
		}, "rejected", ClockSkew},
		{"another name", func(s *service, l net.Listener) {
			s.serveTLS(l, s.authority.issue(s.t, year(-1), year(1), "evil.example"), 0)
		}, "unreachable", TLSName},
		{"another authority", func(s *service, l net.Listener) {
			s.serveTLS(l, newAuthority(s.t, "Evil CA").issue(s.t, year(-1), year(1), hostOnly(omsAddress)), 0)
		}, "unreachable", TLSUntrusted},
		{"self-signed", func(s *service, l net.Listener) {
			self := newAuthority(s.t, "Self", hostOnly(omsAddress))
			s.serveTLS(l, tls.Certificate{Certificate: [][]byte{self.certificate.Raw}, PrivateKey: self.key}, 0)
		}, "unreachable", TLSUntrusted},
		{"TLS 1.1", func(s *service, l net.Listener) {
			s.serveTLS(l, s.certs, tls.VersionTLS11)
		}, "unreachable", TLSProtocol},
		{"no TLS", func(s *service, l net.Listener) {
			s.serve(l, http.NotFoundHandler())
		}, "unreachable", TLSProtocol},
		{"silence", func(s *service, l net.Listener) {
			s.swallow(l)
		}, "unreachable", Timeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(s *service) {
				t := s.t
				s.saveIdentity()
				s.writeKey(testKey)
				tt.serve(s, s.listen(omsAddress))
				c := s.client()
				s.run(c)
				time.Sleep(handshakeTimeout)
				wantState(t, c, tt.state, tt.cause)
				if n := len(s.seen("")); n != 0 || !s.keyIsThere() {
					t.Errorf("%d requests got through, key file there: %v", n, s.keyIsThere())
				}
			})
		})
	}
}

// serveTLS serves with one certificate and, when it is not 0, one old version.
func (s *service) serveTLS(l net.Listener, certificate tls.Certificate, version uint16) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert}
	if version != 0 {
		config.MinVersion, config.MaxVersion = version, version
	}
	s.serve(tls.NewListener(l, config), s)
}

// swallow accepts connections and says nothing.
func (s *service) swallow(l net.Listener) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.t.Cleanup(func() {
				if err := conn.Close(); err != nil {
					s.t.Error(err)
				}
			})
		}
	}()
	s.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			s.t.Error(err)
		}
		<-done
	})
}

func TestNewRefusesWhatLeadsElsewhere(t *testing.T) {
	tests := []struct {
		id, domain string
		ok         bool
	}{
		{testWorkspace, "opinsights.azure.com", true},
		{strings.ToUpper("AAAAAAAA-2222-3333-4444-555555555555"), "opinsights.azure.us", true},
		{testWorkspace, "opinsights.test:8443", true},
		{testWorkspace, "azurestack", true},
		{"{" + testWorkspace + "}", "opinsights.azure.com", false},
		{strings.ReplaceAll(testWorkspace, "-", ""), "opinsights.azure.com", false},
		{"../../../../../../../../../../../etc", "opinsights.azure.com", false},
		{"", "opinsights.azure.com", false},
		{testWorkspace, "", false},
		{testWorkspace, "evil.example/path", false},
		{testWorkspace, "evil.example?", false},
		{testWorkspace, "user@evil.example", false},
		{testWorkspace, "x@evil.example:443", false},
		{testWorkspace, "evil.example#", false},
		{testWorkspace, "opinsights.azure.com.", false},
		{testWorkspace, "-a.example", false},
		{testWorkspace, "opinsıghts.azure.com", false},
		{testWorkspace, "a\n.example", false},
		{testWorkspace, "opinsights.azure.com\n", false},
	}
	for _, tt := range tests {
		c, err := New(Options{ID: tt.id, Domain: tt.domain})
		if (err == nil) != tt.ok {
			t.Errorf("New(%q, %q) error = %v, want none: %v", tt.id, tt.domain, err, tt.ok)
		}
		if err == nil && c.Name() != "workspace/"+strings.ToLower(tt.id) {
			t.Errorf("Name() = %s", c.Name())
		}
	}
}

// TestStateFileForm pins what the file says to people and later versions.
func TestStateFileForm(t *testing.T) {
	dir := t.TempDir()
	r := registration{Thumbprint: "ab", Domain: "d", OnboardedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), QueryInterval: 60, CertificateUpdate: "u", DSC: "e", NodeConfiguration: "n"}
	if err := r.save(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, registrationFile))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"certificateThumbprint": "ab", "domain": "d", "onboardedAt": "2026-01-02T03:04:05Z", "queryIntervalSeconds": 60.0,
		"certificateUpdateEndpoint": "u", "dscEndpoint": "e", "nodeConfigurationName": "n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("state.json (-want +got):\n%s", diff)
	}
}
