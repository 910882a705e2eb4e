package syslogd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// away is added to the pipe's name while no agent reads it. An rsyslog that
// starts or reopens its files meanwhile finds no pipe, and keeps its messages.
// One that has the pipe open goes on with it when it is back under its name.
const away = ".away"

// Attach gives the pipe its name, for the agent to read it. Whoever starts the
// agent calls it before, with the rights to the pipe's folder, which the agent
// does not have.
func Attach(pipe string) error {
	if exists(pipe) {
		return nil
	}
	if err := os.Rename(pipe+away, pipe); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("attach pipe: %w", err)
	}
	return nil
}

// Detach takes the pipe's name away once the agent has ended.
func Detach(pipe string) error {
	if err := os.Rename(pipe, pipe+away); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("detach pipe: %w", err)
	}
	return nil
}

// removePipe removes the pipe, and nothing that is none.
func removePipe(pipe string) error {
	var failed error
	for _, path := range []string{pipe, pipe + away} {
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeNamedPipe {
			failed = errors.Join(failed, removeFile(path))
		}
	}
	return failed
}
