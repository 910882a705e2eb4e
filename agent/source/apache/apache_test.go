package apache

import (
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/source/sampling"
)

// An answer as Apache 2.4 gives it, with ExtendedStatus.
const extended = `localhost
ServerVersion: Apache/2.4.57 (Debian)
ServerMPM: event
ServerUptimeSeconds: 100
Load1: 0.12
Total Accesses: 1000
Total kBytes: 2000
Total Duration: 17
CPUUser: 1.5
CPUSystem: .5
CPUChildrenUser: 0
CPUChildrenSystem: 0
CPULoad: 2
Uptime: 100
ReqPerSec: 10
BusyWorkers: 3
IdleWorkers: 47
Scoreboard: _W_...
`

// later is the same server, ten seconds later.
var later = strings.NewReplacer("Accesses: 1000", "Accesses: 1040", "kBytes: 2000", "kBytes: 2090", "CPUUser: 1.5", "CPUUser: 2.25",
	"Uptime: 100", "Uptime: 110", "BusyWorkers: 3", "BusyWorkers: 24", "IdleWorkers: 47", "IdleWorkers: 26").Replace(extended)

// A web is a server whose answers the test gives.
type web struct {
	*server
	answer string
	status int
}

func serve(t *testing.T, rounding sampling.Rounding) *web {
	t.Helper()
	w := &web{status: http.StatusOK}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != "/server-status?auto" {
			t.Errorf("asked for %s", r.URL)
		}
		rw.Header().Set("Location", "http://127.0.0.1:1/")
		rw.WriteHeader(w.status)
		_, _ = rw.Write([]byte(w.answer))
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	w.server = &server{url: s.URL + "/server-status?auto", instance: u.Host, rounding: rounding, transport: newTransport()}
	t.Cleanup(w.transport.CloseIdleConnections)
	return w
}

func (w *web) says(t *testing.T, answer string, at time.Time) (map[string]float64, error) {
	t.Helper()
	w.answer = answer
	list, err := w.ask(t.Context(), at)
	values := map[string]float64{}
	for _, c := range list {
		if c.Object == "Apache HTTP Server" && c.Instance != w.instance || c.Object == "Apache Virtual Host" && c.Instance != "_Total" {
			t.Errorf("instance %s of %s", c.Instance, c.Object)
		}
		for _, v := range c.Values {
			values[v.Name] = v.Value
		}
	}
	return values, err
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestCounters(t *testing.T) {
	for _, tt := range []struct {
		rounding sampling.Rounding
		want     map[string]float64
	}{
		{sampling.Precise, map[string]float64{
			"Idle Workers": 26, "Busy Workers": 24, "Pct Busy Workers": 48, "Total Pct CPU": 7.5,
			"Requests per Second": 4, "KB per Request": 2.25, "Requests KB per Second": 9,
		}},
		{sampling.Integer, map[string]float64{
			"Idle Workers": 26, "Busy Workers": 24, "Pct Busy Workers": 48, "Total Pct CPU": 8,
			"Requests per Second": 4, "KB per Request": 2, "Requests KB per Second": 9,
		}},
	} {
		w := serve(t, tt.rounding)
		first, err := w.says(t, extended, noon)
		if want := map[string]float64{"Idle Workers": 47, "Busy Workers": 3, "Pct Busy Workers": 6}; err != nil || !cmp.Equal(want, first) {
			t.Errorf("first answer: %v, %v", first, err)
		}
		second, err := w.says(t, later, noon.Add(10*time.Second))
		if diff := cmp.Diff(tt.want, second); err != nil || diff != "" {
			t.Errorf("second answer: %v (-want +got):\n%s", err, diff)
		}
	}
}

func TestServerThatIsStartedAnewHasNoRates(t *testing.T) {
	w := serve(t, sampling.Precise)
	for i, answer := range []string{later, extended} {
		got, err := w.says(t, answer, noon.Add(time.Duration(i)*time.Minute))
		if _, rate := got["Requests per Second"]; err != nil || rate || len(got) != 3 {
			t.Errorf("answer %d: %v, %v", i, got, err)
		}
	}
	// More requests than before do not make it the same server.
	busier := strings.NewReplacer("Uptime: 110", "Uptime: 5", "Accesses: 1040", "Accesses: 9040", "kBytes: 2090", "kBytes: 9999").Replace(later)
	if got, err := w.says(t, busier, noon.Add(90*time.Second)); err != nil || len(got) != 3 {
		t.Errorf("a server that is busier than before: %v, %v", got, err)
	}
	if _, err := w.says(t, extended, noon.Add(100*time.Second)); err != nil {
		t.Error(err)
	}
	got, _ := w.says(t, later, noon.Add(2*time.Minute))
	if _, rate := got["Requests per Second"]; !rate {
		t.Errorf("no rates from then on: %v", got)
	}
}

// A worker that ended takes its processor time along; requests stay counted.
func TestProcessorTimeThatGoesBackIsNotKnown(t *testing.T) {
	w := serve(t, sampling.Precise)
	_, _ = w.says(t, extended, noon)
	got, err := w.says(t, strings.Replace(later, "CPUUser: 2.25", "CPUUser: .1", 1), noon.Add(10*time.Second))
	if _, cpu := got["Total Pct CPU"]; err != nil || cpu || got["Requests per Second"] != 4 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestWhatIsWrongIsTold(t *testing.T) {
	brief := "BusyWorkers: 1\nIdleWorkers: 49\n"
	for name, tt := range map[string]struct {
		status int
		answer string
		want   string
		values int
	}{
		"forbidden":     {http.StatusForbidden, "", "Require local", 0},
		"no mod_status": {http.StatusNotFound, "", "a2enmod status", 0},
		"broken":        {http.StatusInternalServerError, "", "status 500", 0},
		"redirected":    {http.StatusFound, "", "status 302", 0},
		"for people":    {http.StatusOK, "<html>", "is it mod_status with ?auto?", 0},
		"not extended":  {http.StatusOK, brief, "ExtendedStatus On", 3},
	} {
		w := serve(t, sampling.Precise)
		w.status = tt.status
		got, err := w.says(t, tt.answer, noon)
		if err == nil || !strings.Contains(err.Error(), tt.want) || len(got) != tt.values {
			t.Errorf("%s: %v, %v, want %q", name, got, err, tt.want)
		}
	}
}

func TestCheckURL(t *testing.T) {
	for text, good := range map[string]bool{
		DefaultURL: true, "http://localhost:8080/status?auto": true, "http://[::1]/server-status?auto": true,
		"http://10.0.0.4/server-status?auto": false, "http://example.com/server-status?auto": false,
		"https://127.0.0.1/server-status?auto": false, "http://u:p@127.0.0.1/server-status?auto": false,
		"http://127.0.0.1/server-status": false, "http://127.0.0.1/server-status?auto&refresh=1": false,
		"file:///etc/passwd?auto": false, "127.0.0.1": false, "": false, "http://%zz?auto": false,
	} {
		if err := CheckURL(text); (err == nil) != good {
			t.Errorf("CheckURL(%q) = %v", text, err)
		}
		if _, err := New(Options{Name: "apache", URL: text, Interval: time.Second}); (err == nil) != good {
			t.Errorf("New(%q) = %v", text, err)
		}
	}
}

// Whatever mod_status says, a status has numbers that can be reckoned with.
func FuzzParseStatus(f *testing.F) {
	f.Add([]byte(extended))
	f.Add([]byte("BusyWorkers: 1e999\nIdleWorkers: -1\nTotal Accesses: NaN\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseStatus(data)
		for _, v := range []float64{s.busy, s.idle, s.uptime, s.requests, s.kB, s.cpu} {
			if math.IsNaN(v) || v < 0 || err != nil && v != 0 {
				t.Errorf("status %+v, %v", s, err)
			}
		}
	})
}
