package emulator

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

// ask sends a request to the control API.
func (w *world) ask(method, path, body string, spoil ...func(*http.Request)) result {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, "http://"+w.apiAt+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for _, change := range spoil {
		change(r)
	}
	return do(http.DefaultClient, r)
}

// askFor decodes a good answer into value.
func (w *world) askFor(path string, value any) {
	w.t.Helper()
	got := w.ask(http.MethodGet, path, "")
	if got.status != 200 || got.header.Get("Content-Type") != "application/json; charset=utf-8" || got.header.Get("X-Content-Type-Options") != "nosniff" {
		w.t.Fatalf("%s: got %+v", path, got)
	}
	if err := json.Unmarshal([]byte(got.body), value); err != nil {
		w.t.Fatalf("%s: %v", path, err)
	}
}

// TestAPI looks at everything after a few requests.
func TestAPI(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	do(agent, syslogUpload(syslogItem, syslogItem, strings.Replace(syslogItem, "sshd", "cron", 1)).request(t)).want(t, 200, "")
	do(agent, syslogUpload().request(t)).want(t, 400, "InvalidDataFormat")

	var tables []TableCount
	w.askFor("/api/tables", &tables)
	if len(tables) != 1 || tables[0].Table != "Syslog" || tables[0].Workspace != testWorkspace || tables[0].Rows != 3 || !tables[0].Last.Equal(testTime) {
		t.Errorf("tables = %+v", tables)
	}
	var rows struct {
		Rows []struct {
			N   int64
			Row map[string]any
		}
		Next int64
	}
	w.askFor("/api/rows?workspace="+testWorkspace+"&table=Syslog&after=1&limit=1", &rows)
	if len(rows.Rows) != 1 || rows.Rows[0].N != 2 || rows.Next != 2 || rows.Rows[0].Row["SyslogMessage"] != "Accepted <publickey> for root" {
		t.Errorf("rows = %+v", rows)
	}
	w.askFor("/api/rows?workspace="+testWorkspace+"&table=Syslog&contains=cron", &rows)
	if len(rows.Rows) != 1 || rows.Rows[0].N != 3 {
		t.Errorf("rows = %+v", rows)
	}
	w.askFor("/api/rows?workspace=../..&table=agents", &rows)
	if len(rows.Rows) != 0 {
		t.Errorf("rows = %+v", rows)
	}
	var rate struct{ Tables []TableRate }
	w.askFor("/api/rate", &rate)
	if len(rate.Tables) != 1 || rate.Tables[0].Rows[59] != 3 {
		t.Errorf("rate = %+v", rate)
	}
	var requests, rejections []Exchange
	w.askFor("/api/requests?limit=2", &requests)
	if len(requests) != 2 || requests[0].Status != 400 || requests[1].Rows != 3 || requests[1].RequestID == "" {
		t.Errorf("requests = %v, want the newest first", requests)
	}
	w.askFor("/api/rejections", &rejections)
	if len(rejections) != 1 || rejections[0].Reason != "InvalidDataFormat" || !strings.Contains(rejections[0].Detail, "DataItems") {
		t.Errorf("rejections = %v", rejections)
	}
	var agents []Agent
	w.askFor("/api/agents", &agents)
	if len(agents) != 1 || agents[0].ID != testGUID || len(agents[0].Thumbprints[0]) != 64 {
		t.Errorf("agents = %+v", agents)
	}
	for _, path := range []string{"/api/rows?limit=many", "/api/requests?limit=x", "/api/rows?after=1.5"} {
		if got := w.ask(http.MethodGet, path, ""); got.status != 400 || got.reason == "" && !strings.Contains(got.body, "whole number") {
			t.Errorf("%s: got %+v", path, got)
		}
	}
	if got := w.ask(http.MethodGet, "/api/nothing", ""); got.status != 404 {
		t.Errorf("got %+v", got)
	}
}

// TestAPIFaults orders, lists and clears faults.
func TestAPIFaults(t *testing.T) {
	w := open(t)
	if got := w.ask(http.MethodPost, "/api/faults", `{"kind":"slow","delay":"250ms","times":2}`); got.status != 200 || !strings.Contains(got.body, `"delay":"250ms"`) {
		t.Errorf("got %+v", got)
	}
	if got := w.ask(http.MethodPost, "/api/faults", `{"kind":"status","status":503,"endpoint":"ods"}`); got.status != 200 {
		t.Errorf("got %+v", got)
	}
	for _, body := range []string{`{"kind":"status","status":99}`, `{"kind":"reset","tims":1}`, `{"kind":"slow","delay":"soon"}`, `nothing`} {
		if got := w.ask(http.MethodPost, "/api/faults", body); got.status != 400 {
			t.Errorf("%s: got %+v", body, got)
		}
	}
	var faults []Fault
	w.askFor("/api/faults", &faults)
	if len(faults) != 2 || faults[1].Status != 503 {
		t.Errorf("faults = %+v", faults)
	}
	w.ask(http.MethodDelete, "/api/faults?id=1", "")
	if got := w.Faults(); len(got) != 1 || got[0].ID != 2 {
		t.Errorf("faults = %+v", got)
	}
	w.ask(http.MethodDelete, "/api/faults", "")
	if got := w.Faults(); len(got) != 0 {
		t.Errorf("faults = %+v", got)
	}
}

// TestAPISettings changes what is given and leaves the rest; the password
// goes in and not out.
func TestAPISettings(t *testing.T) {
	w := open(t)
	w.ask(http.MethodPost, "/api/settings", `{"gatewayUser":"agent","gatewayPassword":"s3cret"}`)
	got := w.ask(http.MethodPost, "/api/settings", `{"updateCertificate":true,"queryInterval":"PT5M","skew":"-20m"}`)
	if got.body != `{"updateCertificate":true,"queryInterval":"PT5M","skew":"-20m0s","gatewayUser":"agent"}`+"\n" {
		t.Errorf("got %s", got.body)
	}
	if w.Settings().GatewayPassword != "s3cret" {
		t.Error("the password is gone")
	}
	for _, body := range []string{`{"queryInterval":"1 hour"}`, `{"queryInterval":"PT"}`, `{"queryInterval":"P"}`, `{"skew":20}`, `{"updateCertificat":true}`} {
		if got := w.ask(http.MethodPost, "/api/settings", body); got.status != 400 {
			t.Errorf("%s: got %+v", body, got)
		}
	}
}

// TestAPIGuard keeps other web pages out.
func TestAPIGuard(t *testing.T) {
	w := open(t)
	for _, host := range []string{"evil.example", "evil.example:80", "10.0.0.1", "localhost.evil.example"} {
		if got := w.ask(http.MethodGet, "/api/tables", "", func(r *http.Request) { r.Host = host }); got.status != 403 {
			t.Errorf("as %s: got %+v", host, got)
		}
	}
	for _, host := range []string{"localhost:80", "[::1]:80", "127.0.0.2"} {
		if got := w.ask(http.MethodGet, "/api/tables", "", func(r *http.Request) { r.Host = host }); got.status != 200 {
			t.Errorf("as %s: got %+v", host, got)
		}
	}
	got := w.ask(http.MethodPost, "/api/faults", `{"kind":"stall"}`, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") })
	if got.status != 400 || len(w.Faults()) != 0 {
		t.Errorf("got %+v and %d faults", got, len(w.Faults()))
	}
}

// TestPage serves one page that needs nothing else and whose policy lets only
// its own script and style run.
func TestPage(t *testing.T) {
	w := open(t)
	got := w.ask(http.MethodGet, "/", "")
	if got.status != 200 || got.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("got %d %v", got.status, got.header)
	}
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-store",
	} {
		if got.header.Get(name) != want {
			t.Errorf("%s = %q, want %q", name, got.header.Get(name), want)
		}
	}
	policy := got.header.Get("Content-Security-Policy")
	for _, element := range []string{"script", "style"} {
		parts := regexp.MustCompile(`(?s)<`+element+`>(.*?)</`+element+`>`).FindAllStringSubmatch(got.body, -1)
		if len(parts) != 1 {
			t.Fatalf("%d elements %s", len(parts), element)
		}
		sum := sha256.Sum256([]byte(parts[0][1]))
		if want := element + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(policy, want) {
			t.Errorf("policy %q has no %s", policy, want)
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy = %q", policy)
	}
	for _, pattern := range []string{`innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(`, `\son[a-z]+="`, `\sstyle="`, `(src|href)="(https?:)?//`} {
		if found := regexp.MustCompile(pattern).FindString(got.body); found != "" {
			t.Errorf("the page has %q", found)
		}
	}
}

// TestEvents reads the first state and the next one after a change.
func TestEvents(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.apiAt+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if kind := response.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("Content-Type = %q", kind)
	}
	events := bufio.NewScanner(response.Body)
	next := func() (state struct {
		Domain     string
		Workspaces []string
		Tables     []TableCount
		Accepted   int64
		Agents     int
	},
	) {
		t.Helper()
		for events.Scan() {
			if text, ok := strings.CutPrefix(events.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(text), &state); err != nil {
					t.Fatal(err)
				}
				return state
			}
		}
		t.Fatal("the stream ended")
		return state
	}
	if s := next(); s.Domain != testDomain || len(s.Workspaces) != 1 || len(s.Tables) != 0 || s.Agents != 1 || s.Accepted != 1 {
		t.Errorf("first state = %+v", s)
	}
	do(agent, syslogUpload(syslogItem).request(t)).want(t, 200, "")
	if s := next(); len(s.Tables) != 1 || s.Tables[0].Rows != 1 || s.Accepted != 2 {
		t.Errorf("next state = %+v", s)
	}
}

// TestNew refuses options that make no service, without showing a key.
func TestNew(t *testing.T) {
	good := func() Options {
		return Options{Dir: t.TempDir(), Domain: testDomain, Workspaces: []Workspace{{ID: testWorkspace, Keys: []string{testKey}}}}
	}
	for want, change := range map[string]func(*Options){
		"no folder":     func(o *Options) { o.Dir = "" },
		"DNS name":      func(o *Options) { o.Domain = "https://emulator.test" },
		"no workspace":  func(o *Options) { o.Workspaces = nil },
		"not a GUID":    func(o *Options) { o.Workspaces[0].ID = "contoso" },
		"has no key":    func(o *Options) { o.Workspaces[0].Keys = nil },
		"is not base64": func(o *Options) { o.Workspaces[0].Keys = []string{testKey, "!" + secondKey} },
		"read agents":   func(o *Options) { writeFileT(t, o.Dir+"/agents.json", "{") },
		"holds no CERT": func(o *Options) { writeFileT(t, o.Dir+"/ca.pem", "x") },
		"read authority": func(o *Options) {
			writeFileT(t, o.Dir+"/ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
		},
	} {
		o := good()
		change(&o)
		_, err := New(o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New() = %v, want an error with %q", err, want)
		}
		if err != nil && strings.Contains(err.Error(), "qoTgVB0a") {
			t.Errorf("New() shows a key: %v", err)
		}
	}
	if _, err := New(good()); err != nil {
		t.Error(err)
	}
}

// TestServeFails ends with the error of a listener that fails.
func TestServeFails(t *testing.T) {
	e, err := New(Options{Dir: t.TempDir(), Domain: testDomain, Workspaces: []Workspace{{ID: testWorkspace, Keys: []string{testKey}}}})
	if err != nil {
		t.Fatal(err)
	}
	listeners := Listeners{Service: listenLocal(t), API: listenLocal(t)}
	if err := listeners.API.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Serve(t.Context(), listeners); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve() = %v, want that a listener is closed", err)
	}
}

func writeFileT(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
