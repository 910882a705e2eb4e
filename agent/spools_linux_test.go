package agent

import (
	"os"
	"syscall"
)

// allocation is what a file takes on the disk, in bytes.
func allocation(info os.FileInfo) int64 { return info.Sys().(*syscall.Stat_t).Blocks * 512 }
