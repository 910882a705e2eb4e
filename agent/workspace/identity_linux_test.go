package workspace

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestFilesAreTheOwnersAlone looks at what an onboarding leaves.
func TestFilesAreTheOwnersAlone(t *testing.T) {
	bubble(t, func(s *service) {
		t := s.t
		if err := os.Remove(s.dir); err != nil {
			t.Fatal(err)
		}
		c := s.client()
		s.run(c)()
		s.writeKey(testKey)
		s.run(c)()
		err := filepath.WalkDir(s.dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			want := fs.FileMode(0o600)
			if entry.IsDir() {
				want = 0o700
			}
			if info.Mode().Perm() != want {
				t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if _, err := loadIdentity(s.dir, testWorkspace); err != nil {
			t.Error(err)
		}
	})
}
