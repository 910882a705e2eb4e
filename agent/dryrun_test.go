package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent/transform"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
)

// TestDryRun: real sources run, the rows are weighed by table and by who made
// them, and nothing is left behind.
func TestDryRun(t *testing.T) {
	root, logs := t.TempDir(), t.TempDir()
	file := filepath.Join(logs, "app.log")
	if err := os.WriteFile(file, []byte("there before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var spec transform.Spec
	if err := json.Unmarshal([]byte(`{"name":"calm","headerProcessor":{"processor":"header.TextLog"},"processors":[{"processor":"filter.Basic",
		"configuration":{"any":[{"all":[{"columnName":"RawData","operator":"!contains","value":"noise"}]}]}}]}`), &spec); err != nil {
		t.Fatal(err)
	}
	c := &Config{
		Transformations: []transform.Spec{spec}, Redaction: []string{transform.RedactPasswords},
		Sources: Sources{
			Heartbeat:  Heartbeat{Interval: Duration(time.Minute)},
			Syslog:     &Syslog{Selectors: []SyslogSelector{{Facilities: []string{"*"}, Severities: []string{"*"}}}},
			Counters:   []Counters{{Interval: Duration(time.Second), Specifiers: []string{`System(*)\Processes`, `System(*)\Load1`}}},
			CustomLogs: []CustomLog{{Table: "MyApp_CL", Patterns: []string{filepath.Join(logs, "*.log")}, FromStart: true, Transform: "calm"}},
		},
	}
	log, closer, err := logfile.Open(logfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closer.Close() }()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const lines = 40
	app, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = app.Close() }()
	// Each sample of the counters brings some more lines, so that it does not
	// matter when the file is first looked at.
	var before int64
	told := func(rows int64) {
		more := rows - before
		before = rows
		if rows > 4*lines {
			if more == 2 { // a sample
				cancel()
			}
			return
		}
		for i := range lines {
			kind := "password=x"
			if i%2 == 0 {
				kind = "noise"
			}
			fmt.Fprintf(app, "line %02d %s\n", i, kind)
		}
	}
	r, err := DryRun(ctx, Options{Layout: paths.New(root), Config: c, Log: log}, time.Hour, told)
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]bool{}
	var taken int64
	for _, table := range r.Tables {
		tables[table.Table] = true
		switch table.Table {
		case "MyApp_CL":
			taken = table.Rows
			if table.Rows < lines/2 || table.Top[0].Name != file || table.Top[0].Rows != table.Rows {
				t.Errorf("MyApp_CL: %+v, want %d rows or more of %s", table, lines/2, file)
			}
			if least := table.Rows * int64(len("2006-01-02T15:04:05.000Z")+len(file)+len("line 00 password=[redacted password]")); table.Billed < least || table.Billed > least+table.Rows*255 {
				t.Errorf("MyApp_CL is billed as %d bytes, want the text of its columns: %d and the name of the machine", table.Billed, least)
			}
		case "Heartbeat":
			if !table.Free || table.Billed != 0 || table.Rows == 0 {
				t.Errorf("Heartbeat: %+v, want it free", table)
			}
		case "Perf":
			if table.Rows < 2 || table.Rows%2 != 0 || table.Top[0].Name != "System" {
				t.Errorf("Perf: %+v, want two rows for each sample", table)
			}
		}
	}
	if !tables["MyApp_CL"] || !tables["Heartbeat"] || !tables["Perf"] || len(tables) != 3 {
		t.Errorf("tables %v", tables)
	}
	for _, s := range r.Sources {
		if s.Name == "customlog:MyApp_CL" && (s.Filtered != taken || s.Redacted[transform.RedactPasswords] != taken) {
			t.Errorf("%+v, want %d filtered out and %d redacted", s, taken, taken)
		}
	}
	if len(r.Notes) != 2 {
		t.Errorf("notes are %q, want one on the files and one on syslog", r.Notes)
	}
	left, err := os.ReadDir(root)
	if err != nil || len(left) != 0 {
		t.Errorf("a dry run left %v (%v)", left, err)
	}
}
