package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A hierarchy is a mounted tree of control groups.
type hierarchy struct {
	path        string
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
			found = append(found, hierarchy{path: fields[4]})
		case "cgroup":
			found = append(found, hierarchy{fields[4], strings.Split(super[2], ",")})
		}
	}
	return found
}

// joinOwnGroups moves a process into control groups of its own, with the
// unit's ceilings where the system lets them be set. What cannot be had is in
// the error; the rest is done.
func joinOwnGroups(u Unit, pid int) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("find control groups: %w", err)
	}
	var errs []error
	for _, h := range hierarchies(string(mounts)) {
		errs = append(errs, h.join(u, pid))
	}
	return errors.Join(errs...)
}

// leaveNoGroups removes the groups that joinOwnGroups made. The system refuses
// while a process is in one, and where there is none.
func leaveNoGroups(u Unit) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	for _, h := range hierarchies(string(mounts)) {
		_ = os.Remove(filepath.Join(h.path, u.Name))
	}
}

// join makes the unit's group in one hierarchy and moves the process there.
func (h hierarchy) join(u Unit, pid int) error {
	if slices.Contains(h.controllers, "cpuset") {
		return nil // a new group there has no processor and takes no process
	}
	group := filepath.Join(h.path, u.Name)
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make control group: %w", err)
	}
	errs := []error{h.limit(group, u)}
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
func (h hierarchy) limit(group string, u Unit) error {
	cpu := strconv.Itoa(u.CPUPercent * period / 100)
	memory := strconv.Itoa(u.MemoryMB << 20)
	tasks := strconv.Itoa(maxTasks)
	var errs []error
	put := func(controller string, want bool, file, value string) {
		if !want {
			return
		}
		if h.controllers == nil {
			errs = append(errs, set(h.path, "cgroup.subtree_control", "+"+controller))
		} else if !slices.Contains(h.controllers, controller) {
			return
		}
		errs = append(errs, set(group, file, value))
	}
	if h.controllers == nil {
		put("cpu", u.CPUPercent > 0, "cpu.max", cpu+" "+strconv.Itoa(period))
		put("memory", u.MemoryMB > 0, "memory.high", strconv.Itoa(highMemory(u.MemoryMB)<<20))
		put("memory", u.MemoryMB > 0, "memory.max", memory)
	} else {
		put("cpu", u.CPUPercent > 0, "cpu.cfs_quota_us", cpu)
		put("memory", u.MemoryMB > 0, "memory.limit_in_bytes", memory)
	}
	put("pids", true, "pids.max", tasks)
	return errors.Join(errs...)
}

// set writes one file of a control group.
func set(group, file, value string) error {
	if err := os.WriteFile(filepath.Join(group, file), []byte(value), 0o644); err != nil {
		return fmt.Errorf("set control group: %w", err)
	}
	return nil
}
