package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
	"github.com/openloganalytics/agent/internal/vfs/memfs"
)

func testOptions(t *testing.T) Options {
	t.Helper()
	return Options{Layout: paths.New(t.TempDir()), Log: logfile.Discard()}
}

func TestWhatNeedsMoreThanOtherSources(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(c *Config)
		want   bool
	}{
		"sources":    {func(c *Config) { c.Sources.Counters = []Counters{{}} }, true},
		"generation": {func(c *Config) { c.Generation = "2" }, true},
		"followed":   {func(c *Config) { c.FollowWorkspace, c.Origin = true, OriginDefault }, true},
		"workspaces": {func(c *Config) { c.Workspaces = []Workspace{{ID: "x"}} }, false},
		"limits":     {func(c *Config) { c.Limits.MemoryMB++ }, false},
		"resource":   {func(c *Config) { c.VMResourceID = "/x" }, false},
		"any file":   {func(c *Config) { c.AnyFile = true }, false},
	} {
		a, b := &Config{Generation: "1"}, &Config{Generation: "1"}
		tt.change(b)
		if got := sourcesOnly(a, b); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
		if a.Generation != "1" {
			t.Errorf("%s: the config was changed", name)
		}
	}
}

// TestConfigIsReread: the same config changes nothing, one that cannot be read
// is read again, and what needs more than other sources, or cannot be started,
// makes the agent begin anew.
func TestConfigIsReread(t *testing.T) {
	base := func() *Config {
		return &Config{Generation: "1", Workspaces: []Workspace{{ID: pushingWorkspace}}, Sources: Sources{Heartbeat: Heartbeat{Interval: Duration(time.Hour)}}}
	}
	for name, tt := range map[string]struct {
		change      func(c *Config)
		err         error
		again, anew bool
		generation  string
	}{
		"the same":          {func(*Config) {}, nil, false, false, "1"},
		"unreadable":        {nil, errors.New("no such file"), true, false, "1"},
		"other sources":     {func(c *Config) { c.Generation, c.Sources.Heartbeat.Interval = "2", Duration(time.Minute) }, nil, false, false, "2"},
		"more than sources": {func(c *Config) { c.Generation, c.Limits.DiskMB = "2", 64 }, nil, false, true, "1"},
		"impossible":        {func(c *Config) { c.Generation, c.Sources.CustomLogs = "2", []CustomLog{{Table: "no table"}} }, nil, false, true, "1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			in, stop := startIntake(t, openTestSpool(t, memfs.New()))
			defer stop()
			o := testOptions(t)
			o.Config = base()
			next := base()
			if tt.change != nil {
				tt.change(next)
			}
			o.Reread = func() (*Config, error) { return next, tt.err }
			r := newRoster(o, &host{name: "vm"}, in, func() {})
			ctx, cancel := context.WithCancel(t.Context())
			first, err := r.plan(o.Config, nil)
			if err == nil {
				err = r.apply(ctx, first)
			}
			if err != nil {
				t.Fatal(err)
			}
			anew := false
			again := !r.reread(ctx, func(cause error) {
				var changed *configChangedError
				anew = errors.As(cause, &changed) && changed.config == next
			})
			if generation, _ := r.inForce(); again != tt.again || anew != tt.anew || generation != tt.generation {
				t.Errorf("%s: again %v, anew %v, generation %s", name, again, anew, generation)
			}
			cancel()
			r.wait()
		})
	}
}

// TestPlacesAreKeptForAWhile: those of sources that do not run any more, as many
// as there may be and for as long.
func TestPlacesAreKeptForAWhile(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := &past{}
	step := func(day int, names ...string) []string {
		t.Helper()
		after, forgotten := p.next(names, start.AddDate(0, 0, day))
		p = &after
		return slices.Sorted(maps.Keys(forgotten))
	}
	step(0, "a", "b")
	step(1, "a")
	step(80, "a") // b keeps its day
	if gone := step(90, "a"); len(gone) > 0 {
		t.Errorf("%q are forgotten after 89 days", gone)
	}
	if gone := step(92, "a"); !slices.Equal(gone, []string{"b"}) {
		t.Errorf("%q are forgotten after 91 days, want b", gone)
	}
	step(93, "b")
	if gone := step(94, "a", "b"); len(gone) > 0 || len(p.Retired) > 0 {
		t.Errorf("%q forgotten, %v retired, though all run", gone, p.Retired)
	}
	for i := range maxRetired {
		step(100+i, fmt.Sprint("x", i))
	}
	if gone := step(160); !slices.Equal(gone, []string{"b"}) || len(p.Retired) != maxRetired {
		t.Errorf("%q are forgotten, %d are kept", gone, len(p.Retired))
	}
}

// notes is what sources note, in order.
type notes struct {
	mu   sync.Mutex
	list []string
}

func (n *notes) add(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, text)
}

// all returns the notes once nothing more comes.
func (n *notes) all() []string {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.list)
}

// A slow source takes an hour to end, emits a row then, and notes where the next
// one begins.
type slow struct {
	name  string
	begun *notes
	fails bool // it ends by itself instead
}

func (s *slow) Name() string { return s.name }

func (s *slow) Run(ctx context.Context, out source.Emitter) error {
	s.begun.add(s.name + " at " + string(out.Checkpoint(s.name)))
	if !s.fails {
		<-ctx.Done()
		time.Sleep(time.Hour)
	}
	last := context.WithoutCancel(ctx)
	err := out.Emit(last, testTable, func(b *record.Batch) { b.Add([]record.Field{{Key: "RawData", Value: []byte("row 1.")}}) },
		source.Checkpoint{Key: s.name, Value: []byte("its end")})
	if s.fails {
		s.fails = false
		return errors.Join(errors.New("broken"), err)
	}
	return err
}

// TestOneSourceFollowsAnother: a source that takes another's name begins when
// that has ended, at its last place; the others are not disturbed.
func TestOneSourceFollowsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestSpool(t, memfs.New())
		in, stop := startIntake(t, s)
		o := testOptions(t)
		o.Config = &Config{Generation: "1"}
		r := newRoster(o, &host{}, in, func() {})
		begun := &notes{}
		planned := func(generation, of string) *plan {
			return &plan{
				config: &Config{Generation: generation}, sources: []source.Source{&slow{name: "a", begun: begun}, &slow{name: "b", begun: begun}},
				parts: map[string]part{"a": {fixed: of}, "b": {}}, origins: map[string]string{},
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		if err := r.apply(ctx, planned("1", "x")); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"a at ", "b at "}, slices.Sorted(slices.Values(begun.all()))); diff != "" {
			t.Error(diff)
		}
		start := time.Now()
		if err := r.apply(ctx, planned("2", "y")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < time.Hour { // by the bubble's clock
			t.Errorf("the change was over after %v, before the source had ended", took)
		}
		if diff := cmp.Diff([]string{"a at its end"}, begun.all()[2:]); diff != "" {
			t.Error(diff)
		}
		if generation, list := r.inForce(); generation != "2" || len(list) != 2 {
			t.Errorf("%d sources of generation %s", len(list), generation)
		}
		cancel()
		r.wait()
		if err := r.apply(ctx, planned("3", "z")); !errors.Is(err, errStopping) {
			t.Errorf("a change after the end: %v", err)
		}
		stop()
	})
}

// TestSourceThatFailedGoesOnFromItsLastPlace, also while the disk is slow.
func TestSourceThatFailedGoesOnFromItsLastPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestSpool(t, memfs.New())
		in := newIntake(s, logfile.Discard()) // nothing becomes durable yet
		begun := &notes{}
		r := newRunning(&slow{name: "a", begun: begun, fails: true}, in, func() {})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); r.run(ctx) }()
		time.Sleep(time.Minute)
		if n := len(begun.all()); n != 1 {
			t.Errorf("it began %d times before what it emitted was durable", n)
		}
		gathering, stop := context.WithCancel(t.Context())
		gathered := make(chan struct{})
		go func() { defer close(gathered); in.run(gathering) }()
		time.Sleep(time.Minute)
		if diff := cmp.Diff([]string{"a at ", "a at its end"}, begun.all()); diff != "" {
			t.Error(diff)
		}
		cancel()
		<-ended
		stop()
		<-gathered
	})
}

// TestPlacesOfSourcesThatAreGone: they are kept, and forgotten when they are
// too many; those of a source that runs never are.
func TestPlacesOfSourcesThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTestSpool(t, memfs.New())
		in, stop := startIntake(t, s)
		o := testOptions(t)
		o.Config = &Config{}
		begun := &notes{}
		run := func(r *roster, names ...string) {
			t.Helper()
			n := &plan{config: &Config{}, parts: map[string]part{}, origins: map[string]string{}}
			for _, name := range names {
				n.sources = append(n.sources, &slow{name: name, begun: begun})
				n.parts[name] = part{}
			}
			ctx, cancel := context.WithCancel(t.Context())
			if err := r.apply(ctx, n); err != nil {
				t.Fatal(err)
			}
			cancel()
			r.wait()
			time.Sleep(time.Minute)
		}
		in.remember([]source.Checkpoint{{Key: "a:file:1", Value: []byte("x")}, {Key: "ab:file:1", Value: []byte("x")}, {Key: "a:b:file:1", Value: []byte("x")}, {Key: "az:1", Value: []byte("x")}})
		// Each run is that of another life of the agent.
		run(newRoster(o, &host{}, in, func() {}), "a", "ab", "a:b")
		for i := range maxRetired {
			run(newRoster(o, &host{}, in, func() {}), fmt.Sprint("x", i), "ab", "a:b")
		}
		if string(s.Checkpoint("a:file:1")) != "x" || string(s.Checkpoint("a")) == "" {
			t.Error("a place is gone that might have been needed")
		}
		run(newRoster(o, &host{}, in, func() {}), "ab", "a:b")
		for key, want := range map[string]string{"a:file:1": "", "a": "", "ab:file:1": "x", "a:b:file:1": "x", "az:1": "x", "x0": "its end"} {
			if got := string(s.Checkpoint(key)); got != want {
				t.Errorf("checkpoint %s is %q, want %q", key, got, want)
			}
		}
		stop()
	})
}
