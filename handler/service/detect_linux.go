package service

import (
	"os"

	"github.com/openloganalytics/agent/internal/paths"
)

// Detect returns the manager for this machine: systemd where it runs and is
// ours to command, else the supervisor.
func Detect(layout paths.Layout) Manager {
	if layout.Root() == "" && os.Geteuid() == 0 {
		if info, err := os.Stat("/run/systemd/system"); err == nil && info.IsDir() {
			return newSystemd()
		}
	}
	return newSupervisor(layout)
}
