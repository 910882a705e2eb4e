package perf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// system samples the object System, whose one instance is named for the
// operating system. Memory and paging counters are in kB.
type system struct {
	tree    *tree
	wanted  counterSet
	caption []byte
	stats   HostStats
	cpus    []cpu
}

func (s *system) read(ctx context.Context, out *sample) error {
	var v values
	steps := [...]struct {
		counters counterSet
		read     func(context.Context, *values) error
	}{
		{1 << systemProcesses, s.processes},
		{1<<systemUsers | 1<<systemUniqueUsers, s.users},
		{1 << systemCPUs, s.processors},
		{1<<systemFreePhysical | 1<<systemFreeVirtual | 1<<systemPagingSize | 1<<systemPagingFree, s.memory},
		{1 << systemUptime, s.uptime},
		{1<<systemLoad1 | 1<<systemLoad5 | 1<<systemLoad15, s.load},
	}
	var failed []error
	for _, step := range steps {
		if s.wanted&step.counters == 0 {
			continue
		}
		if err := step.read(ctx, &v); err != nil {
			failed = append(failed, err)
		}
	}
	out.add(s.caption, &v)
	return errors.Join(failed...)
}

func (s *system) processes(_ context.Context, v *values) error {
	n := 0
	if err := s.tree.processes(func(string) { n++ }); err != nil {
		return fmt.Errorf("count processes: %w", err)
	}
	v.set(systemProcesses, float64(n))
	return nil
}

// users counts sessions and who has them. A system that does not keep the
// record of sessions (utmp) any more has no such counters.
func (s *system) users(ctx context.Context, v *values) error {
	names, err := s.stats.Users(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("count users: %w", err)
	}
	different := map[string]bool{}
	for _, name := range names {
		different[name] = true
	}
	v.set(systemUsers, float64(len(names)))
	v.set(systemUniqueUsers, float64(len(different)))
	return nil
}

// processors counts those that are online.
func (s *system) processors(_ context.Context, v *values) error {
	data, err := s.tree.read("/proc/stat")
	if err != nil {
		return fmt.Errorf("count processors: %w", err)
	}
	s.cpus = parseStat(s.cpus[:0], data)
	n := 0
	for _, c := range s.cpus {
		if c.id >= 0 {
			n++
		}
	}
	v.set(systemCPUs, float64(n))
	return nil
}

func (s *system) memory(_ context.Context, v *values) error {
	info, err := readMeminfo(s.tree)
	if err != nil {
		return err
	}
	v.set(systemFreePhysical, float64(info.available))
	v.set(systemFreeVirtual, float64(info.available+info.swapFree))
	v.set(systemPagingSize, float64(info.swapTotal))
	v.set(systemPagingFree, float64(info.swapFree))
	return nil
}

func (s *system) uptime(_ context.Context, v *values) error {
	return s.decimals("/proc/uptime", v, systemUptime)
}

func (s *system) load(_ context.Context, v *values) error {
	return s.decimals("/proc/loadavg", v, systemLoad1, systemLoad5, systemLoad15)
}

// decimals sets counters to the first words of a file.
func (s *system) decimals(name string, v *values, counters ...int) error {
	data, err := s.tree.read(name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	line, _ := cutLine(data)
	for i, counter := range counters {
		var word []byte
		word, line = cutField(line)
		n, ok := parseDecimal(word)
		if !ok {
			return fmt.Errorf("read %s: word %d of its %d bytes is not a number", name, i+1, len(data))
		}
		v.set(counter, n)
	}
	return nil
}
