package logfile

import "os"

// openFlags open for appending.
const openFlags = os.O_WRONLY | os.O_APPEND | os.O_CREATE
