package agent

import "os"

// allocation is what a file takes on a disk that gives out 4 KiB at a time.
func allocation(info os.FileInfo) int64 { return (info.Size() + 4095) &^ 4095 }
