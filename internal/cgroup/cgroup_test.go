package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHierarchies(t *testing.T) {
	const mountinfo = `24 1 0:22 / /sys rw,nosuid - sysfs sysfs rw
35 24 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct
36 24 0:31 /docker/1 /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
37 24 0:32 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
short line
`
	want := []hierarchy{
		{"/sys/fs/cgroup/cpu,cpuacct", "/", []string{"rw", "cpu", "cpuacct"}},
		{"/sys/fs/cgroup/systemd", "/docker/1", []string{"rw", "xattr", "name=systemd"}},
		{"/sys/fs/cgroup/unified", "/", nil},
	}
	if diff := cmp.Diff(want, hierarchies(mountinfo), cmp.AllowUnexported(hierarchy{})); diff != "" {
		t.Errorf("hierarchies (-want +got):\n%s", diff)
	}
}

// A folder takes the place of each hierarchy: what matters is which files are
// written, and with what.
func TestJoin(t *testing.T) {
	for name, tt := range map[string]struct {
		controllers []string
		limits      Limits
		want        map[string]string
	}{
		"unified": {nil, Limits{CPUPercent: 20, MemoryMB: 64}, map[string]string{
			"a/cpu.max": "20000 100000", "a/memory.high": "62914560", "a/memory.max": "67108864", "a/pids.max": "128", "a/cgroup.procs": "42", "cgroup.subtree_control": "+pids",
		}},
		"unified beside version 1": {nil, Limits{CPUPercent: 20, MemoryMB: 64}, map[string]string{"cgroup.controllers": "pids rdma", "a/pids.max": "128", "a/cgroup.procs": "42", "cgroup.subtree_control": "+pids"}},
		"unified without ceilings": {nil, Limits{}, map[string]string{
			"a/pids.max": "128", "a/cgroup.procs": "42", "cgroup.subtree_control": "+pids",
		}},
		"cpu":     {[]string{"rw", "cpu", "cpuacct"}, Limits{CPUPercent: 20, MemoryMB: 64}, map[string]string{"a/cpu.cfs_quota_us": "20000", "a/cgroup.procs": "42"}},
		"memory":  {[]string{"rw", "memory"}, Limits{CPUPercent: 20, MemoryMB: 64}, map[string]string{"a/memory.limit_in_bytes": "67108864", "a/cgroup.procs": "42"}},
		"systemd": {[]string{"rw", "name=systemd"}, Limits{CPUPercent: 20}, map[string]string{"a/cgroup.procs": "42"}},
		"cpuset":  {[]string{"rw", "cpuset"}, Limits{}, map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			h := hierarchy{t.TempDir(), "/", tt.controllers}
			if there, ok := tt.want["cgroup.controllers"]; ok {
				if err := os.WriteFile(filepath.Join(h.path, "cgroup.controllers"), []byte(there), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if err := h.join("a", tt.limits, 42); err != nil {
					t.Fatal(err)
				}
			}
			got := map[string]string{}
			for _, pattern := range []string{"*", "*/*"} {
				paths, err := filepath.Glob(filepath.Join(h.path, pattern))
				if err != nil {
					t.Fatal(err)
				}
				for _, path := range paths {
					if data, err := os.ReadFile(path); err == nil {
						got[path[len(h.path)+1:]] = string(data)
					}
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
	if err := (hierarchy{path: filepath.Join(t.TempDir(), "none")}).join("a", Limits{}, 42); err == nil {
		t.Error("a hierarchy that is not there is no error")
	}
}
