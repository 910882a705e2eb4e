package perf

import (
	"errors"
	"fmt"
)

// newHostStats says that this system cannot be sampled.
func newHostStats(string) (HostStats, error) {
	return nil, fmt.Errorf("%w: Windows comes later; leave performanceCounters out of the settings", errors.ErrUnsupported)
}
