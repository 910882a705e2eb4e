package workspace

import "syscall"

// What the system calls the ways in which a connection is not made.
const (
	errRefused         = syscall.ECONNREFUSED
	errHostUnreachable = syscall.EHOSTUNREACH
	errNetUnreachable  = syscall.ENETUNREACH
)
