//go:build linux

package delivery

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/test/emulator"
)

// A feed writes numbered records to one source until it is stopped.
type feed struct {
	table, column string
	file          string // "" for what is no file
	send          func(n int) error
	written       int
}

// text is the record of that number.
func (f *feed) text(n int) string { return fmt.Sprintf("feed=%s number=%d.", filepath.Base(f.file), n) }

// run writes until done; records that come in bursts meet every moment of a
// change.
func (f *feed) run(done <-chan struct{}) error {
	for {
		select {
		case <-done:
			return nil
		case <-time.After(2 * time.Millisecond):
		}
		for range 20 {
			if err := f.send(f.written + 1); err != nil {
				return err
			}
			f.written++
		}
	}
}

// next writes n more records.
func (f *feed) next(t *testing.T, n int) {
	t.Helper()
	for range n {
		if err := f.send(f.written + 1); err != nil {
			t.Fatal(err)
		}
		f.written++
	}
}

// rotateAt lines a file is renamed.
const rotateAt = 20_000

// lines is a feed that appends lines to a file, and rotates it now and then.
func (m *machine) lines(table, file string) *feed {
	f := &feed{table: table, column: "RawData", file: filepath.Join(filepath.Dir(m.logFile()), file)}
	var log *os.File
	m.Cleanup(func() { _ = log.Close() }) // an error without one
	f.send = func(n int) (err error) {
		if log == nil || n%rotateAt == 0 {
			if log != nil {
				err = errors.Join(log.Close(), os.Rename(f.file, fmt.Sprintf("%s.%d", f.file, n/rotateAt)))
			}
			if err != nil {
				return err
			}
			if log, err = os.OpenFile(f.file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
				return err
			}
		}
		_, err = fmt.Fprintln(log, f.text(n))
		return err
	}
	return f
}

// piped is a feed that writes into the pipe as rsyslog does.
func (m *machine) piped() *feed {
	m.Helper()
	if err := os.MkdirAll(m.layout.LogDir(), 0o755); err != nil {
		m.Fatal(err)
	}
	if err := unix.Mkfifo(m.layout.SyslogPipe(), 0o660); err != nil {
		m.Fatal(err)
	}
	pipe, err := os.OpenFile(m.layout.SyslogPipe(), os.O_RDWR, 0)
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { _ = pipe.Close() })
	f := &feed{table: "Syslog", column: "SyslogMessage", file: "pipe"}
	f.send = func(n int) error {
		// Beside each message one that is wanted only now and then.
		stamp := time.Now().Format("2006-01-02T15:04:05.000000-07:00")
		_, err := fmt.Fprintf(pipe, "\x02<11>1 %[1]s host app: - - - %[2]s\n\x02<15>1 %[1]s host app: - - - noise\n", stamp, f.text(n))
		return err
	}
	return f
}

// datagrams is a feed that sends to the socket for programs.
func (m *machine) datagrams() *feed {
	var conn net.Conn
	f := &feed{table: "Syslog", column: "SyslogMessage", file: "socket"}
	m.Cleanup(func() {
		if conn != nil {
			_ = conn.Close()
		}
	})
	f.send = func(n int) (err error) {
		if conn == nil {
			m.eventually(func() error {
				conn, err = net.Dial("unixgram", m.layout.SyslogSocket())
				return err
			})
		}
		_, err = conn.Write([]byte("<11>app: " + f.text(n)))
		return err
	}
	return f
}

// arrivedOnce waits until all of the feed has arrived, and wants it once.
func (m *machine) arrivedOnce(f *feed, workspace string) {
	m.Helper()
	var times []int
	m.eventually(func() error {
		rows, err := m.service.Rows(workspace, f.table)
		if err != nil {
			return err
		}
		times = make([]int, f.written+1)
		for _, row := range rows {
			text, _ := row[f.column].(string)
			var n int
			if rest, mine := strings.CutPrefix(text, "feed="+filepath.Base(f.file)+" "); mine {
				if _, err := fmt.Sscanf(rest, "number=%d.", &n); err != nil || n > f.written {
					return fmt.Errorf("row %q was never written", text)
				}
				times[n]++
			}
		}
		if n := slices.Index(times[1:], 0); n >= 0 {
			missing := 0
			for _, times := range times[1:] {
				if times == 0 {
					missing++
				}
			}
			return fmt.Errorf("of %d records of %s %d have not arrived, the first of them is %d", f.written, f.file, missing, n+1)
		}
		return nil
	})
	more := 0
	for _, n := range times[1:] {
		more += n - 1
	}
	if more > 0 || f.written == 0 {
		m.Errorf("%s: of %d records %d arrived more than once", f.file, f.written, more)
	}
}

// feeding runs the feeds while what happens.
func (m *machine) feeding(feeds []*feed, what func()) {
	m.Helper()
	done := make(chan struct{})
	var writing sync.WaitGroup
	for _, f := range feeds {
		writing.Go(func() {
			if err := f.run(done); err != nil {
				m.Errorf("%s: %v", f.file, err)
			}
		})
	}
	defer writing.Wait()
	defer close(done)
	what()
}

func selector(facility string, severities ...string) agent.SyslogSelector {
	return agent.SyslogSelector{Facilities: []string{facility}, Severities: severities}
}

// TestSourcesChangeUnderLoad: twenty changes of the sources while all of them
// are written to. Each record arrives once, also of a source that was taken
// away and came back; the agent does not begin anew.
func TestSourcesChangeUnderLoad(t *testing.T) {
	t.Parallel()
	m := prepare(t, 1)
	app, other, third := m.lines("App_CL", "app.log"), m.lines("Other_CL", "other.log"), m.lines("Third_CL", "third.log")
	pipe, socket := m.piped(), m.datagrams()
	if err := os.MkdirAll(m.layout.RunDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	log := func(f *feed, more ...string) agent.CustomLog {
		return agent.CustomLog{Table: f.table, Patterns: append([]string{f.file}, more...), FromStart: true}
	}
	m.with = func(c *agent.Config) {
		c.Sources.CustomLogs = []agent.CustomLog{log(app), log(other), log(third)}
		c.Sources.Syslog = &agent.Syslog{Selectors: []agent.SyslogSelector{selector("user", "err")}}
	}
	m.start(m.service, "")
	feeds := []*feed{app, other, third, pipe, socket}
	changes := []func(s *agent.Sources){
		func(s *agent.Sources) { s.CustomLogs = []agent.CustomLog{log(app), log(third)} },
		func(s *agent.Sources) { s.Syslog.Selectors = []agent.SyslogSelector{selector("*", "*")} },
		func(s *agent.Sources) { s.CustomLogs = []agent.CustomLog{log(other), log(app), log(third)} },
		func(s *agent.Sources) { s.Heartbeat.Interval = agent.Duration(3 * time.Second) },
		func(s *agent.Sources) { s.Syslog.Selectors = []agent.SyslogSelector{selector("user", "err")} },
		func(s *agent.Sources) { s.CustomLogs = []agent.CustomLog{log(app, "/nowhere/*.log"), log(third)} },
		func(s *agent.Sources) {
			s.Counters = []agent.Counters{{Interval: agent.Duration(time.Second), Specifiers: []string{`Memory(*)\% Used Memory`}}}
		},
		func(s *agent.Sources) { s.CustomLogs = []agent.CustomLog{log(third)} },
		func(s *agent.Sources) { s.Counters = nil },
		func(s *agent.Sources) { s.CustomLogs = []agent.CustomLog{log(app), log(other), log(third)} },
	}
	began := m.began()
	m.feeding(feeds, func() {
		for i := range 20 {
			m.configure(func(c *agent.Config) { changes[i%len(changes)](&c.Sources) })
		}
	})
	for _, f := range feeds {
		m.arrivedOnce(f, m.ids[0])
	}
	rows, err := m.service.Rows(m.ids[0], "Syslog")
	if err != nil {
		t.Fatal(err)
	}
	noise := 0
	for _, row := range rows {
		if row["SyslogMessage"] == "noise" {
			noise++
		}
	}
	if noise == 0 || noise >= pipe.written {
		t.Errorf("of %d messages that were wanted for a while %d arrived", pipe.written, noise)
	}
	h := m.conserved()
	read := map[string]int64{}
	for _, s := range h.Sources {
		read[s.Name] = s.Read
		if s.Name == "customlog:Third_CL" && s.Origin != agent.OriginSettings {
			t.Errorf("%s is from %q", s.Name, s.Origin)
		}
	}
	// What was written is what was read: nothing was read twice and thrown away.
	for _, f := range []*feed{app, other, third} {
		if got := read["customlog:"+f.table]; got != int64(f.written) {
			t.Errorf("%s: %d records read, %d written", f.table, got, f.written)
		}
	}
	if !h.Started.Equal(began) {
		t.Error("the agent began anew")
	}
}

// began is when the agent's life began that wrote the health.
func (m *machine) began() time.Time {
	m.Helper()
	var h *agent.Health
	m.eventually(func() (err error) {
		h, err = agent.ReadHealth(m.layout.HealthFile())
		return err
	})
	return h.Started
}

// TestOtherChangesUnderLoad: what is more than other sources makes the agent
// begin anew in its process, and loses and repeats nothing either.
func TestOtherChangesUnderLoad(t *testing.T) {
	t.Parallel()
	m := prepare(t, 1)
	app, pipe := m.lines("App_CL", "app.log"), m.piped()
	if err := os.MkdirAll(m.layout.RunDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	m.with = func(c *agent.Config) {
		c.Sources.Syslog = &agent.Syslog{Selectors: []agent.SyslogSelector{selector("user", "err")}}
	}
	m.start(m.service, "")
	app.next(t, 1) // a file that was never seen may not be rotated away
	m.arrivedOnce(app, m.ids[0])
	began := m.began()
	m.feeding([]*feed{app, pipe}, func() {
		for range 3 {
			m.configure(func(c *agent.Config) { c.Limits.DiskMB++ })
		}
	})
	m.arrivedOnce(app, m.ids[0])
	m.arrivedOnce(pipe, m.ids[0])
	if h := m.conserved(); h.Started.Equal(began) {
		t.Error("the agent did not begin anew")
	}
}

// TestBrokenConfigIsNotObeyed: the agent goes on with the one that it has, until
// there is another.
func TestBrokenConfigIsNotObeyed(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	m.write(10)
	m.wantLines(m.ids[0], 0)
	began := m.began()
	if err := os.WriteFile(m.layout.ConfigFile(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.eventually(func() error {
		text, err := os.ReadFile(m.agentLog())
		if err == nil && !strings.Contains(string(text), "cannot read the changed config") {
			err = errors.New("the log does not tell")
		}
		return err
	})
	m.write(10)
	m.wantLines(m.ids[0], 0)
	m.configure(func(c *agent.Config) { c.Sources.Heartbeat.Interval = agent.Duration(3 * time.Second) })
	m.write(10)
	m.wantLines(m.ids[0], 0)
	if !m.began().Equal(began) {
		t.Error("the agent began anew")
	}
}

// pushing returns a document that asks for one custom log.
func pushing(table, file string) string {
	return fmt.Sprintf(`
instance of MSFT_nxOMSCustomLogObject as $Log { LogName = "CUSTOM_LOG_BLOB.%s"; FilePath = {"%s"}; };
instance of MSFT_nxOMSCustomLogResource { ResourceId = "[nxOMSCustomLog]Logs"; CustomLogObjects = {$Log}; };
instance of MSFT_nxOMSPluginResource { ResourceId = "[nxOMSPlugin]Plugins"; };
instance of OMI_ConfigurationDocument { Version = "2.0.0"; };
`, table, file)
}

// origin waits until the sources come from there, and returns the health.
func (m *machine) origin(want string) *agent.Health {
	m.Helper()
	var h *agent.Health
	m.eventually(func() (err error) {
		if h, err = agent.ReadHealth(m.layout.HealthFile()); err == nil && h.Configuration.Origin != want {
			err = fmt.Errorf("sources come from %q, want %q: %+v", h.Configuration.Origin, want, h.Configuration)
		}
		return err
	})
	return h
}

func (m *machine) collects(h *agent.Health, name, origin string) {
	m.Helper()
	if !slices.ContainsFunc(h.Sources, func(s agent.SourceHealth) bool { return s.Name == name && s.Origin == origin }) {
		m.Errorf("no source %s from %s in %+v", name, origin, h.Sources)
	}
}

// TestPushedConfiguration: with nothing in the settings the default set runs at
// once, then what the first workspace pushes, also at the next start and
// without the service; settings come first when there are any.
func TestPushedConfiguration(t *testing.T) {
	t.Parallel()
	m := prepare(t, 2)
	push := func(workspace, document string) {
		t.Helper()
		if err := m.service.SetConfiguration(emulator.Configuration{Workspace: workspace, Document: document}); err != nil {
			t.Fatal(err)
		}
	}
	pushed := m.lines("Pushed_CL", "pushed.log")
	push(m.ids[0], pushing("Pushed_CL_"+m.ids[0], pushed.file))
	push(m.ids[1], pushing("Never_CL", pushed.file))
	m.with = func(c *agent.Config) { c.Origin, c.FollowWorkspace, c.AnyFile = agent.OriginDefault, true, true }
	m.start(m.service, "")
	h := m.origin(agent.OriginWorkspace)
	m.collects(h, "customlog:Pushed_CL", agent.OriginWorkspace)
	m.collects(h, "heartbeat", agent.OriginDefault)
	if len(h.Sources) != 3 || h.Configuration.Workspace != m.ids[0] || len(h.Configuration.Unobeyed) != 1 {
		t.Errorf("health is %+v, %+v", h.Configuration, h.Sources)
	}
	pushed.next(t, 100)
	m.arrivedOnce(pushed, m.ids[0])
	m.arrivedOnce(pushed, m.ids[1]) // what is collected goes to all workspaces
	reports := m.service.Reports()
	if len(reports) != 1 || reports[0].Workspace != m.ids[0] || len(reports[0].Errors) > 0 || !strings.Contains(reports[0].Status, "[nxOMSPlugin]Plugins") {
		t.Errorf("reports are %+v", reports)
	}

	began := h.Started

	// The settings come first, and the workspace again without them. A document
	// that makes no sense changes nothing.
	m.configure(func(c *agent.Config) { c.Origin, c.FollowWorkspace = agent.OriginSettings, false })
	h = m.origin(agent.OriginSettings)
	m.collects(h, "customlog:App_CL", agent.OriginSettings)
	push(m.ids[0], "<html>")
	m.configure(func(c *agent.Config) { c.Origin, c.FollowWorkspace = agent.OriginDefault, true })
	h = m.origin(agent.OriginWorkspace)
	m.collects(h, "customlog:Pushed_CL", agent.OriginWorkspace)
	m.eventually(func() error {
		h := m.origin(agent.OriginWorkspace)
		if !strings.Contains(h.Configuration.Problem, "MOF") {
			return fmt.Errorf("the problem is %q", h.Configuration.Problem)
		}
		return nil
	})
	if reports := m.service.Reports(); len(reports) != 2 || len(reports[1].Errors) != 1 {
		t.Errorf("reports are %+v", reports)
	}
	pushed.next(t, 100)
	m.arrivedOnce(pushed, m.ids[0])
	if !m.began().Equal(began) {
		t.Error("the agent began anew")
	}

	// The next start goes on with it when the service is out of reach.
	m.stop()
	m.order(emulator.Fault{Kind: emulator.FaultReset})
	pushed.next(t, 100)
	m.start(m.service, "")
	m.eventually(func() error {
		h := m.origin(agent.OriginWorkspace)
		for _, s := range h.Sources {
			if s.Name == "customlog:Pushed_CL" && s.Read == 300 {
				return nil
			}
		}
		return fmt.Errorf("sources are %+v", h.Sources)
	})
	m.service.ClearFaults(0)
	m.arrivedOnce(pushed, m.ids[0])
	for _, r := range m.service.Requests() {
		if r.Endpoint == "configuration" && r.Workspace != m.ids[0] {
			t.Errorf("workspace %s was asked for its configuration", r.Workspace)
		}
	}
}
