package atomicfile

import (
	"errors"
	"os"
	"syscall"
)

func setOwner(file *os.File, uid, gid int) error {
	if uid == keepOwner && gid == keepOwner {
		return nil
	}
	return file.Chown(uid, gid)
}

// syncDir makes a rename in dir durable. A file system that cannot sync a
// folder answers EINVAL; it has no stronger promise to give.
func syncDir(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = folder.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	return errors.Join(err, folder.Close())
}

// openNoFollow opens path without waiting and without following a link.
func openNoFollow(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, errors.Join(ErrNotRegular, err)
	}
	return file, err
}
