package customlog

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sourcetest"
)

func TestTable(t *testing.T) {
	for name, logType := range map[string]string{
		"MyApp_CL": "MyApp", "ab_CL": "ab", "Web_2_CL": "Web_2", "X_CL_CL": "X_CL",
		strings.Repeat("x", 100) + "_CL": strings.Repeat("x", 100),
	} {
		got, err := Table(name)
		if err != nil {
			t.Errorf("Table(%q): %v", name, err)
			continue
		}
		want := &record.Table{Name: name, LogType: logType, TimeField: "Timestamp"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Table(%q): %s", name, diff)
		}
	}
	for _, bad := range []string{"", "MyApp", "_CL", "a_CL", "MyApp_cl", "1App_CL", "_App_CL", "My-App_CL", "My App_CL", "Größe_CL", strings.Repeat("x", 101) + "_CL"} {
		if got, err := Table(bad); err == nil {
			t.Errorf("Table(%q) = %+v, want an error", bad, got)
		}
	}
}

func newSource(t testing.TB, o Options) *Source {
	t.Helper()
	table, err := Table("MyApp_CL")
	if err != nil {
		t.Fatal(err)
	}
	o.Table = table
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNewRefusesBadPatterns(t *testing.T) {
	table, err := Table("MyApp_CL")
	if err != nil {
		t.Fatal(err)
	}
	for _, patterns := range [][]string{nil, {"logs/*.log"}, {filepath.Join(t.TempDir(), "[.log")}} {
		if _, err := New(Options{Table: table, Patterns: patterns}); err == nil {
			t.Errorf("New with patterns %q gave no error", patterns)
		}
	}
}

func TestRows(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app 1.log")
	if err := os.WriteFile(path, []byte("say \"hi\"\r\n\n\r\n  indented\ncaf\xe9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSource(t, Options{Patterns: []string{filepath.Join(dir, "*.log")}, FromStart: true, Computer: `host"1`})
	if got := s.Name(); got != "customlog:MyApp_CL" {
		t.Errorf("Name() = %q, want customlog:MyApp_CL", got)
	}
	out := sourcetest.New()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	before := time.Now().Truncate(time.Millisecond)
	go func() { done <- s.Run(run, out) }()
	if err := out.WaitRows(ctx, 3); err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run = %v, want nil once the context ended", err)
	}
	rows := out.Rows("MyApp_CL")
	for _, row := range rows {
		at, err := time.Parse("2006-01-02T15:04:05.000Z", row["Timestamp"].(string))
		if err != nil || at.Before(before) || at.After(after) {
			t.Errorf("Timestamp = %v, want the time of reading (%v)", row["Timestamp"], err)
		}
		delete(row, "Timestamp")
	}
	want := []sourcetest.Row{
		{"Computer": `host"1`, "FilePath": path, "RawData": `say "hi"`},
		{"Computer": `host"1`, "FilePath": path, "RawData": "  indented"},
		{"Computer": `host"1`, "FilePath": path, "RawData": "caf\uFFFD"},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestFilePathIsEscaped(t *testing.T) {
	const path = `C:\logs\the "app".log`
	s := newSource(t, Options{Patterns: []string{t.TempDir()}})
	out := sourcetest.New()
	fill := func(b *record.Batch) { s.rows(b, path, []byte("line\n")) }
	if err := out.Emit(t.Context(), s.follow.Table, fill); err != nil {
		t.Fatal(err)
	}
	if got := out.Rows("MyApp_CL")[0]["FilePath"]; got != path {
		t.Errorf("FilePath = %q, want %q", got, path)
	}
}

func TestRowsAllocateNothing(t *testing.T) {
	s := newSource(t, Options{Patterns: []string{t.TempDir()}, Computer: "host1"})
	b := record.NewBatch(s.follow.Table, record.NewCompressor())
	block := bytes.Repeat([]byte("a line of text\n"), 1000)
	fill := func() {
		s.rows(b, "/var/log/app/app.log", block)
		b.Cut()
	}
	if n := testing.AllocsPerRun(20, fill); n != 0 {
		t.Errorf("%v allocations for 1000 lines, want 0", n)
	}
}

// sink takes rows as the agent does, and throws the pieces away.
type sink struct {
	batch *record.Batch
	rows  int
	left  int // rows until enough
	done  context.CancelFunc
	out   int
}

func (s *sink) Emit(_ context.Context, _ *record.Table, fill func(*record.Batch), _ ...source.Checkpoint) error {
	if fill != nil {
		fill(s.batch)
	}
	if s.batch.Pending() >= 1<<20 {
		s.cut()
	}
	if s.rows+s.batch.Rows() >= s.left {
		s.cut()
		s.done()
	}
	return nil
}

func (s *sink) cut() {
	piece := s.batch.Cut()
	s.rows += piece.Rows
	s.out += len(piece.Data)
}

func (s *sink) Flush(context.Context) error                   { return nil }
func (s *sink) Checkpoint(string) []byte                      { return nil }
func (s *sink) Checkpoints(string, func(string, []byte) bool) {}
func (s *sink) Lost(source.Loss)                              {}
func (s *sink) Trouble(string, string)                        {}

// BenchmarkFollow reads a file of 200-byte lines into compressed pieces.
func BenchmarkFollow(b *testing.B) {
	const lines = 200000
	var text bytes.Buffer
	for i := range lines {
		fmt.Fprintf(&text, "2026-03-04T05:%02d:%02d.%03dZ INFO [worker-%d] request id=%016x method=GET path=\"/api/v1/orders/%d/items\" status=200 bytes=%d took=%dms client=10.1.%d.%d agent=\"example/1.%d\" ok\n",
			i/6000%60, i/100%60, i%1000, i%16, uint64(i)*0x9e3779b97f4a7c15, i*7919%100000, i*104729%100000, i%900, i%256, i*31%256, i%30)
	}
	path := filepath.Join(b.TempDir(), "app.log")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(text.Len()))
	s := newSource(b, Options{Patterns: []string{path}, FromStart: true, Computer: "host1"})
	batch := record.NewBatch(s.follow.Table, record.NewCompressor())
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		out := &sink{batch: batch, left: lines, done: cancel}
		if err := s.Run(ctx, out); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/lines, "ns/line")
}
