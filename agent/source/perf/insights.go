package perf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sampling"
)

// InsightsSpecifier is the one counter specifier of the stream
// Microsoft-InsightsMetrics.
const InsightsSpecifier = `\VmInsights\DetailedMetrics`

// InsightsOptions says how the metrics of VM insights are sampled.
type InsightsOptions struct {
	Interval time.Duration // a second or more
	Computer string        // short host name

	Root  string    // folder that holds proc and sys; "" is the machine itself
	Stats HostStats // nil asks the machine itself
}

// NewInsights returns the source of the table InsightsMetrics: what VM insights
// shows of a machine, in its names. It fails on a machine that cannot be
// sampled: with errors.ErrUnsupported on Windows.
//
//	Namespace    Name                                            Tags
//	Computer     Heartbeat (1)
//	Memory       AvailableMB                                     memorySizeMB
//	Processor    UtilizationPercentage                           totalCpus
//	LogicalDisk  Status (1), FreeSpacePercentage (of the size),  mountId; FreeSpaceMB
//	             FreeSpaceMB, {Reads,Writes,Transfers,           has diskSizeMB, too
//	             ReadBytes,WriteBytes,Bytes}PerSecond
//	Network      ReadBytesPerSecond, WriteBytesPerSecond         networkDeviceId, bytes
//
// Rates are over the time between two samples and missing, not 0, until two
// exist. Disks are the Logical Disks of the Perf table. Interfaces are those of
// hardware: no loopback, bridge or tunnel.
func NewInsights(o InsightsOptions) (source.Source, error) {
	if o.Interval < time.Second {
		return nil, fmt.Errorf("sample the metrics of VM insights every %v: the shortest interval is 1s", o.Interval)
	}
	if o.Stats == nil {
		stats, err := newHostStats(o.Root)
		if err != nil {
			return nil, fmt.Errorf("collect the metrics of VM insights: %w", err)
		}
		o.Stats = stats
	}
	t := &tree{root: o.Root}
	return &insights{
		o: o, tree: t, mounts: mountTable{tree: t}, disks: &disks{tree: t}, prober: newProber(o.Stats.Usage),
		table: &record.Table{Name: "InsightsMetrics", DataType: "INSIGHTS_METRICS_BLOB", IPName: "VMInsights"},
		nets:  map[string]netTotals{}, told: map[string]string{},
	}, nil
}

// insights is the source.
type insights struct {
	o      InsightsOptions
	table  *record.Table
	tree   *tree
	mounts mountTable
	disks  *disks
	prober *prober

	at      time.Time // of the last sample
	elapsed float64   // seconds between the last two
	cpus    []cpu
	all     cpuTimes // of all processors together, at the last sample
	nets    map[string]netTotals

	metrics  []metric
	troubles map[string]string
	told     map[string]string // as the emitter knows them
}

// A metric is one row.
type metric struct {
	namespace, name string
	value           float64
	tags            string // a JSON object
}

// Name implements source.Source.
func (i *insights) Name() string { return "insights" }

// Run implements source.Source. The machine is read once at the start, for the
// rates, and emitted from one interval later on.
func (i *insights) Run(ctx context.Context, out source.Emitter) error {
	start := time.Now()
	i.take(ctx, start)
	i.tell(out)
	due := start.Add(i.o.Interval)
	for waitUntil(ctx, due) {
		now := time.Now()
		i.take(ctx, now)
		for !due.After(now) {
			due = due.Add(i.o.Interval)
		}
		err := sampling.Emit(ctx, out, sampling.Rows{
			Table: i.table, At: now, Count: len(i.metrics), Size: i.size, Fill: i.fill,
		}, i.o.Interval/2)
		if err != nil {
			return err
		}
		i.tell(out)
	}
	return nil
}

// take reads everything. What cannot be read is a trouble, and the rest is
// there all the same.
func (i *insights) take(ctx context.Context, at time.Time) {
	i.elapsed, i.at = at.Sub(i.at).Seconds(), at
	i.metrics, i.troubles = i.metrics[:0], map[string]string{}
	i.add("Computer", "Heartbeat", 1, "{}")
	for _, part := range []struct {
		name string
		read func(context.Context) error
	}{
		{"Memory", i.memory}, {"Processor", i.processor}, {"Network", i.network}, {"LogicalDisk", i.logicalDisks},
	} {
		if err := part.read(ctx); err != nil {
			i.troubles[part.name] = fmt.Sprintf("cannot collect all metrics of %s: %v", part.name, err)
		}
	}
}

func (i *insights) add(namespace, name string, value float64, tags string) {
	i.metrics = append(i.metrics, metric{namespace, name, value, tags})
}

func (i *insights) memory(context.Context) error {
	m, err := readMeminfo(i.tree)
	if err != nil {
		return err
	}
	i.add("Memory", "AvailableMB", float64(m.available)/1024, tags{}.number("memorySizeMB", float64(m.total)/1024).text())
	return nil
}

// processor tells how much of the time the processors did not idle: waiting for
// a disk, and for the hypervisor, is no idling.
func (i *insights) processor(context.Context) error {
	data, err := i.tree.read("/proc/stat")
	if err != nil {
		return fmt.Errorf("read processor times: %w", err)
	}
	i.cpus = parseStat(i.cpus[:0], data)
	var now cpuTimes
	count := 0
	for _, c := range i.cpus {
		if c.id < 0 {
			now = c.cpuTimes
		} else {
			count++
		}
	}
	was := i.all
	i.all = now
	d, ok := now.since(was)
	if all := d.busy() + d.idle + d.iowait + d.steal; ok && all > 0 && was != (cpuTimes{}) {
		i.add("Processor", "UtilizationPercentage", 100*float64(all-d.idle)/float64(all), tags{}.number("totalCpus", float64(count)).text())
	}
	return nil
}

// network tells what passed through each interface of hardware.
func (i *insights) network(context.Context) error {
	data, err := i.tree.read("/proc/net/dev")
	if err != nil {
		return fmt.Errorf("read network interfaces: %w", err)
	}
	seen := map[string]netTotals{}
	parseNetDev(data, func(name []byte, t netTotals) { seen[string(name)] = t })
	for name := range seen {
		if i.isVirtual(name) {
			delete(seen, name)
		}
	}
	was := i.nets
	i.nets = seen
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		now := seen[name]
		before, known := was[name]
		if !known || i.elapsed <= 0 || now.receivedBytes < before.receivedBytes || now.sentBytes < before.sentBytes {
			continue
		}
		for _, way := range []struct {
			name  string
			bytes uint64
		}{
			{"ReadBytesPerSecond", now.receivedBytes - before.receivedBytes},
			{"WriteBytesPerSecond", now.sentBytes - before.sentBytes},
		} {
			i.add("Network", way.name, float64(way.bytes)/i.elapsed,
				tags{}.string("networkDeviceId", name).number("bytes", float64(way.bytes)).text())
		}
	}
	return nil
}

// isVirtual reports whether the kernel made the interface up, as it does
// loopback, bridges and tunnels.
func (i *insights) isVirtual(name string) bool {
	_, err := os.Stat(i.tree.root + "/sys/devices/virtual/net/" + name)
	return err == nil || name == "lo"
}

func (i *insights) logicalDisks(ctx context.Context) error {
	if err := i.mounts.load(); err != nil {
		return err
	}
	failed := i.disks.load(i.at)
	for n := range i.mounts.mounts {
		m := &i.mounts.mounts[n]
		mounted := tags{}.string("mountId", m.point)
		i.space(ctx, m, mounted)
		if k := i.disks.byID[m.block]; failed == nil && k != nil && k.known && i.disks.elapsed > 0 {
			i.rates(k.done, mounted.text())
		}
	}
	return failed
}

// space tells how full a file system is. One that does not answer in time, or
// holds no blocks, has no rows.
func (i *insights) space(ctx context.Context, m *mount, mounted tags) {
	u, err := i.prober.usage(ctx, m.point)
	switch {
	case errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil:
		return // unmounted this moment, or out of time: no trouble to tell
	case err != nil:
		i.troubles[m.point] = fmt.Sprintf("cannot tell how full the file system at %s is: %v", m.point, err)
		return
	case u.Blocks == 0 || m.device.major != 0 && m.device != device{u.Major, u.Minor}:
		return
	}
	size, available := float64(u.Blocks)*float64(u.BlockSize), float64(u.Available)*float64(u.BlockSize)
	text := mounted.text()
	i.add("LogicalDisk", "Status", 1, text)
	i.add("LogicalDisk", "FreeSpacePercentage", 100*available/size, text)
	i.add("LogicalDisk", "FreeSpaceMB", available/(1<<20), mounted.number("diskSizeMB", size/(1<<20)).text())
}

func (i *insights) rates(d diskTimes, mounted string) {
	for _, rate := range []struct {
		name  string
		count uint64
	}{
		{"ReadsPerSecond", d.reads},
		{"WritesPerSecond", d.writes},
		{"TransfersPerSecond", d.reads + d.writes},
		{"ReadBytesPerSecond", d.readSectors * sectorSize},
		{"WriteBytesPerSecond", d.writeSectors * sectorSize},
		{"BytesPerSecond", (d.readSectors + d.writeSectors) * sectorSize},
	} {
		i.add("LogicalDisk", rate.name, float64(rate.count)/i.disks.elapsed, mounted)
	}
}

// origin is in every row, and before the name of every tag.
const origin = "vm.azm.ms"

// tags is a JSON object that is being written, without its closing brace.
type tags struct{ json string }

func (t tags) string(name, value string) tags {
	return t.member(name, record.AppendText(nil, []byte(value)))
}

func (t tags) number(name string, value float64) tags {
	return t.member(name, appendNumber(nil, value))
}

func (t tags) member(name string, value []byte) tags {
	separator := ","
	if t.json == "" {
		separator = "{"
	}
	return tags{t.json + separator + `"` + origin + "/" + name + `":` + string(value)}
}

func (t tags) text() string { return t.json + "}" }

// appendNumber appends a value as JSON, with at most two decimals.
func appendNumber(dst []byte, value float64) []byte {
	return strconv.AppendFloat(dst, hundredths(value), 'f', -1, 64)
}

// size is how many bytes of values a row adds to an Emit.
func (i *insights) size(row int) int {
	m := &i.metrics[row]
	return len(origin) + len(m.namespace) + len(m.name) + len(m.tags) + len(i.o.Computer) + 50
}

// fill adds rows to the batch, shaped as the OMS agent for Linux sends them
// (INSIGHTS_METRICS_BLOB): Tags is JSON in a text, the time has whole seconds.
func (i *insights) fill(b *record.Batch, first, last int) {
	fields := [...]record.Field{
		{Key: "Origin", Value: []byte(origin)},
		{Key: "Namespace"},
		{Key: "Name"},
		{Key: "Value", Kind: record.JSON},
		{Key: "Tags"},
		{Key: "CollectionTime", Value: i.at.UTC().AppendFormat(nil, "2006-01-02T15:04:05Z")},
		{Key: "Computer", Value: []byte(i.o.Computer)},
	}
	for _, m := range i.metrics[first:last] {
		fields[1].Value = []byte(m.namespace)
		fields[2].Value = []byte(m.name)
		fields[3].Value = appendNumber(fields[3].Value[:0], m.value)
		fields[4].Value = []byte(m.tags)
		b.Add(fields[:])
	}
}

// tell brings the emitter's troubles up to those of the last sample.
func (i *insights) tell(out source.Emitter) {
	for thing := range i.told {
		if i.troubles[thing] == "" {
			delete(i.told, thing)
			out.Trouble(thing, "")
		}
	}
	for thing, text := range i.troubles {
		if i.told[thing] != text {
			i.told[thing] = text
			out.Trouble(thing, text)
		}
	}
}
