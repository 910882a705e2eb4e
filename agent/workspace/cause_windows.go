package workspace

import "golang.org/x/sys/windows"

// What the system calls the ways in which a connection is not made.
const (
	errRefused         = windows.WSAECONNREFUSED
	errHostUnreachable = windows.WSAEHOSTUNREACH
	errNetUnreachable  = windows.WSAENETUNREACH
)
