//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A disk is a file system in a file, mounted through a loop device.
type disk struct {
	kind  string // ext4, xfs
	image string
	mount string
	n     int // of images so far
}

// diskBytes is more than XFS asks for and than the agent keeps free.
const diskBytes = 320 << 20

func (l *lab) disk(kind string) (*disk, error) {
	dir, err := l.folder(kind)
	if err != nil {
		return nil, err
	}
	d := &disk{kind: kind, image: filepath.Join(dir, "image"), mount: filepath.Join(dir, "mnt")}
	if err := os.Mkdir(d.mount, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(d.image, diskBytes); err != nil {
		return nil, err
	}
	force := map[string]string{"ext4": "-F", "xfs": "-f"}[kind]
	if err := command("mkfs."+kind, "-q", force, d.image); err != nil {
		return nil, err
	}
	return d, d.attach()
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// attach mounts the image on a loop device, which goes when nobody uses it.
func (d *disk) attach() error {
	device, loop, err := attachLoop(d.image)
	if err != nil {
		return fmt.Errorf("attach %s: %w", d.image, err)
	}
	options := map[string]string{"ext4": "errors=remount-ro", "xfs": "nouuid"}[d.kind]
	err = unix.Mount(device, d.mount, d.kind, 0, options)
	if err != nil {
		err = fmt.Errorf("mount %s: %w", d.kind, err)
	}
	return errors.Join(err, loop.Close())
}

// attachLoop gives a file a loop device that is open.
func attachLoop(path string) (device string, loop *os.File, err error) {
	image, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return "", nil, err
	}
	defer image.Close() //nolint:errcheck // the device holds it
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", nil, err
	}
	defer control.Close() //nolint:errcheck // nothing was written
	for range 20 {        // somebody else may take the free one first
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", nil, err
		}
		device = fmt.Sprintf("/dev/loop%d", n)
		if err := unix.Mknod(device, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
			return "", nil, err
		}
		loop, err := os.OpenFile(device, os.O_RDWR, 0)
		if err != nil {
			return "", nil, err
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &unix.LoopConfig{
			Fd: uint32(image.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR},
		})
		if err == nil {
			return device, loop, nil
		}
		if err := errors.Join(err, loop.Close()); !errors.Is(err, unix.EBUSY) {
			return "", nil, err
		}
	}
	return "", nil, errors.New("find a free loop device: all are busy")
}

// shutdownNoFlush is FS_IOC_SHUTDOWN's way that does not write the journal
// first: what was not synced is gone, as after a power cut.
const (
	ioctlShutdown   = 0x8004587d // _IOR('X', 125, uint32)
	shutdownNoFlush = 2
)

// cut cuts the power.
func (d *disk) cut() error {
	dir, err := os.Open(d.mount)
	if err != nil {
		return err
	}
	err = unix.IoctlSetPointerInt(int(dir.Fd()), ioctlShutdown, shutdownNoFlush)
	if err != nil {
		err = fmt.Errorf("shut %s down: %w", d.kind, err)
	}
	return errors.Join(err, dir.Close())
}

// again mounts what the power cut left: a copy on another device, because the
// kernel keeps the dead superblock of this one.
func (d *disk) again() error {
	if err := unmount(d.mount); err != nil {
		return err
	}
	return d.renew()
}

func (d *disk) renew() error {
	d.n++
	next := fmt.Sprintf("%s.%d", filepath.Join(filepath.Dir(d.image), "image"), d.n)
	if err := command("cp", "--sparse=always", d.image, next); err != nil {
		return err
	}
	if err := os.Remove(d.image); err != nil {
		return err
	}
	d.image = next
	return d.attach()
}

// remove gives the disk's space back.
func (d *disk) remove() error {
	return errors.Join(unmount(d.mount), os.RemoveAll(filepath.Dir(d.mount)))
}

// unmount waits for processes that are about to end.
func unmount(path string) error {
	var err error
	for range 100 {
		if err = unix.Unmount(path, 0); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}
