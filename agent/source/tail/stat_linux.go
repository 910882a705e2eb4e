package tail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// statPath follows links, lstatPath does not.
func statPath(path string) (status, error) { return statAt(unix.AT_FDCWD, path, 0) }

func lstatPath(path string) (status, error) {
	return statAt(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW)
}

func statFile(f *os.File) (status, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return status{}, fmt.Errorf("stat file: %w", err)
	}
	var st status
	closed := raw.Control(func(fd uintptr) { st, err = statAt(int(fd), "", unix.AT_EMPTY_PATH) })
	return st, errors.Join(closed, err)
}

func statAt(fd int, path string, flags int) (status, error) {
	var x unix.Statx_t
	err := unix.Statx(fd, path, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &x)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // before Linux 4.11, or a filter that does not know it
		return oldStatAt(fd, path, flags)
	}
	if err != nil {
		return status{}, fmt.Errorf("stat file: %w", err)
	}
	s := status{
		id:    identity{dev: unix.Mkdev(x.Dev_major, x.Dev_minor), ino: x.Ino},
		size:  int64(x.Size),
		links: uint64(x.Nlink), owner: x.Uid, kind: fileKind(uint32(x.Mode)),
		mtime: x.Mtime.Sec*1e9 + int64(x.Mtime.Nsec), ctime: x.Ctime.Sec*1e9 + int64(x.Ctime.Nsec),
	}
	if x.Mask&unix.STATX_BTIME != 0 {
		s.id.birth = x.Btime.Sec*1e9 + int64(x.Btime.Nsec)
	}
	return s, nil
}

func oldStatAt(fd int, path string, flags int) (status, error) {
	var x unix.Stat_t
	var err error
	if path == "" {
		err = unix.Fstat(fd, &x)
	} else {
		err = unix.Fstatat(fd, path, &x, flags)
	}
	if err != nil {
		return status{}, fmt.Errorf("stat file: %w", err)
	}
	return status{
		id:   identity{dev: x.Dev, ino: x.Ino},
		size: x.Size, links: uint64(x.Nlink), owner: x.Uid, kind: fileKind(x.Mode),
		mtime: x.Mtim.Nano(), ctime: x.Ctim.Nano(),
	}, nil
}

func fileKind(mode uint32) fs.FileMode {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return 0
	case unix.S_IFDIR:
		return fs.ModeDir
	case unix.S_IFLNK:
		return fs.ModeSymlink
	case unix.S_IFIFO:
		return fs.ModeNamedPipe
	case unix.S_IFSOCK:
		return fs.ModeSocket
	default:
		return fs.ModeDevice
	}
}

// openPlain opens a file for reading without following any link and without
// waiting for whatever it may turn out to be.
func openPlain(path string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC | unix.O_NOFOLLOW
	for {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_SYMLINKS})
		if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // before Linux 5.6, or a filter that does not know it
			fd, err = unix.Open(path, flags, 0)
		}
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case errors.Is(err, unix.EINTR):
		default:
			return nil, fmt.Errorf("open file: %w", err)
		}
	}
}

// local reports whether path is on a file system of this kernel's own, which
// tells of every change by an event. Others can change from elsewhere; an
// overlay tells nothing of a file that it copied up.
func local(path string) bool {
	var s unix.Statfs_t
	if unix.Statfs(path, &s) != nil {
		return false
	}
	switch int64(s.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}
	return false
}

// nextData returns where the next byte that is not in a hole lies, at or after
// offset; offset itself where the file system does not say.
func nextData(f *os.File, offset int64) int64 {
	next, err := unix.Seek(int(f.Fd()), offset, unix.SEEK_DATA)
	if err != nil || next < offset {
		return offset
	}
	return next
}

// outOfFiles reports whether err says that no more files can be opened.
func outOfFiles(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }
