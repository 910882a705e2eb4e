package tail

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// expect waits until the watcher noticed path.
func expect(t *testing.T, h *hints, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			t.Fatalf("no hint of %s", path)
		case <-h.ready:
		}
		if paths, _ := h.take(); len(paths) > 0 {
			if _, ok := paths[path]; ok {
				return
			}
		}
	}
}

func TestWatcherHints(t *testing.T) {
	dir := t.TempDir()
	h := newHints()
	w, err := newWatcher(h)
	if err != nil {
		t.Fatalf("inotify is needed for this test: %v", err)
	}
	defer w.close()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	folder := func(dir string, want bool) {
		t.Helper()
		if started, err := w.folder(dir); err != nil || started != want {
			t.Errorf("folder(%s) = %v, %v, want %v", dir, started, err, want)
		}
	}
	folder(dir, true)
	folder(dir, false)
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	writeFile(t, a, "x")
	expect(t, h, a)
	for range 3 { // a watch of a file tells one change and is then set again
		check(w.once(a))
		writeFile(t, a, "y")
		expect(t, h, a)
	}
	check(os.Rename(a, b))
	expect(t, h, b)
	check(os.Remove(b))
	expect(t, h, b)
	folder(filepath.Join(dir, "missing"), false)
	check(w.once(filepath.Join(dir, "missing")))
	check(os.Rename(dir, dir+".old"))
	expect(t, h, dir)
	check(os.Mkdir(dir, 0o755))
	folder(dir, true)
	writeFile(t, a, "z")
	expect(t, h, a)
	check(os.Remove(a))
	expect(t, h, a)
	check(os.Remove(dir))
	expect(t, h, dir)
	if len(w.folders) > 0 || len(w.names) > 0 {
		t.Errorf("watches of what is gone are kept: %v %v", w.folders, w.names)
	}
}

// TestFollowByEvents runs in real time, so it follows what happens as soon as
// the kernel tells of it.
func TestFollowByEvents(t *testing.T) {
	r := newRig(t, t.TempDir(), "app.log")
	r.start()
	var want []string
	step := func(change func(lines string)) {
		t.Helper()
		lines := number(fmt.Sprint("step ", len(want)), 3)
		want = append(want, lines...)
		change(text(lines))
		ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
		defer cancel()
		r.check(r.out.WaitRows(ctx, len(want)))
	}
	step(func(lines string) { r.add("app.log", lines) })
	for range 2 {
		step(func(lines string) { r.add("app.log", lines) })
		step(func(lines string) { r.rename("app.log", "app.log.1"); r.add("app.log.1", lines) })
		step(func(lines string) { r.add("app.log", lines) })
		step(func(lines string) { r.copyTruncate("app.log", "app.log.2"); r.add("app.log", lines) })
		step(func(lines string) { r.add("new", lines); r.rename("new", "app.log") })
		step(func(lines string) { r.remove("app.log"); r.add("app.log", lines) })
	}
	if got := r.lines(); !slices.Equal(got, want) {
		t.Errorf("lines %q, want %q", got, want)
	}
	r.stop()
	r.wantNoLoss()
}
