package tail

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// setLimit sets a limit of this process's own user namespace.
func setLimit(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/user/"+name, []byte(value), 0o644); err != nil {
		t.Fatalf("set limit: %v", err)
	}
}

// TestF27InotifyLimits: the kernel gives three watches, or no instance. Files are
// looked at at intervals then, the status says so, and nothing is lost.
func TestF27InotifyLimits(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, limit := range []struct{ name, value string }{
		{"max_inotify_watches", "3"},
		{"max_inotify_instances", "0"},
	} {
		t.Run(limit.name, func(t *testing.T) {
			setLimit(t, limit.name, limit.value)
			r := newRig(t, t.TempDir(), "*.log")
			var want []string
			write := func(what string) {
				for i := range 10 {
					line := fmt.Sprintf("%s %d", what, i)
					want = append(want, line)
					r.add(fmt.Sprintf("%d.log", i), line+"\n")
				}
			}
			write("first")
			r.start()
			r.until(func() bool { return strings.Contains(r.out.Troubles()["inotify"], "fs.inotify.max_user_watches") })
			r.await(len(want))
			write("second")
			for i := range 3 {
				r.rename(fmt.Sprintf("%d.log", i), fmt.Sprintf("%d.1.log", i))
			}
			write("third")
			r.await(len(want))
			r.stop()
			r.wantSorted(want...)
			r.wantNoLoss()
			setLimit(t, limit.name, "1000")
		})
	}
}

// TestF28RealLimitOfFileHandles: this process may have 64 open, for 200 files.
func TestF28RealLimitOfFileHandles(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	bubble(t, func(r *rig) {
		r.check(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}))
		r.start()
		var want []string
		for round := range 3 {
			for i := range 200 {
				line := fmt.Sprintf("file %d round %d", i, round)
				want = append(want, line)
				r.add(fmt.Sprintf("%d.log", i), line+"\n")
			}
			time.Sleep(20 * time.Minute)
		}
		r.wantAny(want...)
		r.wantNoLoss()
	}, "*.log")
}

// TestF28NoHandleAtAll: none is left for a while, not even to list a
// folder.
func TestF28NoHandleAtAll(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	bubble(t, func(r *rig) {
		r.start()
		r.add("app.log", "one\n")
		r.want("one")
		r.add("app.log", "two\n")
		r.add("new.log", "three\n")
		r.check(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}))
		var taken []*os.File
		for {
			f, err := os.Open(os.DevNull)
			if err != nil {
				break
			}
			taken = append(taken, f)
		}
		time.Sleep(10 * time.Minute)
		for _, f := range taken {
			r.check(f.Close())
		}
		r.wantAny("one", "two", "three")
		r.wantNoLoss()
		if got := r.out.Troubles(); len(got) > 0 {
			t.Errorf("troubles %v, want none", got)
		}
	}, "*.log")
}

// TestF11CopyUp: a file of an overlay's lower layer is copied to the upper one
// when it is written to; it gets another inode and time of birth on the way.
func TestF11CopyUp(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := t.TempDir()
	var options []string
	for _, layer := range []string{"lowerdir", "upperdir", "workdir", "merged"} {
		path := filepath.Join(dir, layer)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		options = append(options, layer+"="+path)
	}
	merged := filepath.Join(dir, "merged")
	lines := number("line", 5)
	writeFile(t, filepath.Join(dir, "lowerdir", "app.log"), text(lines))
	if err := unix.Mount("overlay", merged, "overlay", 0, strings.Join(options[:3], ",")); err != nil {
		t.Fatalf("mount: %v", err)
	}
	defer func() { _ = unix.Unmount(merged, unix.MNT_DETACH) }() // goes with the namespace at the latest
	r := newRig(t, merged, "app.log")
	r.start()
	r.await(len(lines))
	before, err := lstatPath(r.path("app.log"))
	r.check(err)
	r.add("app.log", "after\n")
	after, err := lstatPath(r.path("app.log"))
	r.check(err)
	if after.id == before.id {
		t.Fatalf("the file is %v as before: there was no copy", after.id)
	}
	r.until(func() bool { return slices.Contains(r.lines(), "after") })
	r.stop()
	if got := r.lines(); !slices.Equal(got, append(lines, "after")) {
		t.Errorf("lines %q, want each once", got)
	}
	r.wantNoLoss()
}
