//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A usage is what a process and its descendants have used so far.
type usage struct {
	alive    bool
	cpu      time.Duration // user and system
	peak     int64         // resident bytes, at most
	pss      int64         // now; only when asked for
	wrote    int64         // bytes that went to storage
	switches int64         // of context, of both kinds
}

func (u *usage) add(v usage) {
	u.cpu += v.cpu
	u.peak += v.peak
	u.pss += v.pss
	u.wrote += v.wrote
	u.switches += v.switches
}

// used reads the account of process pid and of its descendants that live.
func used(pid int, withPSS bool) usage {
	u := usedByOne(pid, withPSS)
	if !u.alive {
		return u
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range tasks {
		list, _ := os.ReadFile(file) // who has ended has no children
		for child := range strings.FieldsSeq(string(list)) {
			if id, err := strconv.Atoi(child); err == nil {
				u.add(used(id, withPSS))
			}
		}
	}
	return u
}

// usedByOne reads one account; what cannot be read is 0, as for a process that
// has just ended.
func usedByOne(pid int, withPSS bool) (u usage) {
	// The clock of another process's CPU time (clock_getcpuclockid), which is
	// exact to the nanosecond where /proc has hundredths of a second.
	var now unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|2, &now); err != nil {
		return u
	}
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return u
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 15 || fields[0] == "Z" {
		return u
	}
	u.alive = true
	u.cpu = time.Duration(now.Nano())
	for _, of := range fields[13:15] { // children that have ended, in hundredths
		ticks, _ := strconv.ParseInt(of, 10, 64)
		u.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	status, _ := os.ReadFile(dir + "/status")
	u.peak = valueOf(status, "VmHWM:") << 10
	tasks, _ := filepath.Glob(dir + "/task/*/status")
	for _, file := range tasks {
		task, _ := os.ReadFile(file)
		u.switches += valueOf(task, "\nvoluntary_ctxt_switches:") + valueOf(task, "nonvoluntary_ctxt_switches:")
	}
	io, _ := os.ReadFile(dir + "/io")
	u.wrote = valueOf(io, "\nwrite_bytes:")
	if withPSS {
		rollup, _ := os.ReadFile(dir + "/smaps_rollup")
		u.pss = valueOf(rollup, "\nPss:") << 10
	}
	return u
}

// valueOf returns the number behind key in a file of /proc, 0 without one.
func valueOf(text []byte, key string) int64 {
	_, rest, found := bytes.Cut(text, []byte(key))
	if !found {
		return 0
	}
	n, _ := digits(bytes.TrimLeft(rest, " \t"))
	return n
}

// sizeOf returns how many bytes the files below dir have.
func sizeOf(dir string) (n int64) {
	_ = filepath.Walk(dir, func(_ string, st os.FileInfo, err error) error {
		if err == nil && st.Mode().IsRegular() {
			n += st.Size()
		}
		return nil // a file that is gone has no size
	})
	return n
}
