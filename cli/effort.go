package cli

import (
	"runtime"
	"runtime/debug"
)

// effort returns what fits the Go runtime to the work. In a backlog it uses all
// processors. Without one it uses a single processor, so that a goroutine that
// wakes another does not wake a thread for it as well; and what the backlog, or
// the start, took of memory is given back.
func effort() func(backlog bool) {
	processors := runtime.GOMAXPROCS(0)
	return func(backlog bool) {
		if backlog {
			runtime.GOMAXPROCS(processors)
			return
		}
		runtime.GOMAXPROCS(1)
		debug.FreeOSMemory()
	}
}
