package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Settings is what can be changed while the emulator runs.
type Settings struct {
	// UpdateCertificate makes topology answers tell every agent to renew its
	// certificate, until it has. Switching it off and on is a new order.
	UpdateCertificate bool `json:"updateCertificate"`
	// QueryInterval is the ISO 8601 duration of the topology answer; empty
	// sets PT1H.
	QueryInterval string `json:"queryInterval"`
	// Skew moves the service's clock, the Date header with it.
	Skew Duration `json:"skew"`
	// GatewayUser and GatewayPassword, when the user is set, are what the
	// gateway asks for. The API does not show the password.
	GatewayUser     string `json:"gatewayUser,omitempty"`
	GatewayPassword string `json:"gatewayPassword,omitempty"`
}

const defaultInterval = "PT1H"

var intervalPattern = regexp.MustCompile(`^P(\d+D)?(T(\d+H)?(\d+M)?(\d+S)?)?$`)

// Settings returns the present settings.
func (e *Emulator) Settings() Settings {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.settings
}

// Set changes the settings.
func (e *Emulator) Set(s Settings) error {
	if s.QueryInterval == "" {
		s.QueryInterval = defaultInterval
	}
	if !intervalPattern.MatchString(s.QueryInterval) || strings.HasSuffix(s.QueryInterval, "T") || s.QueryInterval == "P" {
		return fmt.Errorf("change settings: queryInterval %q is not an ISO 8601 duration like PT1H", s.QueryInterval)
	}
	e.mu.Lock()
	switchedOn := s.UpdateCertificate && !e.settings.UpdateCertificate
	e.settings = s
	e.mu.Unlock()
	if switchedOn {
		e.agents.orderRenewal()
	}
	e.changed.raise()
	return nil
}

const (
	maxRowsPage = 1000
	maxAPIBody  = 64 << 10
	// eventGap is the least time between two events of one stream.
	eventGap = 250 * time.Millisecond
)

// api is the control API with the web page. It answers only to the names of
// this machine, so that a web page elsewhere cannot reach it by rebinding its
// name, and takes changes only as JSON, which such a page cannot send unasked.
func (e *Emulator) api() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", e.page.serve)
	mux.HandleFunc("GET /events", e.serveEvents)
	get := func(path string, value func(*http.Request) (any, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			v, err := value(r)
			e.answerJSON(w, v, err)
		})
	}
	get("/api/tables", func(*http.Request) (any, error) { return e.Tables(), nil })
	get("/api/rows", e.apiRows)
	get("/api/rate", func(*http.Request) (any, error) { return e.apiRate(), nil })
	get("/api/requests", func(r *http.Request) (any, error) { return limited(r, e.Requests()) })
	get("/api/rejections", func(r *http.Request) (any, error) { return limited(r, e.Rejections()) })
	get("/api/agents", func(*http.Request) (any, error) { return e.Agents(), nil })
	get("/api/faults", func(*http.Request) (any, error) { return e.Faults(), nil })
	get("/api/configurations", func(*http.Request) (any, error) { return e.Configurations(), nil })
	get("/api/reports", func(*http.Request) (any, error) { return e.Reports(), nil })
	get("/api/settings", func(*http.Request) (any, error) { return e.shownSettings(), nil })
	mux.HandleFunc("POST /api/faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		err := readJSON(r, &f, maxAPIBody)
		if err == nil {
			f, err = e.AddFault(f)
		}
		e.answerJSON(w, f, err)
	})
	mux.HandleFunc("DELETE /api/faults", func(w http.ResponseWriter, r *http.Request) {
		id, err := number(r, "id", 0)
		if err == nil {
			e.ClearFaults(int(id))
		}
		e.answerJSON(w, e.Faults(), err)
	})
	mux.HandleFunc("POST /api/settings", func(w http.ResponseWriter, r *http.Request) {
		s := e.Settings()
		err := readJSON(r, &s, maxAPIBody)
		if err == nil {
			err = e.Set(s)
		}
		e.answerJSON(w, e.shownSettings(), err)
	})
	mux.HandleFunc("POST /api/configurations", func(w http.ResponseWriter, r *http.Request) {
		var c Configuration
		err := readJSON(r, &c, maxConfiguration)
		if err == nil {
			err = e.SetConfiguration(c)
		}
		e.answerJSON(w, e.Configurations(), err)
	})
	return guarded(mux)
}

func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Cache-Control", "no-store")
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if ip := net.ParseIP(strings.Trim(host, "[]")); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "the control API answers to localhost only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// readJSON reads the body, at most so many bytes of it, over what value already
// holds.
func readJSON(r *http.Request, value any, most int64) error {
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); kind != "application/json" {
		return errors.New("the body is not declared as application/json")
	}
	d := json.NewDecoder(io.LimitReader(r.Body, most))
	d.DisallowUnknownFields()
	if err := d.Decode(value); err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	return nil
}

func (e *Emulator) answerJSON(w http.ResponseWriter, value any, err error) {
	status := http.StatusOK
	if err != nil {
		status = http.StatusBadRequest
		value = map[string]string{"error": err.Error()}
	}
	body, err := json.Marshal(value)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer is not JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	if _, err := w.Write(append(body, '\n')); err != nil {
		e.logf("answer API: %v", err)
	}
}

// number reads a whole number from the query.
func number(r *http.Request, name string, otherwise int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a whole number", name)
	}
	return n, nil
}

// limited returns the last exchanges, the newest first.
func limited(r *http.Request, list []Exchange) (any, error) {
	limit, err := number(r, "limit", 100)
	if err != nil {
		return nil, err
	}
	slices.Reverse(list)
	return list[:min(max(0, int(limit)), len(list))], nil
}

func (e *Emulator) apiRows(r *http.Request) (any, error) {
	limit, err := number(r, "limit", 100)
	if err != nil {
		return nil, err
	}
	after, err := number(r, "after", -1)
	if err != nil {
		return nil, err
	}
	query := r.URL.Query()
	key := tableKey{query.Get("workspace"), query.Get("table")}
	rows, next, err := e.store.read(key, after, int(min(max(limit, 1), maxRowsPage)), query.Get("contains"))
	if err != nil {
		return nil, err
	}
	return struct {
		Rows []StoredRow `json:"rows"`
		Next int64       `json:"next"`
	}{rows, next}, nil
}

func (e *Emulator) apiRate() any {
	now := e.now()
	return struct {
		Until  time.Time   `json:"until"` // end of the last minute listed
		Tables []TableRate `json:"tables"`
	}{now.Truncate(time.Minute).Add(time.Minute), e.store.rates(e.Tables(), now)}
}

func (e *Emulator) shownSettings() Settings {
	s := e.Settings()
	s.GatewayPassword = ""
	return s
}

// serveEvents streams the counts whenever anything changed: server-sent
// events without a name, at most one every eventGap.
func (e *Emulator) serveEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	for {
		changed := e.changed.wait()
		state, err := json.Marshal(e.state())
		if err != nil {
			e.logf("send event: %v", err)
			return
		}
		_, err = fmt.Fprintf(w, "data: %s\n\n", state)
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			return // the page was closed
		}
		sleep(r.Context(), eventGap)
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}

// state is what an event carries.
func (e *Emulator) state() any {
	active := 0
	for _, f := range e.Faults() {
		if f.Active() {
			active++
		}
	}
	return struct {
		Domain     string       `json:"domain"`
		Workspaces []string     `json:"workspaces"`
		Tables     []TableCount `json:"tables"`
		Totals
		Agents int `json:"agents"`
		Faults int `json:"activeFaults"`
	}{e.domain, e.workspaceIDs(), e.Tables(), e.Totals(), len(e.Agents()), active}
}

func (e *Emulator) workspaceIDs() []string {
	var ids []string
	for id := range e.workspaces {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
