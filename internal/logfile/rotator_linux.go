package logfile

import (
	"os"
	"syscall"
)

// openFlags open for appending; a symbolic link is refused, and a pipe does
// not make the opener wait.
const openFlags = os.O_WRONLY | os.O_APPEND | os.O_CREATE | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
