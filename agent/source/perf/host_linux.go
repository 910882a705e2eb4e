package perf

import (
	"context"
	"fmt"
	"os"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/host"
	"golang.org/x/sys/unix"
)

// hostStats asks the machine below root.
type hostStats struct{ root string }

// newHostStats fails where the kernel's files are not to be had.
func newHostStats(root string) (HostStats, error) {
	if _, err := os.Stat(root + "/proc/stat"); err != nil {
		return nil, fmt.Errorf("find the kernel's files: %w; mount /proc", err)
	}
	return hostStats{root}, nil
}

func (h hostStats) Users(ctx context.Context) ([]string, error) {
	ctx = context.WithValue(ctx, common.EnvKey, common.EnvMap{common.HostVarEnvKey: h.root + "/var"})
	sessions, err := host.UsersWithContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	names := make([]string, len(sessions))
	for i, session := range sessions {
		names[i] = session.User
	}
	return names, nil
}

func (h hostStats) Usage(path string) (Usage, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(h.root+path, &s); err != nil {
		return Usage{}, fmt.Errorf("statfs: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(h.root+path, &st); err != nil {
		return Usage{}, fmt.Errorf("stat: %w", err)
	}
	size := s.Frsize
	if size <= 0 {
		size = s.Bsize
	}
	return Usage{
		Major: unix.Major(st.Dev), Minor: unix.Minor(st.Dev),
		BlockSize: uint64(max(size, 0)), Blocks: s.Blocks, Free: s.Bfree, Available: s.Bavail,
		Inodes: s.Files, FreeInodes: s.Ffree,
	}, nil
}
