package emulator

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func numbered(from, to int) []row {
	var rows []row
	for i := from; i <= to; i++ {
		rows = append(rows, row{"N": i, "Text": fmt.Sprintf("row <%d>", i)})
	}
	return rows
}

func mustOpenStore(t *testing.T, dir string) *store {
	t.Helper()
	s, err := openStore(dir, testTime, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStorePages reads every kind of page out of more rows than one mark.
func TestStorePages(t *testing.T) {
	s := mustOpenStore(t, t.TempDir())
	key := tableKey{testWorkspace, "Syslog"}
	for i := 1; i <= 2000; i += 100 {
		if err := s.add(key.workspace, key.name, numbered(i, i+99), testTime); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		after       int64
		limit       int
		text        string
		first, last int64
		count       int
		next        int64
	}{
		{0, 10, "", 1, 10, 10, 10},
		{511, 3, "", 512, 514, 3, 514},
		{512, 1, "", 513, 513, 1, 513},
		{1995, 100, "", 1996, 2000, 5, 2000},
		{-1, 7, "", 1994, 2000, 7, 2000},
		{-1, 5000, "", 1, 2000, 2000, 2000},
		{-1, 3, "row <19", 1997, 1999, 3, 2000},
		{0, 2, "<777>", 777, 777, 1, 2000},
		{777, 2, "<777>", 0, 0, 0, 2000},
		{2000, 10, "", 0, 0, 0, 2000},
		{9000, 10, "", 0, 0, 0, 2000},
	} {
		rows, next, err := s.read(key, tt.after, tt.limit, tt.text)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != tt.count || next != tt.next ||
			tt.count > 0 && (rows[0].Number != tt.first || rows[len(rows)-1].Number != tt.last || !strings.Contains(string(rows[0].Row), fmt.Sprintf(`"N":%d,`, tt.first))) {
			t.Errorf("read(%d, %d, %q) = %d rows, next %d, want %d from %d to %d, next %d", tt.after, tt.limit, tt.text, len(rows), next, tt.count, tt.first, tt.last, tt.next)
		}
	}
	if rows, next, err := s.read(tableKey{testWorkspace, "Perf"}, -1, 10, ""); err != nil || len(rows) != 0 || next != 0 {
		t.Errorf("read() of no table = %v, %d, %v", rows, next, err)
	}
}

// TestStoreRates counts by minute for an hour and forgets what is older.
func TestStoreRates(t *testing.T) {
	s := mustOpenStore(t, t.TempDir())
	tables := []TableCount{{Workspace: testWorkspace, Table: "Syslog"}}
	for minute, n := range map[int]int{0: 1, 30: 2, 59: 3} {
		if err := s.add(testWorkspace, "Syslog", numbered(1, n), testTime.Add(time.Duration(minute)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	got := s.rates(tables, testTime.Add(59*time.Minute))[0].Rows
	if got[0] != 1 || got[30] != 2 || got[59] != 3 {
		t.Errorf("rates = %v", got)
	}
	got = s.rates(tables, testTime.Add(75*time.Minute))[0].Rows
	if want := [rateMinutes]int{14: 2, 43: 3}; got != want {
		t.Errorf("rates = %v, want %v", got, want)
	}
}

// TestRestart opens a folder again: rows, counts, agents and authority stay,
// and numbers go on.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	first := open(t, func(o *Options) { o.Dir = dir })
	agent := first.onboarded()
	for range 3 {
		do(agent, syslogUpload(syslogItem, syslogItem).request(t)).want(t, 200, "")
	}
	before := first.Tables()
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}

	second := open(t, func(o *Options) { o.Dir = dir })
	after := second.Tables()
	if len(after) != 1 || after[0].Rows != 6 || after[0].Last.UnixMilli() != before[0].Last.UnixMilli() {
		t.Errorf("Tables() = %+v after the restart, %+v before", after, before)
	}
	agent.CloseIdleConnections()
	agent.Transport.(*http.Transport).DialContext = second.dial // trusts the authority of the first
	do(agent, syslogUpload(syslogItem).request(t)).want(t, 200, "")
	text, err := os.ReadFile(second.RowsFile(testWorkspace, "Syslog"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Count(string(text), "\n")
	if rows, err := second.Rows(testWorkspace, "Syslog"); err != nil || len(rows) != 7 || lines != 7 {
		t.Errorf("%d rows, %d lines (%v), want 7", len(rows), lines, err)
	}
}

// TestTornRow sets a row aside that a crash cut, and says so.
func TestTornRow(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, testWorkspace, "Syslog.jsonl")
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{\"N\":1}\n{\"N\":2,\"Te"), 0o600); err != nil {
		t.Fatal(err)
	}
	var said []string
	s, err := openStore(dir, testTime, func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.add(testWorkspace, "Syslog", numbered(3, 3), testTime); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if want := "{\"N\":1}\n{\"N\":3,\"Text\":\"row <3>\"}\n"; err != nil || string(got) != want {
		t.Errorf("file = %q (%v), want %q", got, err, want)
	}
	aside, err := filepath.Glob(path + ".torn-*")
	if err != nil || len(aside) != 1 || len(said) != 1 {
		t.Fatalf("set aside %q (%v), said %q", aside, err, said)
	}
	if rest, err := os.ReadFile(aside[0]); err != nil || string(rest) != `{"N":2,"Te` {
		t.Errorf("set aside %q (%v)", rest, err)
	}
}

// TestStoreNotAlone refuses rows rather than mix them with a stranger's.
func TestStoreNotAlone(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	do(agent, syslogUpload(syslogItem).request(t)).want(t, 200, "")
	if err := os.WriteFile(w.RowsFile(testWorkspace, "Syslog"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	do(agent, syslogUpload(syslogItem).request(t)).want(t, 503, "StorageError")
}

// TestConcurrentUploads keeps every acknowledged row of many connections.
func TestConcurrentUploads(t *testing.T) {
	w := open(t)
	agent := w.onboarded()
	agent.Transport.(*http.Transport).MaxIdleConnsPerHost = 8
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 10 {
				if r := do(agent, syslogUpload(syslogItem, syslogItem, syslogItem).request(t)); r.status != 200 {
					t.Errorf("got %+v", r)
				}
			}
		})
	}
	group.Wait()
	if n := w.syslogRows(); n != 240 {
		t.Errorf("%d rows, want 240", n)
	}
	if got := w.Tables()[0].Rows; got != 240 {
		t.Errorf("Tables() counts %d rows, want 240", got)
	}
}
