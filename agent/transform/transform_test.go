package transform

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sourcetest"
)

var (
	syslogTable = &record.Table{Name: "Syslog", DataType: "LINUX_SYSLOGS_BLOB", IPName: "LOGMANAGEMENT"}
	perfTable   = &record.Table{Name: "Perf", DataType: "LINUX_PERF_BLOB", IPName: "LogManagement"}
	customTable = &record.Table{Name: "Mine_CL", LogType: "Mine", TimeField: "Timestamp"}
)

const (
	message = `{"ident":"sshd","Timestamp":"2026-01-02T03:04:05.000Z","EventTime":"2026-01-02T03:04:04.000Z","Host":"h","HostIP":"10.0.0.1",` +
		`"Message":"{\"user\":{\"name\":\"Ann\"},\"n\":[1,2.5]}","ProcessId":"12","Facility":"auth","Severity":"err"}`
	counters = `{"Timestamp":"2026-01-02T03:04:05.000Z","Host":"h","ObjectName":"Processor","InstanceName":"_Total",` +
		`"Collections":[{"CounterName":"% Processor Time","Value":12.5},{"CounterName":"% Idle Time","Value":87.5}]}`
	line = `{"Timestamp":"2026-01-02T03:04:05.000Z","Computer":"h","FilePath":"/a.log","RawData":"<a><b c='1'>x &amp; y</b><b c='2'>z</b></a>"}`
)

func mustNew(t testing.TB, spec string) *Pipeline {
	t.Helper()
	var s Spec
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		t.Fatal(err)
	}
	p, problems := New(s)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return p
}

// feed is a source that emits what the test sends, each with a place after it.
type feed struct {
	table *record.Table
	rows  chan string
	err   chan error
}

func newFeed(t *record.Table) *feed {
	return &feed{t, make(chan string), make(chan error)}
}

func (*feed) Name() string { return "feed" }

func (f *feed) Run(ctx context.Context, out source.Emitter) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case row := <-f.rows:
			f.err <- out.Emit(ctx, f.table, func(b *record.Batch) { b.AddRows([]byte(row), strings.Count(row, ",{\"")) }, source.Checkpoint{Key: "feed", Value: []byte(row)})
		}
	}
}

// emit sends rows through the wrapped source, and waits until they are taken.
func (f *feed) emit(t *testing.T, rows ...string) {
	t.Helper()
	f.rows <- "," + strings.Join(rows, ",")
	if err := <-f.err; err != nil {
		t.Fatal(err)
	}
}

// running starts s and returns the function that ends it.
func running(t *testing.T, s source.Source, out source.Emitter) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, out) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil once the context ended", err)
		}
	}
}

func TestPipelines(t *testing.T) {
	const syslog, text, perf = `"headerProcessor":{"processor":"header.Syslog"}`, `"headerProcessor":{"processor":"header.TextLog"}`, `"headerProcessor":{"processor":"header.LinuxPerformanceCounters"}`
	condition := func(conditions string) string {
		return `{` + syslog + `,"processors":[{"processor":"filter.Basic","configuration":{"any":[` + conditions + `]}}]}`
	}
	for _, c := range []struct {
		name string
		spec string
		from *record.Table
		row  string
		to   *record.Table
		want string // rows that come out, one a line; empty is none
	}{
		{"nothing", `{` + syslog + `}`, syslogTable, message, nil, message},
		{"equal", condition(`{"all":[{"columnName":"Facility","operator":"==","value":"auth"}]}`), syslogTable, message, nil, message},
		{"not equal", condition(`{"all":[{"columnName":"Facility","operator":"==","value":"Auth"}]}`), syslogTable, message, nil, ""},
		{"contains", condition(`{"all":[{"columnName":"Message","operator":"contains","value":"aNN"}]}`), syslogTable, message, nil, message},
		{"contains not", condition(`{"all":[{"columnName":"Message","operator":"!contains","value":"Ann"}]}`), syslogTable, message, nil, ""},
		{"computed number", condition(`{"all":[{"columnName":"SeverityNumber","operator":"<=","value":3},{"columnName":"SeverityNumber","operator":">","value":2}]}`), syslogTable, message, nil, message},
		{"all of one group", condition(`{"all":[{"columnName":"Host","operator":"==","value":"h"},{"columnName":"Ident","operator":"==","value":"su"}]}`), syslogTable, message, nil, ""},
		{"any group", condition(`{"all":[{"columnName":"Ident","operator":"==","value":"su"}]},{"all":[{"columnName":"Ident","operator":"!=","value":"su"}]}`), syslogTable, message, nil, message},
		{
			"into a custom table", `{` + syslog + `}`, syslogTable, message, customTable,
			strings.Replace(strings.Replace(message, `"ident"`, `"Ident"`, 1), `"err"}`, `"err","SeverityNumber":3}`, 1),
		},
		{
			"rename and drop", `{` + syslog + `,"processors":[
			{"processor":"map.Drop","configuration":{"columnNames":["EventTime","HostIP","Message","Facility","Severity","SeverityNumber"]}},
			{"processor":"map.Rename","configuration":{"all":[{"columnName":"ProcessId","nameAs":"Pid","typeAs":"int"},{"columnName":"Host","typeAs":"real"}]}}]}`,
			syslogTable, message, customTable, `{"Timestamp":"2026-01-02T03:04:05.000Z","Ident":"sshd","Pid":12}`,
		},
		{
			"JSON path", `{` + syslog + `,"processors":[
			{"processor":"parse.JsonPath","configuration":{"columnName":"Message","all":[{"path":"$.user.name","nameAs":"User"},{"path":"$['n'][1]","nameAs":"N","typeAs":"long"},
				{"path":"$.user","nameAs":"Object"},{"path":"$.none","nameAs":"None"}]}},
			{"processor":"map.Drop","configuration":{"columnNames":["Message","EventTime","HostIP","Host","Ident","ProcessId","Facility","Severity","SeverityNumber"]}}]}`,
			syslogTable, message, customTable, `{"Timestamp":"2026-01-02T03:04:05.000Z","User":"Ann","N":2,"Object":{"name":"Ann"}}`,
		},
		{
			"XML path", `{` + text + `,"processors":[
			{"processor":"parse.XmlPath","configuration":{"columnName":"RawData","all":[{"path":"/a/b","nameAs":"First"},{"path":"/a/b[@c='2']","nameAs":"Second"},
				{"path":"/a/b/@c","nameAs":"C","typeAs":"int"},{"path":"/a/d","nameAs":"None"}]}},
			{"processor":"map.Drop","configuration":{"columnNames":["RawData"]}}]}`,
			customTable, line, customTable, `{"Timestamp":"2026-01-02T03:04:05.000Z","Computer":"h","FilePath":"/a.log","First":"x & y","Second":"z","C":1}`,
		},
		{
			"counters filtered", `{` + perf + `,"processors":[{"processor":"filter.Basic","configuration":{"any":[{"all":[{"columnName":"Value","operator":">","value":50}]}]}}]}`,
			perfTable, counters, nil, `{"Timestamp":"2026-01-02T03:04:05.000Z","Host":"h","ObjectName":"Processor","InstanceName":"_Total","Collections":[{"CounterName":"% Idle Time","Value":87.5}]}`,
		},
		{
			"counters into a custom table", `{` + perf + `}`, perfTable, counters, customTable,
			`{"Timestamp":"2026-01-02T03:04:05.000Z","Host":"h","ObjectName":"Processor","InstanceName":"_Total","CounterName":"% Processor Time","Value":12.5}` + "\n" +
				`{"Timestamp":"2026-01-02T03:04:05.000Z","Host":"h","ObjectName":"Processor","InstanceName":"_Total","CounterName":"% Idle Time","Value":87.5}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, out := newFeed(c.from), sourcetest.New()
			s := Wrap(f, Options{Routes: []Route{{Pipeline: mustNew(t, c.spec), Table: c.to}}})
			stop := running(t, s, out)
			f.emit(t, c.row)
			stop()
			to := c.from
			if c.to != nil {
				to = c.to
			}
			want := []sourcetest.Row{}
			for text := range strings.Lines(c.want) {
				var row sourcetest.Row
				if err := json.Unmarshal([]byte(text), &row); err != nil {
					t.Fatal(err)
				}
				want = append(want, row)
			}
			got := out.Rows(to.Name)
			if len(got) == 0 {
				got = []sourcetest.Row{}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			if filtered := s.Filtered(); (filtered == 1) != (c.want == "") {
				t.Errorf("%d rows filtered out", filtered)
			}
			out.Durable()
			if got := string(out.Checkpoint("feed")); got != ","+c.row {
				t.Errorf("the source's place is %q", got)
			}
		})
	}
}

// TestRoutes: a row goes every way that wants it, as it is where nothing is to
// be changed.
func TestRoutes(t *testing.T) {
	f, out := newFeed(syslogTable), sourcetest.New()
	is := func(facility string) func(func(string) []byte) bool {
		return func(column func(string) []byte) bool { return string(column("Facility")) == facility }
	}
	s := Wrap(f, Options{Routes: []Route{
		{Wanted: is("auth")},
		{Wanted: is("auth"), Pipeline: mustNew(t, `{"headerProcessor":{"processor":"header.Syslog"}}`), Table: customTable},
		{Wanted: is("mail")},
	}})
	stop := running(t, s, out)
	f.emit(t, message, strings.Replace(message, "auth", "mail", 1), strings.Replace(message, "auth", "cron", 1))
	stop()
	if n, m := len(out.Rows("Syslog")), len(out.Rows("Mine_CL")); n != 2 || m != 1 {
		t.Errorf("%d rows in Syslog and %d in Mine_CL, want 2 and 1", n, m)
	}
	if got := s.Filtered(); got != 1 {
		t.Errorf("%d rows filtered out, want 1", got)
	}
}

const sums = `{"headerProcessor":{"processor":"header.LinuxPerformanceCounters"},"processors":[
	{"processor":"aggregate.Basic","configuration":{"batchingSettings":{"timeWindow":"5m","maxBatchRows":5},
		"aggregates":[{"columnName":"Value","operator":"avg","nameAs":"Average"},{"columnName":"Value","operator":"max","nameAs":"Most"},{"operator":"count","nameAs":"N"}],
		"dimensionColumns":["CounterName"]}},
	{"processor":"filter.Basic","configuration":{"any":[{"all":[{"columnName":"Average","operator":">","value":20}]}]}}]}`

func counter(value string) string { return strings.Replace(counters, "12.5", value, 1) }

// TestAggregate: a window ends with the clock, or when it is full.
func TestAggregate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, out := newFeed(perfTable), sourcetest.New()
		stop := running(t, Wrap(f, Options{Routes: []Route{{Pipeline: mustNew(t, sums), Table: customTable}}}), out)
		f.emit(t, counter("10"))
		time.Sleep(4 * time.Minute)
		f.emit(t, counter("40"))
		if n := len(out.Rows("Mine_CL")); n != 0 {
			t.Errorf("%d rows before the window has ended", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		want := []sourcetest.Row{
			{"Timestamp": "2000-01-01T00:00:00.000Z", "CounterName": "% Processor Time", "Average": 25.0, "Most": 40.0, "N": 2.0},
			{"Timestamp": "2000-01-01T00:00:00.000Z", "CounterName": "% Idle Time", "Average": 87.5, "Most": 87.5, "N": 2.0},
		}
		if diff := cmp.Diff(want, out.Rows("Mine_CL")); diff != "" {
			t.Errorf("rows of the first window (-want +got):\n%s", diff)
		}
		f.emit(t, counter("1"), counter("1"), counter("1"), counter("100")) // eight rows, five to a window
		if n := len(out.Rows("Mine_CL")); n != 3 {                          // the average of % Processor Time is too low
			t.Errorf("%d rows after a window was full, want 3", n)
		}
		stop()
	})
}

// TestAggregateCrash: what the rows of an open window add up to is as durable as
// the place of the source.
func TestAggregateCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := sourcetest.New()
		start := func(spec string) (*feed, func()) {
			f := newFeed(perfTable)
			return f, running(t, Wrap(f, Options{Routes: []Route{{Pipeline: mustNew(t, spec), Table: customTable}}}), out)
		}
		f, stop := start(sums)
		f.emit(t, counter("30"))
		out.Durable()
		f.emit(t, counter("1000"))
		stop()
		out = out.Crash()

		f, stop = start(sums)
		f.emit(t, counter("50"))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got := out.Rows("Mine_CL")[0]; got["N"] != 2.0 || got["Average"] != 40.0 {
			t.Errorf("after a crash the window came to %v, want the average 40 of 2", got)
		}
		f.emit(t, counter("60"))
		out.Durable()
		stop()

		// With another configuration the window comes out as it was meant.
		_, stop = start(strings.Replace(sums, "Average", "Mean", 3))
		synctest.Wait()
		rows := out.Rows("Mine_CL")
		if got := rows[len(rows)-2]; got["Average"] != 60.0 || got["Mean"] != nil {
			t.Errorf("after a change the old window came out as %v", got)
		}
		stop()
	})
}

// TestFailedEmit: what was not taken is not summed up either.
func TestFailedEmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, out := newFeed(perfTable), sourcetest.New()
		stop := running(t, Wrap(f, Options{Routes: []Route{{Pipeline: mustNew(t, sums), Table: customTable}}}), out)
		f.emit(t, counter("30"))
		out.Fail(errors.New("no"))
		f.rows <- "," + counter("1000")
		if <-f.err == nil {
			t.Error("an Emit that failed gave no error")
		}
		out.Fail(nil)
		f.emit(t, counter("50"))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got := out.Rows("Mine_CL")[0]; got["N"] != 2.0 || got["Average"] != 40.0 {
			t.Errorf("the window came to %v, want the average 40 of 2", got)
		}
		stop()
	})
}

// TestLeftovers: a window whose source is gone comes out.
func TestLeftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, out := newFeed(perfTable), sourcetest.New()
		stop := running(t, Wrap(f, Options{Routes: []Route{{Pipeline: mustNew(t, sums), Table: customTable}}}), out)
		f.emit(t, counter("30"))
		stop()
		out.Durable()
		if l := Leftovers(out.Checkpoints, []string{"feed"}); l != nil {
			t.Errorf("leftovers %v of a source that is there", l)
		}
		l := Leftovers(out.Checkpoints, []string{"other"})
		stop = running(t, l, out)
		synctest.Wait()
		stop()
		out.Durable()
		if n := len(out.Rows("Mine_CL")); n != 2 {
			t.Errorf("%d rows came out, want 2", n)
		}
		if l := Leftovers(out.Checkpoints, nil); l != nil {
			t.Errorf("leftovers %v after all came out", l)
		}
	})
}

// TestNewRefuses: each fault is named with its field.
func TestNewRefuses(t *testing.T) {
	const head = `{"headerProcessor":{"processor":"header.Syslog"},"processors":[`
	step := func(processor, configuration string) string {
		return head + `{"processor":"` + processor + `","configuration":` + configuration + `}]}`
	}
	for _, c := range []struct{ spec, field, fix string }{
		{`{"headerProcessor":{"processor":"header.Sislog"}}`, "headerProcessor.processor", "header.Syslog"},
		{`{"headerProcessor":{"processor":"header.Syslog","configuration":{"a":1}}}`, "headerProcessor.configuration", "take it out"},
		{step("transform.KQL", `{}`), "processors[0].processor", "filter.Basic"},
		{step("filter.basic", `{}`), "processors[0].processor", "filter.Basic?"},
		{step("filter.Basic", `{"any":[]}`), "processors[0].configuration.any", "at least one"},
		{step("filter.Basic", `{"none":[]}`), "processors[0].configuration", "as Azure documents"},
		{step("filter.Basic", `{"any":[{"all":[{"columnName":"Facilty","operator":"==","value":"auth"}]}]}`), "processors[0].configuration.any[0].all[0].columnName", "Facility?"},
		{step("filter.Basic", `{"any":[{"all":[{"columnName":"Facility","operator":"<","value":"auth"}]}]}`), "processors[0].configuration.any[0].all[0].operator", "contains"},
		{step("filter.Basic", `{"any":[{"all":[{"columnName":"Facility","operator":"==","value":4}]}]}`), "processors[0].configuration.any[0].all[0].value", "quotes"},
		{step("map.Drop", `{"columnNames":["TimeGenerated"]}`), "processors[0].configuration.columnNames[0]", "its time"},
		{step("map.Rename", `{"all":[{"columnName":"Host","nameAs":"Message"}]}`), "processors[0].configuration.all[0].nameAs", "another name"},
		{step("map.Rename", `{"all":[{"columnName":"Host","typeAs":"text"}]}`), "processors[0].configuration.all[0].typeAs", "datetime"},
		{step("parse.JsonPath", `{"columnName":"Message","all":[{"path":"user.name","nameAs":"User"}]}`), "processors[0].configuration.all[0].path", "$.user.name"},
		{step("parse.JsonPath", `{"columnName":"Message","all":[{"path":"$.a","nameAs":"a-b"}]}`), "processors[0].configuration.all[0].nameAs", "letters"},
		{step("parse.XmlPath", `{"columnName":"Message","all":[{"path":"//a","nameAs":"A"}]}`), "processors[0].configuration.all[0].path", "/Root/Child"},
		{step("aggregate.Basic", `{"batchingSettings":{"timeWindow":"5 minutes","maxBatchRows":1},"aggregates":[{"operator":"count","nameAs":"N"}],"dimensionColumns":["Host"]}`), "processors[0].configuration.batchingSettings.timeWindow", `"5m"`},
		{step("aggregate.Basic", `{"batchingSettings":{"timeWindow":"5m","maxBatchRows":1},"aggregates":[{"columnName":"Host","operator":"sum","nameAs":"N"}],"dimensionColumns":[]}`), "processors[0].configuration.aggregates[0].columnName", "numbers"},
		{step("aggregate.Basic", `{"batchingSettings":{"timeWindow":"5m","maxBatchRows":1},"aggregates":[{"operator":"count","nameAs":"N"}],"dimensionColumns":["EventTime"]}`), "processors[0].configuration.dimensionColumns[0]", "string"},
	} {
		var s Spec
		if err := json.Unmarshal([]byte(c.spec), &s); err != nil {
			t.Fatal(err)
		}
		_, problems := New(s)
		if len(problems) != 1 || problems[0].Field != c.field || !strings.Contains(problems[0].Fix, c.fix) {
			t.Errorf("New(%s)\n  = %v\n  want one problem of %s, with %q in its fix", c.spec, problems, c.field, c.fix)
		}
	}
}

// TestFits: only columns of its table may go into a standard table.
func TestFits(t *testing.T) {
	const head = `{"headerProcessor":{"processor":"header.Syslog"},"processors":[`
	if err := mustNew(t, head+`{"processor":"map.Drop","configuration":{"columnNames":["HostIP"]}}]}`).Fits(); err != nil {
		t.Errorf("Fits after a column was dropped: %v", err)
	}
	if err := mustNew(t, head+`{"processor":"map.Rename","configuration":{"all":[{"columnName":"Host","nameAs":"Server"}]}}]}`).Fits(); err == nil || !strings.Contains(err.Error(), "Server") {
		t.Errorf("Fits with a column Server = %v", err)
	}
}

type names map[string]string

func (n names) LookupAddr(ctx context.Context, address string) ([]string, error) {
	if address == "10.0.0.9" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if name := n[address]; name != "" {
		delete(n, address) // asked once
		return []string{name}, nil
	}
	return nil, errors.New("no such host")
}

// TestDNSLookup: names are asked for once, and never for long.
func TestDNSLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, `{"headerProcessor":{"processor":"header.Syslog"},"processors":[{"processor":"enrich.DNSLookup","configuration":{"columnName":"HostIP","nameAs":"Name"}}]}`)
		p.first[0].(*dnsLookup).resolver = names{"10.0.0.1": "one.example."}
		f, out := newFeed(syslogTable), sourcetest.New()
		stop := running(t, Wrap(f, Options{Routes: []Route{{Pipeline: p, Table: customTable}}}), out)
		began := time.Now()
		f.emit(t, message, message)
		for range 2 * dnsPatience {
			f.emit(t, strings.Replace(message, "10.0.0.1", "10.0.0.9", 1))
		}
		stop()
		if waited := time.Since(began); waited > dnsPatience*dnsTimeout {
			t.Errorf("rows waited %v for names", waited)
		}
		for i, row := range out.Rows("Mine_CL") {
			if got := row["Name"]; i < 2 && got != "one.example" || i >= 2 && got != nil {
				t.Errorf("Name of row %d = %v", i, got)
			}
		}
	})
}

// TestManyRows: what comes out of one Emit is handed on in parts.
func TestManyRows(t *testing.T) {
	f, out := newFeed(syslogTable), &scale{Emitter: sourcetest.New()}
	stop := running(t, Wrap(f, Options{Routes: []Route{{Pipeline: mustNew(t, `{"headerProcessor":{"processor":"header.Syslog"}}`), Table: customTable}}}), out)
	const n = 5 * source.MaxEmit / len(message)
	rows := make([]string, n)
	for i := range rows {
		rows[i] = message
	}
	f.emit(t, rows...)
	stop()
	if got := len(out.Rows("Mine_CL")); got != n {
		t.Errorf("%d rows came out, want %d", got, n)
	}
	if out.most > source.MaxEmit || out.places != 1 {
		t.Errorf("an Emit had %d bytes, at most %d may be; %d Emits had a place, want 1", out.most, source.MaxEmit, out.places)
	}
}

// scale is an emitter that weighs each Emit.
type scale struct {
	*sourcetest.Emitter
	most, places int
}

func (s *scale) Emit(ctx context.Context, table *record.Table, fill func(*record.Batch), at ...source.Checkpoint) error {
	s.places += len(at)
	return s.Emitter.Emit(ctx, table, func(b *record.Batch) {
		fill(b)
		s.most = max(s.most, b.Pending())
	}, at...)
}

func TestRedact(t *testing.T) {
	key := strings.Repeat("Ab1+", 21) + "Ab=="
	for _, c := range []struct{ kind, in, want string }{
		{RedactKeys, "AccountKey=" + key + ";x", "AccountKey=[redacted key];x"},
		{RedactKeys, "key " + key, "key [redacted key]"},
		{RedactKeys, "https://a/b?sv=1&sig=" + strings.Repeat("a%2B", 11) + "%3D&x", "https://a/b?sv=1&sig=[redacted key]&x"},
		{RedactKeys, "a\n-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\nb", "a\n[redacted key]\nb"},
		{RedactKeys, "-----BEGIN PRIVATE KEY-----\nMIIx", "[redacted key]"},
		{RedactKeys, "x\nAKIAIOSFODNN7EXAMPLE y", "x\n[redacted key] y"},
		{RedactTokens, "t=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijk end", "t=[redacted token] end"},
		{RedactTokens, `{"Authorization":"Bearer abcdefghij0123456789"}`, `{"Authorization":"Bearer [redacted token]"}`},
		{RedactTokens, "ghp_" + strings.Repeat("a1", 18), "[redacted token]"},
		{RedactPasswords, "password=hunter2, user=a", "password=[redacted password], user=a"},
		{RedactPasswords, `{"Password": "hunter2"}`, `{"Password": "[redacted password]"}`},
		{RedactPasswords, "amqp://me:hunter2@host/", "amqp://me:[redacted password]@host/"},
		{RedactCards, "card 4111 1111 1111 1111.", "card [redacted card]."},
		{RedactCards, "4012888888881881", "[redacted card]"},
		{RedactCards, "4012888888881882", "4012888888881882"}, // the check digit is wrong
		{RedactCards, "id 84111111111111111", "id 84111111111111111"},
		{RedactCards, "password=hunter2", "password=hunter2"}, // not asked for
	} {
		r, err := NewRedactor([]string{c.kind})
		if err != nil {
			t.Fatal(err)
		}
		b := record.NewBatch(customTable, nil)
		b.Add([]record.Field{{Key: "RawData", Value: []byte(c.in)}, {Key: "After", Value: []byte("end")}})
		rows, hits := r.rows(b.Drain())
		var got map[string]string
		if err := json.Unmarshal(rows[1:], &got); err != nil {
			t.Fatalf("%s of %q: %v", c.kind, c.in, err)
		}
		if got["RawData"] != c.want || got["After"] != "end" {
			t.Errorf("%s of %q = %q, want %q", c.kind, c.in, got["RawData"], c.want)
		}
		if n := hits[c.kind]; (n == 1) != (c.in != c.want) {
			t.Errorf("%s of %q: %d hits", c.kind, c.in, n)
		}
	}
	if _, err := NewRedactor([]string{"names"}); err == nil || !strings.Contains(err.Error(), "cards") {
		t.Errorf("NewRedactor of names = %v", err)
	}
}

// TestRedactSource: secrets are redacted before rows are filtered and emitted.
func TestRedactSource(t *testing.T) {
	r, err := NewRedactor(RedactKinds())
	if err != nil {
		t.Fatal(err)
	}
	f, out := newFeed(syslogTable), sourcetest.New()
	s := Wrap(f, Options{Routes: []Route{{}}, Redact: r})
	stop := running(t, s, out)
	f.emit(t, strings.Replace(message, `"sshd"`, `"pwd: hunter2"`, 1), message)
	stop()
	if got := out.Rows("Syslog")[0]["ident"]; got != "pwd: [redacted password]" {
		t.Errorf("ident = %q", got)
	}
	if diff := cmp.Diff(map[string]int64{RedactPasswords: 1}, s.Redacted()); diff != "" {
		t.Errorf("Redacted (-want +got):\n%s", diff)
	}
}

// FuzzRedact: rows stay rows, whatever is in them.
func FuzzRedact(f *testing.F) {
	for _, seed := range []string{"password=\\\"x\\\"", "-----BEGIN PRIVATE KEY-----\n\"", "4111 1111 1111 1111", "secret: \x00\x01\\", "http://a:b\\@c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := NewRedactor(RedactKinds())
		if err != nil {
			t.Fatal(err)
		}
		b := record.NewBatch(customTable, nil)
		b.Add([]record.Field{{Key: "RawData", Value: []byte(text)}, {Key: "After", Value: []byte("end")}})
		rows, _ := r.rows(b.Drain())
		var got map[string]string
		if err := json.Unmarshal(rows[1:], &got); err != nil || got["After"] != "end" || len(got) != 2 {
			t.Errorf("rows of %q: %s (%v)", text, rows, err)
		}
	})
}

// FuzzCutRow: what encoding/json takes for an object, in compact form, is cut
// as encoding/json does it, and nothing makes it read beyond.
func FuzzCutRow(f *testing.F) {
	f.Add([]byte(message))
	f.Add([]byte(counters))
	f.Add([]byte(`{}x`))
	f.Add([]byte(`{"a":[{"b":"]"}],"c":"\\"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, _, err := cutRow(nil, data); err != nil && !errors.Is(err, errNoRow) {
			t.Error(err)
		}
		var want map[string]json.RawMessage
		if json.Unmarshal(data, &want) != nil || want == nil {
			return
		}
		compact, _ := json.Marshal(want)
		columns, rest, err := cutRow(nil, compact)
		if err != nil || len(rest) != 0 {
			t.Fatalf("cutRow(%s) left %q (%v)", compact, rest, err)
		}
		for _, c := range columns {
			value := string(c.value)
			if c.value == nil {
				value = "null"
			}
			var name string
			if err := json.Unmarshal([]byte(`"`+c.name+`"`), &name); err != nil {
				t.Fatal(err)
			}
			var got, wanted any
			if json.Unmarshal([]byte(value), &got) != nil || json.Unmarshal(want[name], &wanted) != nil || !cmp.Equal(got, wanted) {
				t.Errorf("cutRow(%s): %s = %s", compact, name, value)
			}
		}
	})
}

// FuzzPaths: no document makes an extraction fail otherwise than by finding
// nothing.
func FuzzPaths(f *testing.F) {
	f.Add(`{"a":{"b":[1,2]}}`)
	f.Add(`<a><b c="1">x</b></a>`)
	f.Add(`<a><b c="1">x</a></b><![CDATA[`)
	spec := `{"headerProcessor":{"processor":"header.TextLog"},"processors":[
		{"processor":"parse.JsonPath","configuration":{"columnName":"RawData","all":[{"path":"$.a.b[1]","nameAs":"J"}]}},
		{"processor":"parse.XmlPath","configuration":{"columnName":"RawData","all":[{"path":"/a/b","nameAs":"X"},{"path":"/a/b/@c","nameAs":"Y","typeAs":"datetime"}]}}]}`
	f.Fuzz(func(t *testing.T, doc string) {
		p := mustNew(t, spec)
		r := &row{columns: []column{{"RawData", record.AppendText(nil, []byte(doc))}}}
		p.run(t.Context(), p.first, r)
		out := p.header.appendRow(nil, r, false)
		if !json.Valid(out[1:]) {
			t.Errorf("of %q came %s", doc, out)
		}
	})
}
