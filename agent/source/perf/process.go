package perf

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"
)

// ticksPerSecond is what the kernel counts a process's time in (USER_HZ), the
// same on every architecture that this runs on.
const ticksPerSecond = 100

// processStat is the part of /proc/<pid>/stat that counts.
type processStat struct {
	name         []byte
	user, system uint64 // ticks
	started      uint64 // ticks after boot: tells a process from an earlier one of the same number
	resident     uint64 // pages
}

// parseProcessStat reads /proc/<pid>/stat. The name is in parentheses and may
// hold anything, parentheses too: it ends at the last.
func parseProcessStat(data []byte) (processStat, bool) {
	begin, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if begin < 0 || end < begin {
		return processStat{}, false
	}
	s := processStat{name: data[begin+1 : end]}
	rest := data[end+1:]
	// Fields are numbered as in proc_pid_stat(5); the state is the third.
	for field := 3; field <= 24; field++ {
		var word []byte
		word, rest = cutField(rest)
		var dst *uint64
		switch field {
		case 14:
			dst = &s.user
		case 15:
			dst = &s.system
		case 22:
			dst = &s.started
		case 24:
			dst = &s.resident
		default:
			continue
		}
		n, ok := parseUint(word)
		if !ok {
			return processStat{}, false
		}
		*dst = n
	}
	return s, true
}

// parseStatm returns the pages that a process shares, from /proc/<pid>/statm.
func parseStatm(data []byte) (uint64, bool) {
	var n [3]uint64 // size, resident, shared
	return n[2], cutUints(data, n[:]) == len(n)
}

// A life is one process at one reading.
type life struct{ started, user, system uint64 }

// process samples the object Process: a row for each process, named for its
// command. Processes with the same name have a row each.
type process struct {
	tree   *tree
	wanted counterSet
	pageKB float64

	now, was map[string]life // by number
	wasAt    time.Time
}

func newProcess(t *tree, wanted counterSet) *process {
	return &process{
		tree: t, wanted: wanted, pageKB: float64(os.Getpagesize()) / 1024,
		now: map[string]life{}, was: map[string]life{},
	}
}

func (p *process) read(_ context.Context, out *sample) error {
	p.now, p.was = p.was, p.now
	clear(p.now)
	elapsed := out.at.Sub(p.wasAt).Seconds()
	p.wasAt = out.at
	if err := p.tree.processes(func(pid string) { p.readOne(pid, elapsed, out) }); err != nil {
		return fmt.Errorf("read processes: %w", err)
	}
	return nil
}

// readOne adds one process. One that has ended meanwhile is passed over.
func (p *process) readOne(pid string, elapsed float64, out *sample) {
	data, err := p.tree.read("/proc/" + pid + "/stat")
	if err != nil {
		return
	}
	stat, ok := parseProcessStat(data)
	if !ok {
		return
	}
	now := life{stat.started, stat.user, stat.system}
	p.now[pid] = now
	var v values
	was, known := p.was[pid]
	if known && elapsed > 0 && was.started == now.started && now.user >= was.user && now.system >= was.system {
		v.set(processUser, 100*float64(now.user-was.user)/ticksPerSecond/elapsed)
		v.set(processPrivileged, 100*float64(now.system-was.system)/ticksPerSecond/elapsed)
	}
	v.set(processMemory, float64(stat.resident)*p.pageKB)
	if p.wanted&(1<<processShared) == 0 {
		out.add(stat.name, &v)
		return
	}
	name := bytes.Clone(stat.name) // the next read takes its place
	data, err = p.tree.read("/proc/" + pid + "/statm")
	if err != nil {
		return
	}
	if pages, ok := parseStatm(data); ok {
		v.set(processShared, float64(pages)*p.pageKB)
	}
	out.add(name, &v)
}
