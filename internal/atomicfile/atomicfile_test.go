package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteReplacesWholeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status")
	for _, text := range []string{"the first, longer content", "second", ""} {
		if err := Write(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != text {
			t.Errorf("content = %q, want %q", got, text)
		}
	}
	wantOnly(t, filepath.Dir(path), "status")
}

// A reader that opened the old file keeps the old content: the file was
// replaced, not rewritten.
func TestWriteKeepsOldFileForItsReaders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status")
	if err := Write(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	old, err := openNoFollow(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := Write(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readRegular(old, 10)
	if err != nil || string(got) != "old" {
		t.Errorf("reader of the old file got %q, %v; want old", got, err)
	}
}

func TestWriteFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	// A folder that is not empty cannot be replaced by a file.
	if err := os.MkdirAll(filepath.Join(path, "inside"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := Write(path, []byte("data"), 0o600)
	if err == nil {
		t.Fatal("Write over a folder succeeded")
	}
	if !strings.HasPrefix(err.Error(), "write "+path+": ") {
		t.Errorf("error = %q, want it to name %s", err, path)
	}
	wantOnly(t, dir, "taken")
}

func TestWriteNeedsTheFolder(t *testing.T) {
	err := Write(filepath.Join(t.TempDir(), "missing", "file"), nil, 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error = %v, want %v", err, fs.ErrNotExist)
	}
}

func TestReadLimited(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		path  string
		limit int64
		want  string
		cause error
	}{
		{name: "smaller than the limit", path: file, limit: 6, want: "12345"},
		{name: "exactly the limit", path: file, limit: 5, want: "12345"},
		{name: "one byte too many", path: file, limit: 4, cause: ErrTooLarge},
		{name: "missing", path: filepath.Join(dir, "none"), limit: 4, cause: fs.ErrNotExist},
		{name: "folder", path: dir, limit: 4, cause: ErrNotRegular},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadLimited(tt.path, tt.limit)
			if !errors.Is(err, tt.cause) {
				t.Fatalf("error = %v, want %v", err, tt.cause)
			}
			if string(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// wantOnly fails when dir holds anything but the named entries.
func wantOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("folder holds %q, want %q", got, names)
	}
}
