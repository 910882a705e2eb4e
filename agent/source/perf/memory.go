package perf

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

// meminfo is the part of /proc/meminfo that counts, in kB.
type meminfo struct {
	total, available, swapTotal, swapFree uint64
}

// parseMeminfo reads /proc/meminfo. A kernel before 3.14 does not say what is
// available: what is free, buffers and cache stand for it then.
func parseMeminfo(data []byte) (meminfo, error) {
	var m meminfo
	var free, buffers, cached uint64
	size, estimated := len(data), false
	for len(data) > 0 {
		var line []byte
		line, data = cutLine(data)
		key, rest := cutField(line)
		var n [1]uint64
		if cutUints(rest, n[:]) == 0 {
			continue
		}
		switch string(key) {
		case "MemTotal:":
			m.total = n[0]
		case "MemFree:":
			free = n[0]
		case "MemAvailable:":
			m.available, estimated = n[0], true
		case "Buffers:":
			buffers = n[0]
		case "Cached:":
			cached = n[0]
		case "SwapTotal:":
			m.swapTotal = n[0]
		case "SwapFree:":
			m.swapFree = n[0]
		}
	}
	if m.total == 0 {
		return meminfo{}, fmt.Errorf("read memory: no MemTotal in the %d bytes of /proc/meminfo", size)
	}
	if !estimated {
		m.available = free + buffers + cached
	}
	m.available = min(m.available, m.total)
	m.swapFree = min(m.swapFree, m.swapTotal)
	return m, nil
}

// readMeminfo reads the tree's /proc/meminfo.
func readMeminfo(t *tree) (meminfo, error) {
	data, err := t.read("/proc/meminfo")
	if err != nil {
		return meminfo{}, fmt.Errorf("read memory: %w", err)
	}
	return parseMeminfo(data)
}

// paging is how much was read from and written to disks since boot, in kB.
type paging struct{ in, out uint64 }

// parseVmstat reads /proc/vmstat, false when it does not say both.
func parseVmstat(data []byte) (paging, bool) {
	var p paging
	found := 0
	for len(data) > 0 && found < 2 {
		var line []byte
		line, data = cutLine(data)
		var dst *uint64
		number, ok := bytes.CutPrefix(line, []byte("pgpgin "))
		if ok {
			dst = &p.in
		} else if number, ok = bytes.CutPrefix(line, []byte("pgpgout ")); ok {
			dst = &p.out
		} else {
			continue
		}
		if *dst, ok = parseUint(number); !ok {
			return paging{}, false
		}
		found++
	}
	return p, found == 2
}

// memory samples the object Memory, which has one instance of the same name.
// A machine without swap has 100 % of its swap available and 0 % used.
type memory struct {
	tree   *tree
	wanted counterSet

	was   paging
	wasAt time.Time // zero before the first paging was read
}

func (m *memory) read(_ context.Context, out *sample) error {
	info, err := readMeminfo(m.tree)
	if err != nil {
		return err
	}
	var v values
	used := info.total - info.available
	v.set(memAvailable, float64(info.available)/1024)
	v.set(memAvailablePercent, share(info.available, info.total, 0))
	v.set(memUsed, float64(used)/1024)
	v.set(memUsedPercent, share(used, info.total, 0))
	swapUsed := info.swapTotal - info.swapFree
	v.set(memSwapAvailable, float64(info.swapFree)/1024)
	v.set(memSwapUsed, float64(swapUsed)/1024)
	v.set(memSwapAvailablePercent, share(info.swapFree, info.swapTotal, 100))
	v.set(memSwapUsedPercent, share(swapUsed, info.swapTotal, 0))
	if m.wanted&(1<<memPages|1<<memPageReads|1<<memPageWrites) != 0 {
		err = m.rates(out.at, &v)
	}
	out.add([]byte("Memory"), &v)
	return err
}

// rates sets the paging counters. "Pages" are the kernel's kB, reported as
// they are.
func (m *memory) rates(at time.Time, v *values) error {
	data, err := m.tree.read("/proc/vmstat")
	if err != nil {
		return fmt.Errorf("read paging: %w", err)
	}
	now, ok := parseVmstat(data)
	if !ok {
		return fmt.Errorf("read paging: no pgpgin and pgpgout in the %d bytes of /proc/vmstat", len(data))
	}
	elapsed := at.Sub(m.wasAt).Seconds()
	if !m.wasAt.IsZero() && elapsed > 0 && now.in >= m.was.in && now.out >= m.was.out {
		in, out := float64(now.in-m.was.in)/elapsed, float64(now.out-m.was.out)/elapsed
		v.set(memPages, in+out)
		v.set(memPageReads, in)
		v.set(memPageWrites, out)
	}
	m.was, m.wasAt = now, at
	return nil
}

// share is part in whole as a percentage; none is the answer when there is no
// whole.
func share(part, whole uint64, none float64) float64 {
	if whole == 0 {
		return none
	}
	return 100 * float64(part) / float64(whole)
}
