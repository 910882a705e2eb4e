package perf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// A mount is a mounted file system that is a Logical Disk.
type mount struct {
	point  string // the instance name
	device device // of the file system, as stat tells it
	kind   string // ext4
	source string // /dev/sda1
	block  device // the block device behind it; device unless that is anonymous
}

// parseMounts reads /proc/<pid>/mountinfo and returns the Logical Disks in it,
// in the order of their mounting. When several file systems are mounted at one
// place, the last hides the others.
func parseMounts(data []byte) []mount {
	var all []mount
	last := map[string]int{} // mount point -> index in all
	for len(data) > 0 {
		var line []byte
		line, data = cutLine(data)
		// id parent major:minor root point options [tags] - type source options
		before, after, _ := bytes.Cut(line, []byte(" - "))
		words, described := bytes.Split(before, []byte(" ")), bytes.Split(after, []byte(" "))
		if len(words) < 6 || len(described) < 2 {
			continue
		}
		dev, ok := parseDevice(words[2])
		if !ok {
			continue
		}
		m := mount{point: unescape(words[4]), device: dev, kind: unescape(described[0]), source: unescape(described[1]), block: dev}
		last[m.point] = len(all)
		all = append(all, m)
	}
	var disks []mount
	for i, m := range all {
		if last[m.point] == i && isDisk(m.kind) {
			disks = append(disks, m)
		}
	}
	return disks
}

// unescape undoes the kernel's writing of blanks, tabs, line ends and
// backslashes as three octal digits.
func unescape(text []byte) string {
	if !bytes.Contains(text, []byte(`\`)) {
		return string(text)
	}
	plain := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '\\' && i+3 < len(text) && octal(text[i+1:i+4]) {
			c = (text[i+1]-'0')<<6 | (text[i+2]-'0')<<3 | (text[i+3] - '0')
			i += 3
		}
		plain = append(plain, c)
	}
	return string(plain)
}

func octal(digits []byte) bool {
	return digits[0] <= '3' && !bytes.ContainsFunc(digits, func(r rune) bool { return r < '0' || r > '7' })
}

// notDisks are the types of file systems that are no Logical Disks: those of
// the OMS agent for Linux, and bpf, cgroup2, nsfs, overlay and squashfs, which
// came later. They are in order.
var notDisks = []string{
	"autofs", "bdev", "binfmt_misc", "bpf", "cachefs", "cdfs", "cdrfs", "cgroup", "cgroup2", "cifs", "configfs",
	"ctfs", "debugfs", "devfs", "devpts", "devtmpfs", "efivarfs", "eventpollfs", "fd", "ffs", "fifofs", "fuse.lxcfs",
	"fusectl", "futexfs", "hsfs", "hugetlbfs", "inotifyfs", "iso9660", "lofs", "mntfs", "mqueue", "mvfs", "namefs",
	"none", "nsfs", "objfs", "overlay", "pipefs", "proc", "procfs", "pstore", "ramfs", "rootfs", "rpc_pipefs",
	"securityfs", "selinuxfs", "sharefs", "sockfs", "specfs", "squashfs", "subfs", "sysfs", "tmpfs", "tracefs",
	"udev", "udfs", "usbfs", "vmblock", "vmhgfs", "vmware-hgfs", "zfs",
}

// isDisk reports whether a type of file system is a Logical Disk.
func isDisk(kind string) bool {
	_, not := slices.BinarySearch(notDisks, kind)
	return !not && !strings.HasPrefix(kind, "nfs") && !strings.Contains(kind, "gvfs")
}

// mountTable keeps the Logical Disks of the machine.
type mountTable struct {
	tree   *tree
	raw    []byte // what mounts was made of
	mounts []mount
}

// load reads the mounts again if they have changed. It asks for those of the
// first process: a service has a view of its own, in which each folder that it
// may write is a mount. That view does when the other is hidden.
func (m *mountTable) load() error {
	data, err := m.tree.read("/proc/1/mountinfo")
	if err != nil {
		data, err = m.tree.read("/proc/self/mountinfo")
	}
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	if bytes.Equal(data, m.raw) && m.raw != nil {
		return nil
	}
	m.raw = append(m.raw[:0], data...)
	m.mounts = parseMounts(m.raw)
	for i := range m.mounts {
		if k := &m.mounts[i]; k.device.major == 0 {
			k.block = m.blockDevice(k.source)
		}
	}
	return nil
}

// blockDevice returns the device that a file system with an anonymous one
// (btrfs) was mounted from, the zero device when there is none.
func (m *mountTable) blockDevice(source string) device {
	name, ok := strings.CutPrefix(source, "/dev/")
	if !ok {
		return device{}
	}
	if mapped, ok := strings.CutPrefix(name, "mapper/"); ok {
		name = m.mapping(mapped)
	}
	data, err := m.tree.read("/sys/class/block/" + strings.ReplaceAll(name, "/", "!") + "/dev")
	if err != nil {
		return device{} // not a block device of this machine: no rates, which is no fault
	}
	dev, _ := parseDevice(bytes.TrimSpace(data))
	return dev
}

// mapping returns the kernel's name (dm-0) of a device-mapper device.
func (m *mountTable) mapping(mapped string) string {
	entries, err := os.ReadDir(m.tree.root + "/sys/class/block")
	if err != nil {
		return mapped // without sysfs there is no other name to be had
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), "dm-") {
			continue
		}
		data, err := m.tree.read("/sys/class/block/" + entry.Name() + "/dm/name")
		if err == nil && string(bytes.TrimSpace(data)) == mapped {
			return entry.Name()
		}
	}
	return mapped
}

// space is how full one file system is, or several together.
type space struct {
	used, available    float64 // bytes
	inodes, freeInodes float64
}

func (s *space) add(u Usage) {
	s.used += float64(u.Blocks-min(u.Free, u.Blocks)) * float64(u.BlockSize)
	s.available += float64(u.Available) * float64(u.BlockSize)
	s.inodes += float64(u.Inodes)
	s.freeInodes += float64(min(u.FreeInodes, u.Inodes))
}

// set tells the counters of the space. A file system that does not count
// inodes has all of them free.
func (s *space) set(v *values) {
	freeInodes := 100.0
	if s.inodes > 0 {
		freeInodes = 100 * s.freeInodes / s.inodes
	}
	v.set(logicalFreeInodes, freeInodes)
	v.set(logicalUsedInodes, 100-freeInodes)
	v.set(logicalFreeMegabytes, s.available/(1<<20))
	if whole := s.used + s.available; whole > 0 {
		v.set(logicalFreeSpace, 100*s.available/whole)
		v.set(logicalUsedSpace, 100*s.used/whole)
	}
}

const (
	logicalSpace = 1<<logicalFreeInodes | 1<<logicalUsedInodes | 1<<logicalFreeMegabytes | 1<<logicalFreeSpace | 1<<logicalUsedSpace
	logicalRates = 1<<logicalReads | 1<<logicalWrites | 1<<logicalTransfers | 1<<logicalReadBytes | 1<<logicalWriteBytes | 1<<logicalBytes
)

// logicalDisk samples the object Logical Disk: each mount point and _Total, in
// which a device counts once however often it is mounted.
type logicalDisk struct {
	wanted counterSet
	mounts mountTable
	disks  *disks
	prober *prober

	spaceCounted, ratesCounted map[device]bool
}

func newLogicalDisk(t *tree, shared *disks, wanted counterSet, spaces *prober) *logicalDisk {
	return &logicalDisk{
		wanted: wanted, mounts: mountTable{tree: t}, disks: shared, prober: spaces,
		spaceCounted: map[device]bool{}, ratesCounted: map[device]bool{},
	}
}

func (l *logicalDisk) read(ctx context.Context, out *sample) error {
	if err := l.mounts.load(); err != nil {
		return err
	}
	var failed error
	if l.wanted&logicalRates != 0 {
		failed = l.disks.load(out.at)
	}
	clear(l.spaceCounted)
	clear(l.ratesCounted)
	var sum space
	var done diskTimes
	for i := range l.mounts.mounts {
		m := &l.mounts.mounts[i]
		var v values
		if l.wanted&logicalSpace != 0 {
			l.readSpace(ctx, m, &v, &sum, out)
		}
		if k := l.disks.byID[m.block]; failed == nil && k != nil && k.known {
			l.setRates(k.done, &v)
			if !l.ratesCounted[m.block] {
				l.ratesCounted[m.block] = true
				done.add(k.done)
			}
		}
		out.add([]byte(m.point), &v)
	}
	var v values
	if len(l.spaceCounted) > 0 {
		sum.set(&v)
	}
	if len(l.ratesCounted) > 0 {
		l.setRates(done, &v)
	}
	out.add([]byte(total), &v)
	return failed
}

// readSpace asks one file system how full it is. One without blocks holds
// nothing that could be full.
func (l *logicalDisk) readSpace(ctx context.Context, m *mount, v *values, sum *space, out *sample) {
	u, err := l.prober.usage(ctx, m.point)
	switch {
	case errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil:
		return // unmounted this moment, or out of time: no trouble to tell
	case errors.Is(err, fs.ErrPermission):
		out.trouble(m.point, fmt.Sprintf("cannot tell how full the file system at %s is: %v; "+
			"let the agent's user enter the folders above it", m.point, err))
		return
	case err != nil:
		out.trouble(m.point, fmt.Sprintf("cannot tell how full the file system at %s is: %v", m.point, err))
		return
	case m.device.major != 0 && m.device != device{u.Major, u.Minor}:
		out.trouble(m.point, fmt.Sprintf("cannot tell how full the file system at %s is: the agent's service sees device %d:%d there, not %d:%d; "+
			"let the service see the folder", m.point, u.Major, u.Minor, m.device.major, m.device.minor))
		return
	case u.Blocks == 0:
		return
	}
	var own space
	own.add(u)
	own.set(v)
	if !l.spaceCounted[m.device] {
		l.spaceCounted[m.device] = true
		sum.add(u)
	}
}

func (l *logicalDisk) setRates(d diskTimes, v *values) {
	elapsed := l.disks.elapsed
	if elapsed <= 0 {
		return
	}
	v.set(logicalReads, float64(d.reads)/elapsed)
	v.set(logicalWrites, float64(d.writes)/elapsed)
	v.set(logicalTransfers, float64(d.reads+d.writes)/elapsed)
	v.set(logicalReadBytes, float64(d.readSectors)*sectorSize/elapsed)
	v.set(logicalWriteBytes, float64(d.writeSectors)*sectorSize/elapsed)
	v.set(logicalBytes, float64(d.readSectors+d.writeSectors)*sectorSize/elapsed)
}
