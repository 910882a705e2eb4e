package heartbeat

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/source/sourcetest"
)

func TestRowsOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := sourcetest.New()
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
		defer cancel()
		h := New(Options{
			Computer: "host1", OSType: "Linux", OSName: "Ubuntu", OSMajorVersion: "22", OSMinorVersion: "04",
			PrivateIPs: func() []string { return []string{"10.0.0.4", "fd00::4"} }, Version: "1.2.3",
			Installed: time.Date(1999, 12, 31, 23, 59, 59, 0, time.UTC),
		})
		if err := h.Run(ctx, out); err != nil {
			t.Fatal(err)
		}
		rows := out.Rows("Heartbeat")
		if len(rows) != 3 {
			t.Fatalf("%d rows in two and a half minutes, want 3", len(rows))
		}
		want := map[string]any{
			"Timestamp": "2000-01-01T00:00:00.000Z", "Computer": "host1", "OSType": "Linux", "OSName": "Ubuntu",
			"OSMajorVersion": "22", "OSMinorVersion": "04", "Category": "Agent", "SCAgentChannel": "Direct",
			"ComputerPrivateIps": `["10.0.0.4","fd00::4"]`, "Version": "1.2.3-0",
			"InstalledDate": "1999-12-31T23:59:59.000Z",
		}
		if diff := cmp.Diff(want, map[string]any(rows[0])); diff != "" {
			t.Error(diff)
		}
		if rows[2]["Timestamp"] != "2000-01-01T00:02:00.000Z" {
			t.Errorf("third row is of %v", rows[2]["Timestamp"])
		}
	})
}

func TestWhatIsUnknownIsLeftOut(t *testing.T) {
	for _, f := range New(Options{Computer: "h", OSMajorVersion: "9"}).row(time.Unix(0, 0)) {
		switch f.Key {
		case "Timestamp", "Computer", "Category", "SCAgentChannel":
		default:
			t.Errorf("the row has %s = %q", f.Key, f.Value)
		}
	}
}

func TestFullSpoolIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := sourcetest.New()
		out.Block()
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		if err := New(Options{Computer: "h"}).Run(ctx, out); err != nil {
			t.Fatal(err)
		}
		if losses := out.Losses(); len(losses) == 0 || losses[0].Reason != "spool-full" || losses[0].Records != 1 {
			t.Errorf("losses are %+v", losses)
		}
	})
}
