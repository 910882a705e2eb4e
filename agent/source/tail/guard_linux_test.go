package tail

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestF13NamedPipe would hang if the pipe were opened in the ordinary way.
func TestF13NamedPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := newGuard(nil).open(path); !errors.Is(err, errRefused) {
		t.Errorf("open a named pipe: %v, want it refused", err)
	}
	f, err := openPlain(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	st, err := statFile(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := newGuard(nil).admit(st); !errors.Is(err, errRefused) {
		t.Errorf("admit a named pipe: %v, want it refused", err)
	}
}
