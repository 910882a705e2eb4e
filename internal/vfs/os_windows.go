package vfs

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// noSpace and readOnly are how Windows says so.
var (
	noSpace  = []error{windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_DISK_QUOTA_EXCEEDED}
	readOnly = []error{windows.ERROR_WRITE_PROTECT}
)

// syncData makes the bytes and the length of f durable (FlushFileBuffers).
func syncData(f *os.File) error { return f.Sync() }

// syncDir has nothing to do: NTFS journals names, and FlushFileBuffers on a
// file takes the journal records of its name along.
func syncDir(string) error { return nil }

func free(path string) (uint64, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, &os.PathError{Op: "free space", Path: path, Err: err}
	}
	var available uint64
	if err := windows.GetDiskFreeSpaceEx(name, &available, nil, nil); err != nil {
		return 0, &os.PathError{Op: "free space", Path: path, Err: err}
	}
	return available, nil
}

func weakSync(path string) string {
	root, err := windows.UTF16PtrFromString(filepath.VolumeName(path) + `\`)
	if err != nil {
		return ""
	}
	switch windows.GetDriveType(root) {
	case windows.DRIVE_REMOTE:
		return "a network drive"
	case windows.DRIVE_RAMDISK:
		return "a drive in memory"
	}
	return ""
}
