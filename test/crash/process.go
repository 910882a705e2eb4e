//go:build linux

package main

import "syscall"

// ownGroup gives a process a group of its own, so that it can be killed with
// all that it has started, and lets it end with this one.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) } // it may have ended
