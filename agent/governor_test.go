package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openloganalytics/agent/internal/cgroup"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

func TestSoftLimitLeavesRoom(t *testing.T) {
	for mb, want := range map[int]int64{0: 0, 64: 40 << 20, 100: 76 << 20, 256: 228170138, 1000: 850 << 20} {
		if got := softLimit(int64(mb) << 20); got != want {
			t.Errorf("limit below a ceiling of %d MB is %d, want %d", mb, got, want)
		}
	}
}

// What the system gives is a ceiling, too, when it is less than the settings
// say; and who holds the ceilings is told.
func TestCeilingsOfTheSystem(t *testing.T) {
	limits := Limits{MemoryMB: 100, CPUPercent: 20}
	for _, tt := range []struct {
		name    string
		held    cgroup.Held
		err     error
		limits  Limits
		ceiling int64
		note    []string // words of it; none is none
	}{
		{name: "a slice holds both", held: cgroup.Held{Memory: 100 << 20, CPU: 20}, limits: limits, ceiling: 100 << 20},
		{name: "nobody holds any", limits: limits, ceiling: 100 << 20, note: []string{"memoryQuotaInMB and cpuQuotaPercentage", "100 MB of memory and 20 % of a core", "systemd"}},
		{name: "a container is larger", held: cgroup.Held{Memory: 1 << 30, CPU: 100}, limits: limits, ceiling: 100 << 20, note: []string{"memoryQuotaInMB and cpuQuotaPercentage"}},
		{name: "memory alone", held: cgroup.Held{Memory: 100 << 20}, limits: limits, ceiling: 100 << 20, note: []string{"holds cpuQuotaPercentage:", "to 20 % of a core"}},
		{name: "the processor alone", held: cgroup.Held{CPU: 10}, limits: limits, ceiling: 100 << 20, note: []string{"holds memoryQuotaInMB:"}},
		{name: "a container is smaller", held: cgroup.Held{Memory: 50 << 20, CPU: 20}, limits: limits, ceiling: 50 << 20, note: []string{"gives 50 MB of memory, less than memoryQuotaInMB"}},
		{name: "no ceilings are set", held: cgroup.Held{Memory: 50 << 20}, ceiling: 50 << 20},
		{name: "nor given", ceiling: 0},
		{name: "no control groups", err: errors.New("no such file"), limits: limits, ceiling: 100 << 20},
	} {
		g := newGovernor(tt.limits, func() {})
		g.held = func() (cgroup.Held, error) { return tt.held, tt.err }
		if got := ceiling(tt.limits, g.held); got != tt.ceiling {
			t.Errorf("%s: the ceiling is %d, want %d", tt.name, got, tt.ceiling)
		}
		note := g.health(tt.limits).Note
		if (note == "") != (tt.note == nil) {
			t.Errorf("%s: the note is %q", tt.name, note)
		}
		for _, words := range tt.note {
			if !strings.Contains(note, words) {
				t.Errorf("%s: %q is not in the note %q", tt.name, words, note)
			}
		}
	}
}

// However long memory stays short, and however small the groups are of many
// files: a tenth of the time is theirs.
func TestShortMemoryIsNoStandstill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(Limits{MemoryMB: 64}, func() {})
		g.used = func() int64 { return g.limit * 9 / 10 }
		groups := 0
		for begun := time.Now(); time.Since(begun) < time.Minute; groups++ {
			if err := g.admit(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		if groups < 5000 || groups > 6000 {
			t.Errorf("%d groups of a millisecond went on in a minute, want about a tenth of all", groups)
		}
	})
}

// Sources wait while memory is short and go on when it is not; after a second
// they go on for a moment unless memory is out; who cannot wait never waits.
func TestShortMemoryMakesSourcesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told, part := 0, 0.5
		limits := Limits{MemoryMB: 64}
		g := newGovernor(limits, func() { told++ })
		g.used = func() int64 { return int64(part * float64(g.limit)) }
		waits := func(want time.Duration, wantErr error) {
			t.Helper()
			time.Sleep(time.Second)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stop := time.AfterFunc(10*time.Second, cancel)
			defer stop.Stop()
			begun := time.Now()
			if err := g.admit(ctx); !errors.Is(err, wantErr) || time.Since(begun) != want {
				t.Errorf("with %v of the memory in use a source waited %v (%v), want %v (%v)", part, time.Since(begun), err, want, wantErr)
			}
		}
		waits(0, nil)
		part = 0.9
		waits(lookEvery, nil)
		part = 1
		waits(10*time.Second, context.Canceled)
		if h := g.health(limits); h.State != "short" || h.Message == "" || told != 1 {
			t.Errorf("health is %+v, told %d times", h, told)
		}
		hurried, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		if err := g.admit(hurried); err != nil || time.Since(begun) != 0 {
			t.Errorf("a source with a deadline waited %v (%v)", time.Since(begun), err)
		}
		part = 0.8 // not enough yet
		waits(lookEvery, nil)
		part = 0.7
		waits(0, nil)
		if h := g.health(limits); h.State != "ok" || h.Message != "" || told != 2 {
			t.Errorf("health is %+v, told %d times", h, told)
		}
	})
}

// The intake obeys the governor, until the agent stops: what was read by then
// must not wait for memory.
func TestStoppingDoesNotWaitForMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, stop := startIntake(t, openTestSpool(t, memfs.New()))
		defer stop()
		in.governor = newGovernor(Limits{MemoryMB: 64}, func() {})
		in.governor.used = func() int64 { return 2 * in.governor.limit }
		emitted := make(chan error, 2)
		go func() { emitted <- emitRows(t.Context(), in, testTable, 1, 1) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(emitted) != 0 {
			t.Error("the intake took rows without memory")
		}
		in.governor.letGo()
		go func() { emitted <- emitRows(t.Context(), in, testTable, 2, 2) }()
		synctest.Wait()
		if len(emitted) != 2 {
			t.Errorf("%d of 2 rows were taken when the agent stops", len(emitted))
		}
	})
}

// Whatever a source has to do, it keeps to the share of a core, and uses it.
func TestCPUCeilingHolds(t *testing.T) {
	for _, percent := range []int{1, 20, 80} {
		synctest.Test(t, func(t *testing.T) {
			var spent time.Duration
			g := newGovernor(Limits{}, func() {})
			g.share, g.cpuTime = float64(percent)/100, func() time.Duration { return spent }
			g.spent, g.credit = 0, g.most()
			begun := time.Now()
			for time.Since(begun) < 10*time.Minute {
				if err := g.admit(t.Context()); err != nil {
					t.Fatal(err)
				}
				spent += 5 * time.Millisecond
				time.Sleep(5 * time.Millisecond)
			}
			got := float64(spent) / float64(time.Since(begun)+cpuWindow)
			if got > g.share*1.01 || got < g.share*0.95 {
				t.Errorf("the share was %.4f under a ceiling of %v", got, g.share)
			}
		})
	}
}

// Without ceilings nobody waits, and no intake needs a governor.
func TestNoCeilingNoWait(t *testing.T) {
	var none *governor
	for _, g := range []*governor{none, newGovernor(Limits{}, func() {})} {
		if err := g.admit(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
