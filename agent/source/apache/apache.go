// Package apache asks an Apache HTTP server for its counters, by mod_status
// with ?auto at an address of this machine.
//
// Objects and counters are those of the OMS agent for Linux, as far as
// mod_status knows them. It knows nothing of single virtual hosts, so that
// Apache Virtual Host has the one instance _Total, and nothing of errors.
package apache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sampling"
	"github.com/openloganalytics/agent/internal/local"
)

// DefaultURL is where Debian, Ubuntu, RHEL and SLES have mod_status when it is
// on.
const DefaultURL = "http://127.0.0.1/server-status?auto"

// Options says which server is asked, and how.
type Options struct {
	Name     string // of the source: apache, or what tells several apart
	URL      string // of mod_status, with ?auto; see CheckURL
	Interval time.Duration
	Computer string // short host name
	Rounding sampling.Rounding
}

// CheckURL reports what is wrong with a URL of mod_status: it has to be plain
// HTTP to a loopback address, since nothing on the way is encrypted.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("is not a URL")
	case u.Scheme != "http" || u.User != nil || u.Fragment != "":
		return errors.New("is not a plain http URL")
	case !local.Is(u.Hostname()):
		return fmt.Errorf("does not name a loopback address, but %q", u.Hostname())
	case u.RawQuery != "auto":
		return errors.New("does not end with ?auto, which makes mod_status answer in a form for programs")
	}
	return nil
}

// New returns the source.
func New(o Options) (source.Source, error) {
	if err := CheckURL(o.URL); err != nil {
		return nil, fmt.Errorf("set up %s: the URL %w", o.Name, err)
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("set up %s: %w", o.Name, err)
	}
	s := &server{
		url: o.URL, instance: u.Host, rounding: o.Rounding,
		transport: newTransport(),
	}
	return sampling.Poll{
		SourceName: o.Name, Interval: o.Interval, Computer: o.Computer, Ask: s.ask,
		Close: func() error { s.transport.CloseIdleConnections(); return nil },
	}.Source(), nil
}

// newTransport connects to this machine only, and asks no proxy.
func newTransport() *http.Transport {
	return &http.Transport{DialContext: local.Dial, MaxIdleConns: 1, IdleConnTimeout: 5 * time.Second, MaxResponseHeaderBytes: 64 << 10}
}

// A server is one that is asked.
type server struct {
	url, instance string
	rounding      sampling.Rounding
	transport     *http.Transport

	was   status
	wasAt time.Time // zero before the first answer
}

func (s *server) ask(ctx context.Context, at time.Time) ([]sampling.Counters, error) {
	now, err := s.status(ctx)
	if err != nil {
		s.wasAt = time.Time{}
		return nil, fmt.Errorf("cannot ask Apache for its counters: %w", err)
	}
	was, elapsed := s.was, at.Sub(s.wasAt).Seconds()
	known := !s.wasAt.IsZero() && elapsed > 0 && now.since(was)
	s.was, s.wasAt = now, at

	http := sampling.Counters{Object: "Apache HTTP Server", Instance: s.instance}
	http.Set("Idle Workers", now.idle)
	http.Set("Busy Workers", now.busy)
	http.Set("Pct Busy Workers", s.busy(now))
	if known && now.extended && was.extended && now.cpu >= was.cpu { // a worker that ended takes its time along
		http.Set("Total Pct CPU", s.rounding.Percent(now.cpu-was.cpu, elapsed))
	}
	if !known || !now.extended || !was.extended {
		return []sampling.Counters{http}, notExtended(now)
	}
	requests, kB := now.requests-was.requests, now.kB-was.kB
	all := sampling.Counters{Object: "Apache Virtual Host", Instance: "_Total"}
	all.Set("Requests per Second", s.rounding.Rate(requests/elapsed))
	all.Set("KB per Request", s.rounding.Rate(kB/max(requests, 1)))
	all.Set("Requests KB per Second", s.rounding.Rate(kB/elapsed))
	return []sampling.Counters{http, all}, nil
}

// busy is the share of the workers that work; the OMS agent cuts what is behind
// the point.
func (s *server) busy(now status) float64 {
	if s.rounding == sampling.Integer {
		return math.Floor(100 * now.busy / max(now.busy+now.idle, 1))
	}
	return s.rounding.Percent(now.busy, now.busy+now.idle)
}

func notExtended(now status) error {
	if now.extended {
		return nil
	}
	return errors.New("requests and processor time are not counted by Apache: set ExtendedStatus On in its configuration")
}

// maxStatus is more than a server with all its workers says of itself.
const maxStatus = 1 << 20

func (s *server) status(ctx context.Context) (status, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return status{}, err
	}
	res, err := s.transport.RoundTrip(req) // follows no redirect
	if err != nil {
		return status{}, fmt.Errorf("%w; start it, or correct the URL of the application", err)
	}
	defer func() { _ = res.Body.Close() }() // read to its end or given up
	switch {
	case res.StatusCode == http.StatusForbidden:
		return status{}, fmt.Errorf("%s is forbidden; allow it with \"Require local\"", s.url)
	case res.StatusCode == http.StatusNotFound:
		return status{}, fmt.Errorf("there is no %s; turn mod_status on (a2enmod status)", s.url)
	case res.StatusCode != http.StatusOK:
		return status{}, fmt.Errorf("%s answers with status %d", s.url, res.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxStatus))
	if err != nil {
		return status{}, err
	}
	now, err := parseStatus(data)
	if err != nil {
		return status{}, fmt.Errorf("%s: %w", s.url, err)
	}
	return now, nil
}

// A status is what mod_status says.
type status struct {
	busy, idle float64
	uptime     float64 // seconds

	extended bool    // the following is known
	requests float64 // since the start
	kB       float64
	cpu      float64 // seconds
}

// since reports whether was is an earlier answer of the same server process:
// counts of one that was started anew begin at 0.
func (s status) since(was status) bool {
	return s.uptime >= was.uptime && s.requests >= was.requests && s.kB >= was.kB
}

// parseStatus reads the answer of mod_status with ?auto: a line for each
// number, "Name: number".
func parseStatus(data []byte) (status, error) {
	numbers := map[string]float64{}
	for line := range strings.Lines(string(data)) {
		name, text, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			continue
		}
		if v, err := strconv.ParseFloat(text, 64); err == nil && v >= 0 && !math.IsInf(v, 0) {
			numbers[name] = v
		}
	}
	busy, one := numbers["BusyWorkers"]
	idle, two := numbers["IdleWorkers"]
	if !one || !two {
		return status{}, fmt.Errorf("the answer of %d bytes does not tell BusyWorkers and IdleWorkers; is it mod_status with ?auto?", len(data))
	}
	s := status{
		busy: busy, idle: idle, uptime: numbers["Uptime"], kB: numbers["Total kBytes"],
		cpu: numbers["CPUUser"] + numbers["CPUSystem"] + numbers["CPUChildrenUser"] + numbers["CPUChildrenSystem"],
	}
	s.requests, s.extended = numbers["Total Accesses"]
	return s, nil
}
