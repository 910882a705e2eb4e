package emulator

import (
	"bufio"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestOnboardingVector1 is the vector of the OMS agent's own unit tests.
func TestOnboardingVector1(t *testing.T) {
	w := &workspace{keys: decodeKeys(t, testKey, secondKey)}
	text := onboardingText("2015-10-09T22:51:19.259645500-07:00", "5PWvuBVXOgrizTvwU/n9IVA7wgKDj4ihFVWUhb9j9s0=")
	if want := "2015-10-09T22:51:19.259645500-07:00\n5PWvuBVXOgrizTvwU/n9IVA7wgKDj4ihFVWUhb9j9s0=\n"; text != want {
		t.Errorf("onboardingText() = %q, want %q", text, want)
	}
	if !w.signed(text, "K6h/Cxyr4lYZPX4WiKwgbwUnumOSAFa71AQIz6VnDpw=") {
		t.Error("the published signature is refused")
	}
	if w.signed(text, "L6h/Cxyr4lYZPX4WiKwgbwUnumOSAFa71AQIz6VnDpw=") {
		t.Error("another signature is taken")
	}
}

// TestOnboardingVector2 sends the vector's literal bytes. Its certificate is
// none, so the service gets past the signature and stops there.
func TestOnboardingVector2(t *testing.T) {
	const body = "<?xml version=\"1.0\"?>\n" + `<AgentTopologyRequest xmlns="http://schemas.microsoft.com/WorkloadMonitoring/HealthServiceProtocol/2014/09/">` +
		`<FullyQualfiedDomainName>host1.example.test</FullyQualfiedDomainName><EntityTypeId>aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee</EntityTypeId>` +
		`<AuthenticationCertificate>QUJD</AuthenticationCertificate></AgentTopologyRequest>`
	if len(body) != 347 {
		t.Fatalf("the vector has %d bytes, want 347", len(body))
	}
	w := open(t)
	c := w.client(nil)
	o := newOnboarding(t)
	o.body = body
	o.spoil = func(r *http.Request) {
		r.Header.Set("x-ms-SHA256_Content", "5d/nN2eevVipaxtzN6o83Tql/IqRDxsKUNFrzMEMB9w=")
		r.Header.Set("Authorization", testWorkspace+"; +4Br9ZCIG7kEeRUF5dKSjBk+c2X3IYsSCjSPbqVWnDA=")
	}
	do(c, o.request(t)).want(t, 403, "InvalidWorkspaceKey")
	o.spoil = func(r *http.Request) {
		r.Header.Set("x-ms-SHA256_Content", "5d/nN2eevVipaxtzN6o83Tql/IqRDxsKUNFrzMEMB9w=")
		r.Header.Set("Authorization", testWorkspace+"; +4Br9ZCIG7kEeRUF5dKSjBk+c2X3IYsSCjSPbqVWnNA=")
	}
	do(c, o.request(t)).want(t, 403, "InvalidCertificate")
}

func decodeKeys(t *testing.T, keys ...string) [][]byte {
	t.Helper()
	var out [][]byte
	for _, key := range keys {
		raw, err := base64.StdEncoding.DecodeString(key)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, raw)
	}
	return out
}

// TestOnboarding follows an agent through its first request with either key.
func TestOnboarding(t *testing.T) {
	for _, key := range []string{testKey, secondKey} {
		w := open(t)
		o := newOnboarding(t)
		o.key = key
		got := do(w.client(o.cert), o.request(t))
		got.want(t, 200, "")
		pattern := regexp.MustCompile(`^<\?xml version="1.0" encoding="utf-8"\?><LinuxAgentTopologyResponse queryInterval="PT1H" telemetryReportInterval="PT10M" ` +
			`id="[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}" ` +
			`xmlns="http://schemas.microsoft.com/WorkloadMonitoring/HealthServiceProtocol/2014/09/" [^>]*>` +
			`<CertificateUpdateEndpoint updateCertificate="false">https://` + testWorkspace + `\.oms\.emulator\.test/ConfigurationService\.Svc/RenewCertificate</CertificateUpdateEndpoint>` +
			`<DscConfiguration><Endpoint>https://` + testWorkspace + `\.agentsvc\.emulator\.test/Accounts/` + testWorkspace + `/Nodes\(AgentId='` + testGUID + `'\)</Endpoint>` +
			`<NodeConfigurationName>MicrosoftOperationsManagementLinuxConfiguration\.common</NodeConfigurationName></DscConfiguration></LinuxAgentTopologyResponse>$`)
		if !pattern.MatchString(got.body) {
			t.Errorf("answer = %s, want like %s", got.body, pattern)
		}
		agents := w.Agents()
		if len(agents) != 1 || agents[0].ID != testGUID || agents[0].Computer != "host1.example.test" ||
			agents[0].System != "Ubuntu 20.04 (x86_64) 20.04" || len(agents[0].Thumbprints) != 1 {
			t.Errorf("Agents() = %+v", agents)
		}
	}
}

// TestOnboardingRefusals changes one thing at a time.
func TestOnboardingRefusals(t *testing.T) {
	w := open(t)
	set := func(name, value string) func(*testing.T, *onboarding) {
		return func(_ *testing.T, o *onboarding) { o.spoil = func(r *http.Request) { r.Header.Set(name, value) } }
	}
	drop := func(name string) func(*testing.T, *onboarding) {
		return func(_ *testing.T, o *onboarding) {
			o.spoil = func(r *http.Request) {
				r.Header.Del(name)
				if name == "User-Agent" {
					r.Header["User-Agent"] = nil // or net/http puts in its own
				}
			}
		}
	}
	replace := func(from, to string) func(*testing.T, *onboarding) {
		return func(t *testing.T, o *onboarding) {
			changed := strings.Replace(o.body, from, to, 1)
			if changed == o.body {
				t.Fatalf("%q is not in the body", from)
			}
			o.body = changed
		}
	}
	recertify := func(change func(*x509.Certificate)) func(*testing.T, *onboarding) {
		return func(t *testing.T, o *onboarding) {
			o.cert = agentCertificate(t, rsaKey(t, 0), change)
			o.body = topologyBody(o.cert)
		}
	}
	tests := []struct {
		name   string
		change func(*testing.T, *onboarding)
		status int
		reason string
	}{
		{"GET", func(_ *testing.T, o *onboarding) { o.spoil = func(r *http.Request) { r.Method = http.MethodGet } }, 405, "MethodNotAllowed"},
		{"wrong path", func(_ *testing.T, o *onboarding) {
			o.spoil = func(r *http.Request) { r.URL.Path = "/AgentService.svc/AgentTopologyRequest" }
		}, 404, "UnknownPath"},
		{"unknown host", func(_ *testing.T, o *onboarding) { o.spoil = func(r *http.Request) { r.Host = "localhost" } }, 404, "UnknownHost"},

		{"no x-ms-version", drop("x-ms-version"), 403, "MissingHeader"},
		{"other x-ms-version", set("x-ms-version", "August,2014"), 400, "InvalidHeader"},
		{"no User-Agent", drop("User-Agent"), 403, "MissingHeader"},
		{"other User-Agent", set("User-Agent", "LinuxMonitoringAgent/1.19.0"), 400, "InvalidHeader"},
		{"no Accept-Language", drop("Accept-Language"), 403, "MissingHeader"},
		{"other Accept-Language", set("Accept-Language", "en"), 400, "InvalidHeader"},
		{"no Content-Type", drop("Content-Type"), 403, "MissingHeader"},
		{"JSON Content-Type", set("Content-Type", "application/json"), 400, "InvalidHeader"},
		{"a header twice", func(_ *testing.T, o *onboarding) {
			o.spoil = func(r *http.Request) { r.Header.Add("x-ms-version", "August, 2014") }
		}, 400, "DuplicateHeader"},

		{"no content hash", drop("x-ms-SHA256_Content"), 403, "MissingHeader"},
		{"other content hash", set("x-ms-SHA256_Content", "5d/nN2eevVipaxtzN6o83Tql/IqRDxsKUNFrzMEMB9w="), 403, "InvalidContentHash"},
		{"no date", drop("x-ms-Date"), 403, "MissingHeader"},
		{"date with milliseconds", func(_ *testing.T, o *onboarding) { o.date = "2024-01-02T03:04:05.123+00:00" }, 400, "InvalidHeader"},
		{"date with Z", func(_ *testing.T, o *onboarding) { o.date = "2024-01-02T03:04:05.123456789Z" }, 400, "InvalidHeader"},
		{"date without colon", func(_ *testing.T, o *onboarding) { o.date = "2024-01-02T03:04:05.123456789+0000" }, 400, "InvalidHeader"},
		{"date that is none", func(_ *testing.T, o *onboarding) { o.date = "2024-13-02T03:04:05.123456789+00:00" }, 400, "InvalidHeader"},
		{"16 minutes late", func(_ *testing.T, o *onboarding) { o.date = "2024-01-02T02:48:05.123456789+00:00" }, 403, "ClockSkew"},
		{"16 minutes early", func(_ *testing.T, o *onboarding) { o.date = "2024-01-02T03:20:05.123456789+00:00" }, 403, "ClockSkew"},
		{"an hour by the zone", func(_ *testing.T, o *onboarding) { o.date = "2024-01-02T03:04:05.123456789+01:00" }, 403, "ClockSkew"},

		{"wrong key", func(_ *testing.T, o *onboarding) { o.key = "AAEC" }, 403, "InvalidWorkspaceKey"},
		{"no space before the signature", func(_ *testing.T, o *onboarding) {
			o.spoil = func(r *http.Request) {
				r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "; ", ";", 1))
			}
		}, 403, "InvalidWorkspaceKey"},
		{"another workspace", func(_ *testing.T, o *onboarding) {
			o.spoil = func(r *http.Request) {
				r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "1", "2", 1))
			}
		}, 403, "InvalidWorkspaceKey"},
		{"date signed without its line end", func(t *testing.T, o *onboarding) {
			o.spoil = func(r *http.Request) {
				r.Header.Set("Authorization", testWorkspace+"; "+hmacBase64(t, testKey, o.date+"\n"+r.Header.Get("x-ms-SHA256_Content")))
			}
		}, 403, "InvalidWorkspaceKey"},

		{"no prolog", replace("<?xml version=\"1.0\"?>\n", ""), 400, "InvalidRequestBody"},
		{"prolog with encoding", replace(`"1.0"?>`, `"1.0" encoding="utf-8"?>`), 400, "InvalidRequestBody"},
		{"CR LF after the prolog", replace("?>\n", "?>\r\n"), 400, "InvalidRequestBody"},
		{"other namespace", replace("/2014/09/", "/2014/10/"), 400, "InvalidRequestBody"},
		{"other root", func(_ *testing.T, o *onboarding) {
			o.body = strings.ReplaceAll(o.body, "AgentTopologyRequest", "AgentTopology")
		}, 400, "InvalidRequestBody"},
		{"right spelling", func(_ *testing.T, o *onboarding) {
			o.body = strings.ReplaceAll(o.body, "FullyQualfied", "FullyQualified")
		}, 400, "InvalidRequestBody"},
		{"unknown element", replace("<EntityTypeId>", "<Extra></Extra><EntityTypeId>"), 400, "InvalidRequestBody"},
		{"elements out of order", replace("<FullyQualfiedDomainName>host1.example.test</FullyQualfiedDomainName><EntityTypeId>"+testGUID+"</EntityTypeId>",
			"<EntityTypeId>"+testGUID+"</EntityTypeId><FullyQualfiedDomainName>host1.example.test</FullyQualfiedDomainName>"), 400, "InvalidRequestBody"},
		{"no host name", replace("host1.example.test", ""), 400, "InvalidRequestBody"},
		{"a space in the host name", replace("host1.example", "host1 example"), 400, "InvalidRequestBody"},
		{"GUID in braces", replace(testGUID+"<", "{"+testGUID+"}<"), 400, "InvalidRequestBody"},
		{"GUID in upper case", replace(testGUID+"<", strings.ToUpper(testGUID)+"<"), 400, "InvalidRequestBody"},
		{"text after the root", func(_ *testing.T, o *onboarding) { o.body += "x" }, 400, "InvalidRequestBody"},
		{"a comment", replace("<EntityTypeId>", "<!-- hi --><EntityTypeId>"), 400, "InvalidRequestBody"},
		{"an entity of its own", replace("?>\n", "?>\n<!DOCTYPE a [<!ENTITY b \"c\">]>"), 400, "InvalidRequestBody"},
		{"no certificate", func(_ *testing.T, o *onboarding) {
			o.body = regexp.MustCompile(`<AuthenticationCertificate>.*</AuthenticationCertificate>`).ReplaceAllString(o.body, "")
		}, 400, "InvalidRequestBody"},
		{"certificate not base64", replace("<AuthenticationCertificate>", "<AuthenticationCertificate>!"), 400, "InvalidRequestBody"},
		{"certificate not DER", replace("<AuthenticationCertificate>MII", "<AuthenticationCertificate>MIJ"), 403, "InvalidCertificate"},

		{"no client certificate", func(_ *testing.T, o *onboarding) { o.cert = nil }, 403, "InvalidCertificate"},
		{"another client certificate", func(t *testing.T, o *onboarding) { o.cert = agentCertificate(t, rsaKey(t, 1), nil) }, 403, "InvalidCertificate"},
		{"certificate of another GUID", replace("<EntityTypeId>a", "<EntityTypeId>b"), 403, "InvalidCertificate"},
		{"common names the other way round", recertify(func(c *x509.Certificate) {
			n := c.Subject.ExtraNames
			n[0], n[1] = n[1], n[0]
		}), 403, "InvalidCertificate"},
		{"other organization", recertify(func(c *x509.Certificate) { c.Subject.ExtraNames[3].Value = "Contoso" }), 403, "InvalidCertificate"},
		{"unit of the Windows agent", recertify(func(c *x509.Certificate) { c.Subject.ExtraNames[2].Value = "Microsoft Monitoring Agent" }), 403, "InvalidCertificate"},
		{"one part too many", recertify(func(c *x509.Certificate) {
			c.Subject.ExtraNames = append(c.Subject.ExtraNames, c.Subject.ExtraNames[3])
		}), 403, "InvalidCertificate"},
		{"SHA-384", recertify(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA384WithRSA }), 403, "InvalidCertificate"},
		{"expired", recertify(func(c *x509.Certificate) { c.NotAfter = testTime.Add(-time.Second) }), 403, "InvalidCertificate"},
		{"not yet valid", recertify(func(c *x509.Certificate) { c.NotBefore = testTime.Add(time.Hour) }), 403, "InvalidCertificate"},
		{"two years", recertify(func(c *x509.Certificate) { c.NotAfter = c.NotAfter.AddDate(1, 0, 0) }), 403, "InvalidCertificate"},
		{"RSA 1024", func(t *testing.T, o *onboarding) {
			key, err := rsa.GenerateKey(rand.Reader, 1024)
			if err != nil {
				t.Fatal(err)
			}
			o.cert = agentCertificate(t, key, nil)
			o.body = topologyBody(o.cert)
		}, 403, "InvalidCertificate"},

		{"signed by another key", func(t *testing.T, o *onboarding) {
			template := parse(t, o.cert)
			o.cert = signedBy(t, template, &x509.Certificate{RawSubject: template.RawSubject}, rsaKey(t, 0), rsaKey(t, 1))
			o.body = topologyBody(o.cert)
		}, 403, "InvalidCertificate"},
		{"issued by another name", func(t *testing.T, o *onboarding) {
			template := parse(t, o.cert)
			o.cert = signedBy(t, template, &x509.Certificate{Subject: pkix.Name{CommonName: "Contoso"}}, rsaKey(t, 0), rsaKey(t, 0))
			o.body = topologyBody(o.cert)
		}, 403, "InvalidCertificate"},

		{"no manufacturer", replace("Canonical Group Limited", ""), 403, "IncompleteOperatingSystem"},
		{"manufacturer left out", replace("<Manufacturer>Canonical Group Limited</Manufacturer>", ""), 403, "IncompleteOperatingSystem"},
		{"no system name", replace("Ubuntu 20.04 (x86_64)", " "), 403, "IncompleteOperatingSystem"},
		{"no system version", replace("<Version>20.04</Version>", ""), 403, "IncompleteOperatingSystem"},
		{"no Telemetry", replace(`<Telemetry PercentUserTime="1" PercentPrivilegedTime="0.5" UsedMemory="20480" PercentUsedMemory="2"></Telemetry>`, ""), 403, "IncompleteOperatingSystem"},
		{"unknown telemetry", replace("UsedMemory=", "FreeMemory="), 400, "InvalidRequestBody"},
		{"telemetry without number", replace(`"20480"`, `"much"`), 400, "InvalidRequestBody"},
		{"other InContainer", replace(">False<", ">false<"), 400, "InvalidRequestBody"},
		{"other architecture", replace(">x64<", ">x86_64<"), 400, "InvalidRequestBody"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOnboarding(t)
			tt.change(t, o)
			do(w.client(o.cert), o.request(t)).want(t, tt.status, tt.reason)
			rejections := w.Rejections()
			if last := rejections[len(rejections)-1]; last.Status != tt.status || last.Reason != tt.reason || last.Detail == "" {
				t.Errorf("the journal says %v", last)
			}
		})
	}
	if agents := w.Agents(); len(agents) != 0 {
		t.Errorf("Agents() = %+v, want none: every request was refused", agents)
	}
}

func parse(t *testing.T, cert *tls.Certificate) *x509.Certificate {
	t.Helper()
	parsed, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// TestOnboardingTolerance lists what is no reason to refuse.
func TestOnboardingTolerance(t *testing.T) {
	w := open(t)
	for name, change := range map[string]func(*onboarding){
		"no OperatingSystem": func(o *onboarding) { o.body = strings.Replace(o.body, operatingSystem, "", 1) },
		"no telemetry yet": func(o *onboarding) {
			o.body = regexp.MustCompile(`<Telemetry [^>]*>`).ReplaceAllString(o.body, "<Telemetry>")
		},
		"line ends around the name": func(o *onboarding) { o.body = strings.Replace(o.body, "host1.example.test", "\nhost1\n", 1) },
		"certificate in lines": func(o *onboarding) {
			o.body = strings.Replace(o.body, "<AuthenticationCertificate>MII", "<AuthenticationCertificate>M\nI I", 1)
		},
		"type of the Windows agent": func(o *onboarding) {
			o.spoil = func(r *http.Request) { r.Header.Set("Content-Type", "application/xml") }
		},
		"14 minutes late, in another zone": func(o *onboarding) { o.date = "2024-01-01T18:50:06.000000000-08:00" },
	} {
		o := newOnboarding(t)
		change(o)
		if got := do(w.client(o.cert), o.request(t)); got.status != 200 {
			t.Errorf("%s: got %d %s %s", name, got.status, got.reason, got.body)
		}
	}
}

// TestHTTP10 speaks the older protocol over the same TLS.
func TestHTTP10(t *testing.T) {
	w := open(t)
	conn := w.dialTLS(testWorkspace + ".oms." + testDomain)
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.0\r\nHost: %s.oms.%s\r\nContent-Length: 0\r\n\r\n", pathTopology, testWorkspace, testDomain)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != 505 {
		t.Errorf("status = %d, want 505", response.StatusCode)
	}
}

// TestHeartbeat repeats the topology with the certificate as the credential.
func TestHeartbeat(t *testing.T) {
	w := open(t)
	o := newOnboarding(t)
	c := w.client(o.cert)
	do(c, o.heartbeat(t)).want(t, 403, "UnknownCertificate")
	do(c, o.request(t)).want(t, 200, "")

	o.date = "2024-01-02T04:04:05.123456789+00:00" // an hour off: nothing is signed
	w.setTime(testTime.Add(20 * time.Minute))
	do(c, o.heartbeat(t)).want(t, 200, "")
	if seen := w.Agents()[0].LastSeen; !seen.Equal(testTime.Add(20 * time.Minute)) {
		t.Errorf("LastSeen = %v", seen)
	}

	for name, spoil := range map[string]func(*http.Request){
		"x-ms-version":        func(r *http.Request) { r.Header.Set("x-ms-version", "August, 2014") },
		"x-ms-SHA256_Content": func(r *http.Request) { r.Header.Set("x-ms-SHA256_Content", contentHash(nil)) },
		"no x-ms-Date":        func(r *http.Request) { r.Header.Del("x-ms-Date") },
		"no User-Agent":       func(r *http.Request) { r.Header["User-Agent"] = nil },
	} {
		o.spoil = spoil
		got := do(c, o.heartbeat(t))
		if got.status != 403 || got.reason != "MissingHeader" {
			t.Errorf("%s: got %d %s", name, got.status, got.reason)
		}
	}
	o.spoil = func(r *http.Request) { r.Header.Set("x-ms-Date", "2024-01-02T03:04:05.123456789-07:00") }
	do(c, o.heartbeat(t)).want(t, 400, "InvalidHeader")
	o.spoil = nil
	do(w.client(nil), o.heartbeat(t)).want(t, 403, "MissingClientCertificate")
	w.setTime(testTime.AddDate(1, 0, 1))
	do(c, o.heartbeat(t)).want(t, 403, "CertificateExpired")
}

func renewal(t *testing.T, cert *tls.Certificate) *http.Request {
	t.Helper()
	body := prolog + `<CertificateUpdateRequest xmlns="http://schemas.microsoft.com/WorkloadMonitoring/HealthServiceProtocol/2014/09/"><NewCertificate>` +
		base64.StdEncoding.EncodeToString(cert.Certificate[0]) + `</NewCertificate></CertificateUpdateRequest>`
	return post(t, "https://"+testWorkspace+".oms."+testDomain+"/ConfigurationService.Svc/RenewCertificate", body, nil)
}

// TestRenewal orders a renewal, follows it, and finds both certificates good
// and the order done; a second order stands again.
func TestRenewal(t *testing.T) {
	w := open(t)
	o := newOnboarding(t)
	old := w.client(o.cert)
	asks := func(got result) bool {
		t.Helper()
		got.want(t, 200, "")
		return strings.Contains(got.body, `updateCertificate="true"`)
	}
	if asks(do(old, o.request(t))) {
		t.Error("asked to renew without an order")
	}
	if err := w.Set(Settings{UpdateCertificate: true, QueryInterval: "PT90S"}); err != nil {
		t.Fatal(err)
	}
	got := do(old, o.heartbeat(t))
	if !asks(got) || !strings.Contains(got.body, `queryInterval="PT90S"`) {
		t.Errorf("answer = %s, want the order and the interval", got.body)
	}

	cert := agentCertificate(t, rsaKey(t, 1), nil)
	do(w.client(cert), renewal(t, cert)).want(t, 403, "UnknownCertificate")
	do(old, renewal(t, o.cert)).want(t, 403, "InvalidCertificate") // the same key
	other := agentCertificate(t, rsaKey(t, 1), func(c *x509.Certificate) { c.Subject.ExtraNames[1].Value = testWorkspace })
	do(old, renewal(t, other)).want(t, 403, "InvalidCertificate")
	do(old, post(t, "https://"+testWorkspace+".oms."+testDomain+pathRenewal, o.body, nil)).want(t, 400, "InvalidRequestBody")
	do(old, renewal(t, cert)).want(t, 200, "")

	renewed := &onboarding{cert: cert, body: topologyBody(cert), date: o.date, key: testKey}
	if asks(do(w.client(cert), renewed.heartbeat(t))) {
		t.Error("asked to renew after the renewal")
	}
	do(old, o.heartbeat(t)).want(t, 200, "") // the agent may have to go back
	if a := w.Agents()[0]; a.Renewals != 1 || len(a.Thumbprints) != 2 {
		t.Errorf("agent = %+v", a)
	}
	for _, on := range []bool{false, true} {
		if err := w.Set(Settings{UpdateCertificate: on, QueryInterval: "PT1H"}); err != nil {
			t.Fatal(err)
		}
		if asks(do(old, o.heartbeat(t))) != on {
			t.Errorf("asked to renew = %t, want %t", !on, on)
		}
	}
}

// TestTelemetry takes an agent's report about itself.
func TestTelemetry(t *testing.T) {
	w := open(t)
	c := w.onboarded()
	report := func(body string) *http.Request {
		return post(t, "https://"+testWorkspace+".oms."+testDomain+"/AgentService.svc/AgentTelemetry", body, map[string]string{
			"x-ms-Date": "2024-01-02T03:04:05.123456789+00:00", "User-Agent": "LinuxMonitoringAgent/1.19.0-0", "Accept-Language": "en-US",
		})
	}
	do(c, report(`{"OSType":"Linux","AgentQoS":[]}`)).want(t, 200, "")
	do(c, report(`[]`)).want(t, 400, "InvalidRequestBody")
	do(c, report(`{"OSType":"Linux"`)).want(t, 400, "InvalidRequestBody")
	do(w.client(nil), report(`{}`)).want(t, 403, "MissingClientCertificate")
}

// TestAuthority checks that the authority outlives the emulator and is good
// for its own hosts only.
func TestAuthority(t *testing.T) {
	dir := t.TempDir()
	hosts := []string{"*.ods." + testDomain, testWorkspace + ".ods." + testDomain, "localhost", "127.0.0.1"}
	first, err := openAuthority(dir, testDomain, hosts)
	if err != nil {
		t.Fatal(err)
	}
	second, err := openAuthority(dir, testDomain, hosts)
	if err != nil {
		t.Fatal(err)
	}
	if !first.cert.Equal(second.cert) {
		t.Error("the second start has another authority")
	}
	if info, err := os.Stat(dir + "/ca-key.pem"); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the key file has mode %v (%v), want nothing for others", info.Mode(), err)
	}
	for _, host := range []string{"www.example.com", "10.1.2.3"} {
		if _, err := openAuthority(dir, testDomain, append(hosts, host)); err == nil || !strings.Contains(err.Error(), "another folder") {
			t.Errorf("openAuthority() for %s = %v, want a refusal that says what to do", host, err)
		}
	}
}

func FuzzParseXML(f *testing.F) {
	f.Add([]byte(prolog + `<a xmlns="` + namespace + `"><b c="d">e</b></a>`))
	f.Add([]byte(prolog + `<a xmlns="` + namespace + `">` + strings.Repeat("<b>", 20)))
	f.Add([]byte(prolog + `<a xmlns="x">&#0;</a>`))
	f.Add([]byte(prolog + `<!DOCTYPE a><a/>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		root, err := parseXML(body)
		if err == nil && (root.name == "" || !strings.HasPrefix(string(body), prolog)) {
			t.Errorf("parseXML(%q) = %+v", body, root)
		}
	})
}
