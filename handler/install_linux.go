package handler

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// roomFor says in a sentence when the disk has no room for mb more, or takes
// no files at all.
func (h *Handler) roomFor(mb uint64) error {
	dir := h.Layout.StateDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("%s is on a read-only file system; mount it read-write", dir)
	}
	free := fs.Bavail * uint64(fs.Bsize) >> 20
	if free < mb {
		return fmt.Errorf("%d MB free on the disk of %s, %d MB needed; make room", free, dir, mb)
	}
	if fs.Files > 0 && fs.Ffree < 100 {
		return fmt.Errorf("%d inodes free on the disk of %s, 100 needed; delete small files", fs.Ffree, dir)
	}
	return nil
}
