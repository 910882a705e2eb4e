package vfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// noSpace and readOnly are how the kernel says so.
var (
	noSpace  = []error{unix.ENOSPC, unix.EDQUOT}
	readOnly = []error{unix.EROFS}
)

// syncData makes the bytes and the length of f durable, not its times.
func syncData(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		for {
			failed = unix.Fdatasync(int(fd))
			if !errors.Is(failed, unix.EINTR) {
				return
			}
		}
	})
	if err == nil && failed != nil {
		err = &os.PathError{Op: "fdatasync", Path: f.Name(), Err: failed}
	}
	return err
}

// syncDir makes the names in a folder durable. A file system that cannot sync
// folders says EINVAL and has no stronger promise to give.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, unix.EINVAL) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

func free(path string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// weak are the file systems that keep no promise of their own about a sync, by
// the numbers that statfs gives.
var weak = map[uint32]string{
	unix.TMPFS_MAGIC:           "tmpfs",
	unix.RAMFS_MAGIC:           "ramfs",
	unix.NFS_SUPER_MAGIC:       "NFS",
	unix.SMB_SUPER_MAGIC:       "SMB",
	0xff534d42:                 "SMB", // cifs
	0xfe534d42:                 "SMB", // version 2 and later
	unix.FUSE_SUPER_MAGIC:      "FUSE",
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	unix.V9FS_MAGIC:            "9p",
	0x00c36400:                 "Ceph",
}

func weakSync(path string) string {
	var s unix.Statfs_t
	if unix.Statfs(path, &s) != nil {
		return ""
	}
	return weak[uint32(s.Type)]
}
