package ledger

import (
	"bytes"
	"fmt"
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

func FuzzDecode(f *testing.F) {
	f.Add(filled().Encode())
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Decode(data)
		if err != nil {
			return
		}
		if _, err := Decode(l.Encode()); err != nil {
			t.Errorf("what was decoded cannot be encoded: %v", err)
		}
	})
}
