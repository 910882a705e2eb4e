package main

import (
	"os"
	"path/filepath"
	"strings"
)

// processesBelow returns the command lines of processes whose program lies, or
// lay, below root.
func processesBelow(root string) ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		// Most entries are no processes of ours, and any may have ended.
		program, err := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		if err == nil && strings.HasPrefix(program, root+"/") {
			found = append(found, "process "+e.Name()+" "+program)
		}
	}
	return found, nil
}
