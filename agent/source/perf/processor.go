package perf

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
)

// total is the instance that stands for all others of its object.
const total = "_Total"

// cpuTimes is what a processor spent its time on since boot, in ticks. Guest
// time is part of user.
type cpuTimes struct {
	user, nice, system, idle, iowait, irq, softirq uint64
	steal                                          uint64 // wanted, and given to another machine
}

// A cpu is one line of /proc/stat.
type cpu struct {
	id int // -1 is all processors together
	cpuTimes
}

// parseStat appends the processors in /proc/stat to dst. Columns that an old
// kernel does not have are 0.
func parseStat(dst []cpu, data []byte) []cpu {
	for len(data) > 0 {
		var line []byte
		line, data = cutLine(data)
		name, rest := cutField(line)
		number, ok := bytes.CutPrefix(name, []byte("cpu"))
		if !ok {
			continue
		}
		c := cpu{id: -1}
		if len(number) > 0 {
			id, ok := parseUint(number)
			if !ok || id > maxCPU {
				continue
			}
			c.id = int(id)
		}
		var n [8]uint64
		if cutUints(rest, n[:]) < 4 {
			continue
		}
		c.cpuTimes = cpuTimes{n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]}
		dst = append(dst, c)
	}
	return dst
}

// maxCPU is above what any kernel is built for.
const maxCPU = 1 << 16

// since returns what was spent between was and now, false when the counts went
// back. Idle, waiting for input and stolen time may go back a little on a
// healthy kernel; they stand still then.
func (now cpuTimes) since(was cpuTimes) (cpuTimes, bool) {
	if now.user < was.user || now.nice < was.nice || now.system < was.system || now.irq < was.irq || now.softirq < was.softirq {
		return cpuTimes{}, false
	}
	return cpuTimes{
		user: now.user - was.user, nice: now.nice - was.nice, system: now.system - was.system,
		idle: now.idle - min(was.idle, now.idle), iowait: now.iowait - min(was.iowait, now.iowait),
		irq: now.irq - was.irq, softirq: now.softirq - was.softirq,
		steal: now.steal - min(was.steal, now.steal),
	}, true
}

// busy is the time that a processor worked.
func (now cpuTimes) busy() uint64 { return now.user + now.nice + now.system + now.irq + now.softirq }

// shares sets the percentages of the time between was and now. It reports
// false when no time passed or the counts went back: then nothing is known.
//
// Percentages are of the time that the machine had, as the OMS agent for Linux
// counts them: stolen time is no part of it. That is told by a counter of its
// own, as a share of all time that passed.
func (now cpuTimes) shares(was cpuTimes, v *values) bool {
	d, ok := now.since(was)
	busy := d.busy()
	all := busy + d.idle + d.iowait
	if !ok || all == 0 {
		return false
	}
	for counter, ticks := range [...]uint64{
		cpuProcessor: busy, cpuIdle: d.idle, cpuUser: d.user, cpuNice: d.nice,
		cpuPrivileged: d.system, cpuIOWait: d.iowait, cpuInterrupt: d.irq, cpuDPC: d.softirq,
	} {
		v.set(counter, 100*float64(ticks)/float64(all))
	}
	v.set(cpuSteal, 100*float64(d.steal)/float64(all+d.steal))
	return true
}

// processor samples the object Processor: instances 0 to n-1 and _Total.
type processor struct {
	tree     *tree
	now, was []cpu
}

func (p *processor) read(_ context.Context, out *sample) error {
	data, err := p.tree.read("/proc/stat")
	if err != nil {
		return fmt.Errorf("read processor times: %w", err)
	}
	p.now, p.was = parseStat(p.was[:0], data), p.now
	if len(p.now) == 0 {
		return fmt.Errorf("read processor times: no processor in the %d bytes of /proc/stat", len(data))
	}
	var scratch [20]byte
	for i, c := range p.now {
		name := append(scratch[:0], total...)
		if c.id >= 0 {
			name = strconv.AppendInt(scratch[:0], int64(c.id), 10)
		}
		var v values
		if was, ok := findCPU(p.was, i, c.id); ok {
			c.shares(was.cpuTimes, &v)
		}
		out.add(name, &v)
	}
	return nil
}

// findCPU looks for a processor where it most likely is, then everywhere.
func findCPU(list []cpu, likely, id int) (cpu, bool) {
	if likely < len(list) && list[likely].id == id {
		return list[likely], true
	}
	for _, c := range list {
		if c.id == id {
			return c, true
		}
	}
	return cpu{}, false
}
