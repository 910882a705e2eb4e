package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Clean takes what a killed write left, and nothing else.
func TestClean(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-2 * time.Hour)
	for name, at := range map[string]time.Time{
		".ours.json.123.tmp": old, ".ours.json.5.tmp": time.Now(), ".other.1.tmp": old,
		"ours.json": old, ".ours.tmp": old, ".ours.json.x.tmp": old, "ours.json.1.tmp": old,
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("ours.json", filepath.Join(dir, ".ours.link.7.tmp")), Clean(dir, "ours", time.Hour)); err != nil {
		t.Fatal(err)
	}
	kept := []string{".other.1.tmp", ".ours.json.x.tmp", ".ours.link.7.tmp", ".ours.tmp", "ours.json", "ours.json.1.tmp"}
	wantOnly(t, dir, slices.Insert(slices.Clone(kept), 1, ".ours.json.5.tmp")...)
	if err := Clean(dir, "ours", 0); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, dir, kept...)
	if err := Clean(filepath.Join(dir, "no such"), "", 0); err != nil {
		t.Error(err)
	}
}
