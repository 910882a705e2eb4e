package memfs

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/openloganalytics/agent/internal/vfs"
)

var errTest = errors.New("test")

func create(t *testing.T, m *FS, name, data string) vfs.File {
	t.Helper()
	f, err := m.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, data, 0)
	return f
}

func write(t *testing.T, f vfs.File, data string, off int64) {
	t.Helper()
	if _, err := f.WriteAt([]byte(data), off); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// crashes returns the states of one file that many crashes leave.
func crashes(m *FS, name string) map[string]bool {
	seen := map[string]bool{}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 400 {
		data := m.Crash(rng).ReadFile(name)
		if data == nil {
			seen["missing"] = true
			continue
		}
		seen[string(data)] = true
	}
	return seen
}

func TestCrashKeepsWhatIsSynced(t *testing.T) {
	m := New()
	f := create(t, m, "x", "synced")
	must(t, f.Sync())
	if seen := crashes(m, "x"); !seen["missing"] || !seen["synced"] || len(seen) != 2 {
		t.Errorf("before SyncDir a crash leaves %v", seen)
	}
	must(t, m.SyncDir())
	if seen := crashes(m, "x"); !seen["synced"] || len(seen) != 1 {
		t.Errorf("after SyncDir a crash leaves %v", seen)
	}
	far := int64(10 * sectorSize)
	write(t, f, "more", far)
	seen := crashes(m, "x")
	old, whole, torn := seen["synced"], false, false
	for state := range seen {
		if !bytes.HasPrefix([]byte(state), []byte("synced")) {
			t.Fatalf("a synced sector was lost: %q", state)
		}
		end := int64(len(state)) == far+4
		whole = whole || end && state[far:] == "more"
		torn = torn || end && state[far:] != "more"
	}
	if !old || !whole || !torn {
		t.Errorf("crashes leave the old file: %v, the new one: %v, a torn one: %v; want all three", old, whole, torn)
	}
}

func TestCrashKeepsNamesApart(t *testing.T) {
	m := New()
	must(t, create(t, m, "old", "old").Sync())
	must(t, create(t, m, "new", "new").Sync())
	must(t, m.SyncDir())
	must(t, m.Rename("new", "old"))
	if seen := crashes(m, "old"); !seen["old"] || !seen["new"] || len(seen) != 2 {
		t.Errorf("a rename that is not durable leaves %v", seen)
	}
	must(t, m.SyncDir())
	must(t, m.Remove("old"))
	if seen := crashes(m, "old"); !seen["new"] || !seen["missing"] || len(seen) != 2 {
		t.Errorf("a removal that is not durable leaves %v", seen)
	}
}

// TestFailedSyncDropsPages: a later sync that succeeds must not make good what
// an earlier one has dropped, or no test could tell who relies on that.
func TestFailedSyncDropsPages(t *testing.T) {
	m := New()
	f := create(t, m, "x", "data")
	must(t, m.SyncDir())
	m.Fail(Fault{Op: Sync, N: 1, Err: errTest})
	if err := f.Sync(); !errors.Is(err, errTest) {
		t.Fatalf("Sync: %v", err)
	}
	must(t, f.Sync())
	if seen := crashes(m, "x"); len(seen) < 2 {
		t.Errorf("after a failed and a good sync a crash leaves only %v", seen)
	}
	write(t, f, "data", 0)
	must(t, f.Sync())
	if seen := crashes(m, "x"); len(seen) != 1 || !seen["data"] {
		t.Errorf("after it was written again and synced a crash leaves %v", seen)
	}
}

func TestKillKeepsBytesAndEndsHandles(t *testing.T) {
	m := New()
	if _, err := m.Lock(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Lock(); err == nil {
		t.Error("the lock has two owners")
	}
	f := create(t, m, "x", "not synced")
	m.Kill()
	if _, err := f.WriteAt([]byte("late"), 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a dead process writes: %v", err)
	}
	if got := m.ReadFile("x"); string(got) != "not synced" {
		t.Errorf("after a kill the file holds %q", got)
	}
	if _, err := m.Lock(); err != nil {
		t.Errorf("the lock of a dead process holds: %v", err)
	}
}

func TestFaults(t *testing.T) {
	m := New()
	m.Fail(Fault{Op: Write, N: 2, Err: errTest, Short: 3})
	f := create(t, m, "x", "first")
	if n, err := f.WriteAt([]byte("second"), 5); n != 3 || !errors.Is(err, errTest) {
		t.Errorf("the second write: %d bytes, %v", n, err)
	}
	write(t, f, "!", 8)
	if got := m.ReadFile("x"); string(got) != "firstsec!" {
		t.Errorf("the file holds %q", got)
	}
	if n := m.Count(Write); n != 3 {
		t.Errorf("%d writes are counted, want 3", n)
	}
	m.Fail(Fault{Op: Any, N: 2, Err: errTest, Sticky: true})
	if _, err := m.List(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if _, err := m.List(); !errors.Is(err, errTest) {
			t.Errorf("a fault that stays: %v", err)
		}
	}
	m.Heal()
	if _, err := m.List(); err != nil {
		t.Error(err)
	}
}

func TestCapacity(t *testing.T) {
	m := New()
	m.SetCapacity(8)
	f := create(t, m, "x", "12345")
	if n, err := f.WriteAt([]byte("6789"), 5); n != 3 || !errors.Is(err, vfs.ErrNoSpace) {
		t.Errorf("a write over the end of the disk: %d bytes, %v", n, err)
	}
	write(t, f, "over", 0) // what is there needs no room
	if free, err := m.Free(); free != 0 || err != nil {
		t.Errorf("%d bytes are free, %v", free, err)
	}
}

// TestUsedCountsFilesWithNames: whatever is done, Used is the sum of what the
// names lead to.
func TestUsedCountsFilesWithNames(t *testing.T) {
	m := New()
	want := func(n int64) {
		t.Helper()
		if got := m.Used(); got != n {
			t.Errorf("%d bytes are used, want %d", got, n)
		}
	}
	f := create(t, m, "x", "12345")
	g := create(t, m, "y", "123")
	want(8)
	must(t, m.Rename("x", "y"))
	want(5)
	write(t, f, "678", 5)
	want(8)
	write(t, g, "no name leads here", 0)
	want(8)
	must(t, f.Truncate(2))
	want(2)
	m.WriteFile("z", []byte("1234"))
	m.WriteFile("y", []byte("1"))
	want(5)
	must(t, m.Remove("z"))
	want(1)
}

func TestDurable(t *testing.T) {
	m := New()
	f := create(t, m, "x", "data")
	is := func(want bool, synced string) {
		t.Helper()
		if got := m.Durable("x"); got != want {
			t.Errorf("durable: %v, want %v", got, want)
		}
		if got := m.Synced("x"); string(got) != synced {
			t.Errorf("last made durable is %q, want %q", got, synced)
		}
	}
	is(false, "")
	must(t, f.Sync())
	is(false, "")
	must(t, m.SyncDir())
	is(true, "data")
	write(t, f, "more", 4)
	is(false, "data")
	m.Fail(Fault{Op: Sync, N: 1, Err: errTest})
	if err := f.Sync(); !errors.Is(err, errTest) {
		t.Fatal(err)
	}
	is(false, "data")
	write(t, f, "more", 4)
	must(t, f.Sync())
	is(true, "datamore")
	must(t, m.Rename("x", "y"))
	is(false, "datamore")
	must(t, m.SyncDir())
	is(false, "")
}

// TestFoldersAreApart: what is written in one folder is not seen in the copies
// that were made of it, nor the other way around.
func TestFoldersAreApart(t *testing.T) {
	m := New()
	f := create(t, m, "x", "first")
	must(t, f.Sync())
	must(t, m.SyncDir())
	copies := []*FS{m.Killed(), m.Crash(rand.New(rand.NewPCG(1, 1)))}
	write(t, f, "F", 0)
	must(t, f.Sync())
	for _, c := range copies {
		h, err := c.OpenWrite("x")
		must(t, err)
		write(t, h, "T", 4)
		if got := c.ReadFile("x"); string(got) != "firsT" {
			t.Errorf("the copy holds %q", got)
		}
	}
	if got, synced := m.ReadFile("x"), m.Synced("x"); string(got) != "First" || string(synced) != "First" {
		t.Errorf("the folder holds %q, and %q when the power is cut", got, synced)
	}
}

// TestCutIsNotDurableBeforeTheSync: what was cut off may be there again after a
// crash, and what is written in its place is one or the other.
func TestCutIsNotDurableBeforeTheSync(t *testing.T) {
	m := New()
	f := create(t, m, "x", "before")
	must(t, f.Sync())
	must(t, m.SyncDir())
	must(t, f.Truncate(2))
	if seen := crashes(m, "x"); !seen["before"] || !seen["be"] {
		t.Errorf("after a cut a crash leaves %v", seen)
	}
	write(t, f, "yond", 2)
	if got := m.Synced("x"); string(got) != "before" {
		t.Errorf("last made durable is %q", got)
	}
	if seen := crashes(m, "x"); !seen["before"] || !seen["beyond"] {
		t.Errorf("after it was written again a crash leaves %v", seen)
	}
	must(t, f.Sync())
	if seen := crashes(m, "x"); len(seen) != 1 || !seen["beyond"] {
		t.Errorf("after a sync a crash leaves %v", seen)
	}
}
