package perf

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"time"
)

// sectorSize is the unit of /proc/diskstats, whatever the disk's own is.
const sectorSize = 512

// A device is a block device by its number.
type device struct{ major, minor uint32 }

// parseDevice reads major:minor.
func parseDevice(text []byte) (device, bool) {
	major, minor, ok := bytes.Cut(text, []byte(":"))
	if !ok {
		return device{}, false
	}
	return deviceOf(major, minor)
}

func deviceOf(major, minor []byte) (device, bool) {
	x, ok := parseUint(major)
	y, ok2 := parseUint(minor)
	if !ok || !ok2 || x > math.MaxUint32 || y > math.MaxUint32 {
		return device{}, false
	}
	return device{uint32(x), uint32(y)}, true
}

// diskTimes is what a block device has done since boot, or in the time
// between two readings.
type diskTimes struct {
	reads, readSectors, readMillis    uint64
	writes, writeSectors, writeMillis uint64
}

// since returns what was done after was, false when a count went back: the
// device is another one, or its count has wrapped.
func (t diskTimes) since(was diskTimes) (diskTimes, bool) {
	if t.reads < was.reads || t.readSectors < was.readSectors || t.readMillis < was.readMillis ||
		t.writes < was.writes || t.writeSectors < was.writeSectors || t.writeMillis < was.writeMillis {
		return diskTimes{}, false
	}
	return diskTimes{
		t.reads - was.reads, t.readSectors - was.readSectors, t.readMillis - was.readMillis,
		t.writes - was.writes, t.writeSectors - was.writeSectors, t.writeMillis - was.writeMillis,
	}, true
}

func (t *diskTimes) add(d diskTimes) {
	t.reads += d.reads
	t.readSectors += d.readSectors
	t.readMillis += d.readMillis
	t.writes += d.writes
	t.writeSectors += d.writeSectors
	t.writeMillis += d.writeMillis
}

// parseDiskstats calls yield for each block device in /proc/diskstats.
func parseDiskstats(data []byte, yield func(dev device, name []byte, t diskTimes)) {
	for len(data) > 0 {
		var line []byte
		line, data = cutLine(data)
		major, rest := cutField(line)
		minor, rest := cutField(rest)
		name, rest := cutField(rest)
		dev, ok := deviceOf(major, minor)
		// reads, merged, sectors, ms; writes, merged, sectors, ms; and more
		var n [8]uint64
		if !ok || cutUints(rest, n[:]) < len(n) {
			continue
		}
		yield(dev, name, diskTimes{n[0], n[2], n[3], n[4], n[6], n[7]})
	}
}

// A disk is a block device as the last readings found it.
type disk struct {
	name     string
	physical bool // a drive: not a partition, a mapping, a loop or memory
	now      diskTimes
	done     diskTimes // between the last two readings
	known    bool      // done is known
	seen     time.Time
}

// disks keeps the block devices. Logical Disk and Physical Disk of one sample
// share a reading.
type disks struct {
	tree    *tree
	at      time.Time
	elapsed float64 // seconds between the last two readings
	order   []*disk // as the kernel lists them
	byID    map[device]*disk
}

// load reads /proc/diskstats, once for each at.
func (d *disks) load(at time.Time) error {
	if d.at.Equal(at) {
		return nil
	}
	data, err := d.tree.read("/proc/diskstats")
	if err != nil {
		return fmt.Errorf("read disks: %w", err)
	}
	if d.byID == nil {
		d.byID = map[device]*disk{}
	}
	d.elapsed = at.Sub(d.at).Seconds()
	d.at = at
	d.order = d.order[:0]
	parseDiskstats(data, func(dev device, name []byte, t diskTimes) {
		k := d.byID[dev]
		if k == nil || k.name != string(name) {
			k = &disk{name: string(name), physical: isDrive(d.tree.root, string(name))}
			d.byID[dev] = k
		} else {
			k.done, k.known = t.since(k.now)
		}
		k.now, k.seen = t, at
		d.order = append(d.order, k)
	})
	for dev, k := range d.byID {
		if !k.seen.Equal(at) {
			delete(d.byID, dev)
		}
	}
	return nil
}

// isDrive reports whether a block device is a drive of its own: the kernel
// shows the hardware behind it. A / in the name of a device is a ! there.
func isDrive(root, name string) bool {
	_, err := os.Stat(root + "/sys/block/" + strings.ReplaceAll(name, "/", "!") + "/device")
	return err == nil
}

// physicalDisk samples the object Physical Disk: each drive and _Total.
type physicalDisk struct{ disks *disks }

func (p *physicalDisk) read(_ context.Context, out *sample) error {
	if err := p.disks.load(out.at); err != nil {
		return err
	}
	var sum diskTimes
	known := false
	for _, k := range p.disks.order {
		if !k.physical {
			continue
		}
		var v values
		if k.known {
			p.set(k.done, &v)
			sum.add(k.done)
			known = true
		}
		out.add([]byte(k.name), &v)
	}
	var v values
	if known {
		p.set(sum, &v)
	}
	out.add([]byte(total), &v)
	return nil
}

// set tells the counters of what was done. A transfer takes 0 s when there was
// none.
func (p *physicalDisk) set(d diskTimes, v *values) {
	if p.disks.elapsed <= 0 {
		return
	}
	v.set(physicalBytes, float64(d.readSectors+d.writeSectors)*sectorSize/p.disks.elapsed)
	v.set(physicalReadTime, secondsEach(d.readMillis, d.reads))
	v.set(physicalWriteTime, secondsEach(d.writeMillis, d.writes))
	v.set(physicalTransferTime, secondsEach(d.readMillis+d.writeMillis, d.reads+d.writes))
}

func secondsEach(millis, operations uint64) float64 {
	if operations == 0 {
		return 0
	}
	return float64(millis) / float64(operations) / 1000
}
