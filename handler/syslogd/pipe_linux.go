package syslogd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// pipeMode lets the agent, who owns the pipe, and rsyslogd's group open it.
const pipeMode = 0o660

// makePipe makes the pipe, or what it is not like it should be. remade says
// that rsyslogd may hold another one open. Nothing is done by name to what
// somebody may have put there instead.
func makePipe(path string, uid, gid int) (remade bool, err error) {
	if !exists(path) && exists(path+away) {
		path += away
	} else if err := unix.Mkfifo(path, 0o600); err == nil {
		remade = true
	} else if !errors.Is(err, unix.EEXIST) {
		return false, fmt.Errorf("make pipe %s: %w", path, err)
	}
	pipe, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, fmt.Errorf("open pipe: %w", err)
	}
	defer func() { err = errors.Join(err, pipe.Close()) }()
	info, err := pipe.Stat()
	if err != nil {
		return false, err
	}
	if info.Mode().Type() != fs.ModeNamedPipe {
		return false, fmt.Errorf("%s is no pipe and is left alone; move it away", path)
	}
	if os.Geteuid() == 0 { // else it is the caller's own, for a trial
		if err := pipe.Chown(uid, gid); err != nil {
			return false, err
		}
	}
	return remade, pipe.Chmod(pipeMode)
}

// sameOwner gives a file the owner that another one has.
func sameOwner(path, as string) error {
	var stat unix.Stat_t
	if err := unix.Stat(as, &stat); err != nil {
		return fmt.Errorf("look at %s: %w", as, err)
	}
	return os.Lchown(path, int(stat.Uid), int(stat.Gid))
}
