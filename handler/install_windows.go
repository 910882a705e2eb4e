package handler

import (
	"fmt"

	"golang.org/x/sys/windows"
)

// roomFor says in a sentence when the disk has no room for mb more.
func (h *Handler) roomFor(mb uint64) error {
	dir := h.Layout.StateDir()
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	if free>>20 < mb {
		return fmt.Errorf("%d MB free on the disk of %s, %d MB needed; make room", free>>20, dir, mb)
	}
	return nil
}
