package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
)

// TestW18WeakFileSystemIsTold: an agent whose spool lies in memory says so, and
// runs.
func TestW18WeakFileSystemIsTold(t *testing.T) {
	t.Setenv("TMPDIR", "/dev/shm")
	inMemory := t.TempDir()
	file := filepath.Join(inMemory, "agent.log")
	log, closer, err := logfile.Open(logfile.Options{Path: file})
	if err != nil {
		t.Fatal(err)
	}
	queue, err := openSpool(Options{Layout: paths.New(inMemory), Config: &Config{}, Log: log}, filepath.Join(inMemory, "spool"), 32<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := queue.Close(); err != nil {
		t.Fatal(err)
	}
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil || strings.Count(string(text), "tmpfs") != 1 {
		t.Errorf("the log does not say once that the spool is in memory: %v\n%s", err, text)
	}
}
