// Package cgroup knows the control groups of Linux, of version 1 and 2: it makes
// one of our own with ceilings, and tells which ceilings hold this process. On
// other systems there are none.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Limits are the ceilings of a group; 0 is none.
type Limits struct {
	CPUPercent int // of one core
	MemoryMB   int
}

// High is where the kernel begins to take memory back, in MB: below the ceiling,
// at which it ends a process.
func High(mb int) int { return mb * 95 / 100 }

// A hierarchy is a mounted tree of control groups.
type hierarchy struct {
	path        string
	root        string   // the group that is mounted there
	controllers []string // of version 1; nil is the unified hierarchy
}

// hierarchies finds the trees in the text of /proc/self/mountinfo (proc(5)).
func hierarchies(mountinfo string) []hierarchy {
	var found []hierarchy
	for line := range strings.Lines(mountinfo) {
		// 35 24 0:30 / /sys/fs/cgroup/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu
		mount, kind, _ := strings.Cut(line, " - ")
		fields, super := strings.Fields(mount), strings.Fields(kind)
		if len(fields) < 5 || len(super) < 3 {
			continue
		}
		switch super[0] {
		case "cgroup2":
			found = append(found, hierarchy{path: fields[4], root: fields[3]})
		case "cgroup":
			found = append(found, hierarchy{fields[4], fields[3], strings.Split(super[2], ",")})
		}
	}
	return found
}

// mounted finds the hierarchies of this machine.
func mounted() ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	return hierarchies(string(mounts)), nil
}

// Join moves a process into control groups of the given name, made with the
// ceilings where the system lets them be set. What cannot be had is in the
// error; the rest is done.
func Join(name string, l Limits, pid int) error {
	found, err := mounted()
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range found {
		errs = append(errs, h.join(name, l, pid))
	}
	return errors.Join(errs...)
}

// Remove removes the groups that Join made. The system refuses while a process
// is in one, and where there is none.
func Remove(name string) {
	found, err := mounted()
	if err != nil {
		return
	}
	for _, h := range found {
		_ = os.Remove(filepath.Join(h.path, name))
	}
}

// join makes the group in one hierarchy and moves the process there.
func (h hierarchy) join(name string, l Limits, pid int) error {
	if slices.Contains(h.controllers, "cpuset") {
		return nil // a new group there has no processor and takes no process
	}
	group := filepath.Join(h.path, name)
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make control group: %w", err)
	}
	errs := []error{h.limit(group, l)}
	if err := set(group, "cgroup.procs", strconv.Itoa(pid)); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

const (
	period   = 100_000 // µs in which the processor time is counted
	maxTasks = 128
)

// limit writes the ceilings that the hierarchy knows.
func (h hierarchy) limit(group string, l Limits) error {
	cpu := strconv.Itoa(l.CPUPercent * period / 100)
	memory := strconv.Itoa(l.MemoryMB << 20)
	tasks := strconv.Itoa(maxTasks)
	var errs []error
	put := func(controller string, want bool, file, value string) {
		if !want {
			return
		}
		if !h.has(controller) {
			return
		}
		if h.controllers == nil {
			errs = append(errs, set(h.path, "cgroup.subtree_control", "+"+controller))
		}
		errs = append(errs, set(group, file, value))
	}
	if h.controllers == nil {
		put("cpu", l.CPUPercent > 0, "cpu.max", cpu+" "+strconv.Itoa(period))
		put("memory", l.MemoryMB > 0, "memory.high", strconv.Itoa(High(l.MemoryMB)<<20))
		put("memory", l.MemoryMB > 0, "memory.max", memory)
	} else {
		put("cpu", l.CPUPercent > 0, "cpu.cfs_quota_us", cpu)
		put("memory", l.MemoryMB > 0, "memory.limit_in_bytes", memory)
	}
	put("pids", true, "pids.max", tasks)
	return errors.Join(errs...)
}

// has reports whether a controller is at work in the hierarchy. The unified one
// has none of those that version 1 has.
func (h hierarchy) has(controller string) bool {
	if h.controllers != nil {
		return slices.Contains(h.controllers, controller)
	}
	there, err := os.ReadFile(filepath.Join(h.path, "cgroup.controllers"))
	return err != nil || slices.Contains(strings.Fields(string(there)), controller)
}

// set writes one file of a control group.
func set(group, file, value string) error {
	if err := os.WriteFile(filepath.Join(group, file), []byte(value), 0o644); err != nil {
		return fmt.Errorf("set control group: %w", err)
	}
	return nil
}
