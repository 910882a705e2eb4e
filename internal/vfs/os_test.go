package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFolder holds the machine's file system to the contract of FS.
func TestFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "spool")
	dir, err := OS(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := dir.Create("b")
	check(err)
	if _, err := dir.Create("b"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating a file that exists: %v, want fs.ErrExist", err)
	}
	if _, err := f.WriteAt([]byte("hello, world"), 0); err != nil {
		t.Error(err)
	}
	check(f.Truncate(5))
	check(f.Sync())
	check(f.Close())
	f, err = dir.OpenWrite("b")
	check(err)
	if _, err := f.WriteAt([]byte("J"), 0); err != nil {
		t.Error(err)
	}
	check(f.Sync())
	check(f.Close())
	other, err := dir.Create("a")
	check(err)
	check(other.Close())
	check(os.Mkdir(filepath.Join(path, "folder"), 0o700))

	if names, err := dir.List(); err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("the folder lists %q, %v", names, err)
	}
	check(dir.Rename("b", "a"))
	check(dir.SyncDir())
	r, err := dir.Open("a")
	check(err)
	if size, err := r.Size(); size != 5 || err != nil {
		t.Errorf("the file has %d bytes, %v", size, err)
	}
	got := make([]byte, 9)
	if n, err := r.ReadAt(got, 1); !errors.Is(err, io.EOF) || !bytes.Equal(got[:n], []byte("ello")) {
		t.Errorf("read %q, %v", got[:n], err)
	}
	check(r.Close())
	check(dir.Remove("a"))
	for name, err := range map[string]error{
		"open":       second(dir.Open("a")),
		"open write": second(dir.OpenWrite("a")),
		"remove":     dir.Remove("a"),
		"rename":     dir.Rename("a", "c"),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of a missing file: %v, want fs.ErrNotExist", name, err)
		}
	}
	if n, err := dir.Free(); n == 0 || err != nil {
		t.Errorf("%d bytes are free, %v", n, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestLockHasOneOwner(t *testing.T) {
	path := t.TempDir()
	dir, err := OS(path)
	if err != nil {
		t.Fatal(err)
	}
	first, err := dir.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Lock(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a second owner got %v, want an error that names %s", err, path)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := dir.Lock()
	if err != nil {
		t.Fatalf("the lock is not given back: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestErrorsHaveOneName(t *testing.T) {
	for want, list := range map[error][]error{ErrNoSpace: noSpace, ErrReadOnly: readOnly} {
		for _, err := range list {
			if got := classify(&os.PathError{Op: "write", Path: "x", Err: err}); !errors.Is(got, want) || !errors.Is(got, err) {
				t.Errorf("%v is classified as %v", err, got)
			}
		}
	}
	if err := classify(fs.ErrExist); errors.Is(err, ErrNoSpace) || errors.Is(err, ErrReadOnly) || classify(nil) != nil {
		t.Errorf("other errors are classified: %v", err)
	}
}
