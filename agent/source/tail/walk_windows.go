package tail

import (
	"path/filepath"
	"strings"
)

// mountOf returns the share that path lies on, path itself where it is on a
// volume of the machine.
func mountOf(path string) string {
	if volume := filepath.VolumeName(path); strings.HasPrefix(volume, `\\`) {
		return volume
	}
	return path
}
