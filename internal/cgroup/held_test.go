package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

func TestHeld(t *testing.T) {
	v1 := func(h *hierarchy, names ...string) { h.controllers = append([]string{"rw"}, names...) }
	unified := func(h *hierarchy) {}
	memory := func(h *hierarchy) { v1(h, "memory") }
	cpu := func(h *hierarchy) { v1(h, "cpu", "cpuacct") }
	tests := []struct {
		name   string
		kind   func(*hierarchy)
		root   string
		groups string
		files  map[string]string
		want   Held
	}{
		{"a slice and a service in it", unified, "/", "0::/a.slice/b.service\n", map[string]string{
			"a.slice/memory.max": "268435456\n", "a.slice/cpu.max": "20000 100000\n", "a.slice/b.service/memory.max": "max\n", "a.slice/b.service/cpu.max": "max 100000\n",
		}, Held{256 << 20, 20}},
		{"the lowest counts", unified, "/", "0::/a/b\n", map[string]string{
			"a/memory.max": "1000000", "a/cpu.max": "50000 100000", "a/b/memory.max": "2000000", "a/b/cpu.max": "40000 50000",
		}, Held{1000000, 50}},
		{"no ceilings", unified, "/", "0::/a\n", map[string]string{"a/memory.max": "max", "a/cpu.max": "max 100000"}, Held{}},
		{"a container with names of its own", unified, "/", "0::/\n", map[string]string{"memory.max": "67108864", "cpu.max": "150000 100000"}, Held{64 << 20, 150}},
		{"a container without", unified, "/docker/1", "0::/docker/1\n", map[string]string{"memory.max": "67108864"}, Held{Memory: 64 << 20}},
		{"below that of the container", unified, "/docker/1", "0::/docker/1/a\n", map[string]string{"memory.max": "67108864", "a/memory.max": "33554432"}, Held{Memory: 32 << 20}},
		{"outside of what is mounted", unified, "/docker/1", "0::/docker/12\n", map[string]string{"memory.max": "67108864", "2/memory.max": "5"}, Held{Memory: 64 << 20}},
		{"version 1, memory", memory, "/", "4:memory:/a\n3:cpu,cpuacct:/c\n", map[string]string{
			"memory.limit_in_bytes": "9223372036854771712", "a/memory.limit_in_bytes": "67108864", "c/memory.limit_in_bytes": "5",
		}, Held{Memory: 64 << 20}},
		{"version 1 without a ceiling", memory, "/", "4:memory:/a\n", map[string]string{"a/memory.limit_in_bytes": "9223372036854771712"}, Held{}},
		{"version 1, processor", cpu, "/", "4:memory:/a\n3:cpu,cpuacct:/c\n", map[string]string{
			"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000", "c/cpu.cfs_quota_us": "25000", "c/cpu.cfs_period_us": "50000", "c/memory.limit_in_bytes": "5",
		}, Held{CPU: 50}},
		{"nonsense", unified, "/", "0::/a\n\nwhat\n", map[string]string{"a/memory.max": "much", "a/cpu.max": "1 0", "cpu.max": ""}, Held{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := hierarchy{path: t.TempDir(), root: tt.root}
			tt.kind(&h)
			for name, text := range tt.files {
				file := filepath.Join(h.path, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := held([]hierarchy{h}, tt.groups); got != tt.want {
				t.Errorf("held by %+v, want %+v", got, tt.want)
			}
		})
	}
}

// FuzzHeld: what the kernel writes, or what looks like it, is never a panic and
// never a ceiling below zero.
func FuzzHeld(f *testing.F) {
	f.Add("24 1 0:22 / /sys rw - cgroup2 cgroup2 rw\n", "0::/a/b\n")
	f.Add("24 1 0:22 /x /sys rw - cgroup cgroup rw,memory\n", "4:memory:/../..\n")
	f.Fuzz(func(t *testing.T, mountinfo, groups string) {
		if got := held(hierarchies(mountinfo), groups); got.Memory < 0 || got.CPU < 0 {
			t.Errorf("held by %+v", got)
		}
	})
}
