package ledger

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func filled() *Ledger {
	l := New()
	l.Read("syslog", 3, 300)
	l.Read("perf", 1, 50)
	l.Read("syslog", 2, 200)
	l.Lost("syslog", Loss{Reason: "spool-full", Class: "auth", Records: 4, Bytes: 40, First: noon, Last: noon.Add(time.Minute)})
	l.Lost("syslog", Loss{Reason: "spool-full", Class: "auth", Records: 1, Bytes: 10, First: noon.Add(-time.Hour)})
	l.Lost("syslog", Loss{Reason: "truncated", Records: 2})
	return l
}

func TestCountsAddUp(t *testing.T) {
	l := filled()
	if read, dropped := l.Source("syslog"); read != 5 || dropped != 7 {
		t.Errorf("syslog read %d dropped %d, want 5 and 7", read, dropped)
	}
	if read, dropped := l.Totals(); read != 6 || dropped != 7 {
		t.Errorf("all read %d dropped %d, want 6 and 7", read, dropped)
	}
	want := []Loss{
		{Source: "syslog", Reason: "spool-full", Class: "auth", Records: 5, Bytes: 50, First: noon.Add(-time.Hour), Last: noon.Add(time.Minute)},
		{Source: "syslog", Reason: "truncated", Records: 2},
	}
	if diff := cmp.Diff(want, l.Losses()); diff != "" {
		t.Error(diff)
	}
}

func TestEncodingIsPinned(t *testing.T) {
	l := New()
	l.Read("a", 1, 2)
	l.Lost("b", Loss{Reason: "r", Class: "c", Records: 3, Bytes: 4, Last: time.Unix(0, 5)})
	want := []byte{1, 1, 1, 'a', 2, 4, 1, 1, 'b', 1, 'r', 1, 'c', 6, 8, 0, 10}
	if got := l.Encode(); !bytes.Equal(got, want) {
		t.Errorf("got % x, want % x", got, want)
	}
}

func TestDecodeGivesBackTheSame(t *testing.T) {
	l := filled()
	again, err := Decode(l.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Encode(), l.Encode()) || !cmp.Equal(again.Losses(), l.Losses()) {
		t.Errorf("got %+v, want %+v", again, l)
	}
	data := l.Encode()
	for n := range data {
		if _, err := Decode(data[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were taken", n, len(data))
		}
	}
	if _, err := Decode(append(data, 0)); err == nil {
		t.Error("a byte too many was taken")
	}
}

func TestLossesAreBounded(t *testing.T) {
	l := New()
	for i := range 10 * maxLosses {
		l.Lost("syslog", Loss{Reason: "spool-full", Class: fmt.Sprint(i), Records: 1})
	}
	if n := len(l.Losses()); n > maxLosses+1 {
		t.Errorf("%d entries, want at most %d", n, maxLosses+1)
	}
	if _, dropped := l.Totals(); dropped != 10*maxLosses {
		t.Errorf("dropped %d, want every one of %d", dropped, 10*maxLosses)
	}
}

// TestEverythingIsBounded: names without end cost neither memory nor a record.
func TestEverythingIsBounded(t *testing.T) {
	l := New()
	const n = 3000
	for i := range n {
		l.Read(fmt.Sprint("source", i), 1, 10)
		l.Lost(fmt.Sprint("source", i), Loss{Reason: fmt.Sprint("reason", i), Class: fmt.Sprint(i), Records: 2})
	}
	if len(l.read) > maxSources+1 || len(l.losses) > 2*maxLosses+1 {
		t.Errorf("%d sources and %d losses are kept apart", len(l.read), len(l.losses))
	}
	if read, dropped := l.Totals(); read != n || dropped != 2*n {
		t.Errorf("read %d and dropped %d, want %d and %d", read, dropped, n, 2*n)
	}
	l = New()
	l.Read(strings.Repeat("x", maxText-1)+"é", 1, 1)
	for name := range l.read {
		if name != strings.Repeat("x", maxText-1) {
			t.Errorf("a long name became %q", name)
		}
	}
}

func TestBalance(t *testing.T) {
	l := filled() // 6 rows emitted
	for _, tt := range []struct{ finished, waiting, want int64 }{{4, 2, 0}, {0, 6, 0}, {4, 1, 1}, {5, 2, -1}} {
		if got := l.Balance(tt.finished, tt.waiting); got != tt.want {
			t.Errorf("with %d finished and %d waiting %d are unaccounted for, want %d", tt.finished, tt.waiting, got, tt.want)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, data := range map[string][]byte{
		"nothing":          {},
		"a newer version":  {2, 0, 0},
		"a source twice":   {1, 2, 1, 'a', 2, 2, 1, 'a', 4, 4, 0},
		"sources unsorted": {1, 2, 1, 'b', 2, 2, 1, 'a', 2, 2, 0},
		"a wide number":    {1, 0x80, 0, 0},
	} {
		if _, err := Decode(data); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(filled().Encode())
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Decode(data)
		if err != nil {
			return
		}
		if again := l.Encode(); !bytes.Equal(again, data) {
			t.Errorf("% x was decoded and encodes as % x", data, again)
		}
	})
}
