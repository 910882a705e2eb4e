//go:build linux

package e2e

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"
)

// diskOf is what everything below the folders takes on the disk, in bytes. A
// file with several names counts once.
func (m *machine) diskOf(dirs ...string) (bytes int64) {
	m.Helper()
	seen := map[uint64]bool{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil // written anew meanwhile
			}
			if err != nil {
				return err
			}
			if s := info.Sys().(*syscall.Stat_t); !seen[s.Ino] {
				seen[s.Ino] = true
				bytes += s.Blocks * 512
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.Fatal(err)
		}
	}
	return bytes
}

// An agent with nothing to do takes no more than 30 MB of the disk, its program
// included, of which no more than 1 MB are state and logs: also after updates,
// downgrades and restarts. With days the spool grows to one segment, see
// TestDeliveredSpoolTakesOneSegment. The guest agent keeps the package unpacked besides, with a program
// for each kind of processor.
func TestIdleAgentTakesLittleDisk(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.enable(oldVersion, m.settings(nil))
	m.appendLines(1, 1000)
	m.wantLines(1000)
	for range 2 {
		for _, version := range []string{newVersion, oldVersion} {
			m.enable(version, m.settings(nil))
			if _, err := m.guest.Restart(); err != nil {
				t.Fatal(err)
			}
		}
	}
	kept := m.diskOf(m.layout.StateDir(), m.layout.LogDir(), m.layout.RunDir(), filepath.Dir(m.guest.HandlerLog()))
	program := m.diskOf(m.layout.VersionsDir())
	t.Logf("idle: %d KiB of state and logs, %d KiB of program; %d KiB of package as the guest agent unpacked it",
		kept>>10, program>>10, m.diskOf(m.guest.HandlerDir(oldVersion))>>10)
	if kept > 1e6 {
		t.Errorf("state and logs take %d bytes, want at most 1 MB", kept)
	}
	if kept+program > 30e6 {
		t.Errorf("state, logs and program take %d bytes, want at most 30 MB", kept+program)
	}
}
