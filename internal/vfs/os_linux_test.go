package vfs

import "testing"

// TestW18WeakFileSystems: a file system that has no sync of its own is known for
// one, and the others are not.
func TestW18WeakFileSystems(t *testing.T) {
	t.Setenv("TMPDIR", "/dev/shm")
	inMemory := t.TempDir()
	for path, want := range map[string]string{inMemory: "tmpfs", "/proc": "", inMemory + "/not there": ""} {
		if got := WeakSync(path); got != want {
			t.Errorf("%s is on %q, want %q", path, got, want)
		}
	}
}
