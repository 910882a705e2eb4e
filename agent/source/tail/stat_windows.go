package tail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

func statPath(path string) (status, error) { return statThrough(path, 0) }

func lstatPath(path string) (status, error) {
	return statThrough(path, windows.FILE_FLAG_OPEN_REPARSE_POINT)
}

func statThrough(path string, flags uint32) (status, error) {
	f, err := open(path, 0, flags|windows.FILE_FLAG_BACKUP_SEMANTICS)
	if err != nil {
		return status{}, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	return statFile(f)
}

func statFile(f *os.File) (status, error) {
	var x windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(windows.Handle(f.Fd()), &x); err != nil {
		return status{}, fmt.Errorf("stat file: %w", err)
	}
	s := status{
		id: identity{
			dev:   uint64(x.VolumeSerialNumber),
			ino:   uint64(x.FileIndexHigh)<<32 | uint64(x.FileIndexLow),
			birth: x.CreationTime.Nanoseconds(),
		},
		size:  int64(x.FileSizeHigh)<<32 | int64(x.FileSizeLow),
		mtime: x.LastWriteTime.Nanoseconds(),
		links: uint64(x.NumberOfLinks),
	}
	switch {
	case x.FileAttributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0:
		s.kind = fs.ModeSymlink
	case x.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0:
		s.kind = fs.ModeDir
	}
	return s, nil
}

// openPlain opens a file for reading and leaves others free to write, rename
// and delete it.
func openPlain(path string) (*os.File, error) {
	f, err := open(path, windows.GENERIC_READ, windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if err != nil {
		return nil, err
	}
	kind, err := windows.GetFileType(windows.Handle(f.Fd()))
	if err != nil || kind != windows.FILE_TYPE_DISK {
		_ = f.Close() // nothing was written
		return nil, errors.New("open file: not a file on a disk")
	}
	return f, nil
}

func open(path string, access, flags uint32) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	h, err := windows.CreateFile(name, access, share, nil, windows.OPEN_EXISTING, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	return os.NewFile(uintptr(h), path), nil
}

// nextData returns offset: holes are read as what they are, zeros.
func nextData(_ *os.File, offset int64) int64 { return offset }

// local reports whether events tell of every change at path: there are none.
func local(string) bool { return false }

// outOfFiles reports whether err says that no more files can be opened.
func outOfFiles(err error) bool { return errors.Is(err, syscall.EMFILE) }
