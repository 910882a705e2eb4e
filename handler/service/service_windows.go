package service

import (
	"context"
	"errors"
	"os"

	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
)

// errWindows is the answer of everything here.
var errWindows = errors.New("the Windows service is not supported by this version")

// windowsService is the seam for the Windows service manager.
type windowsService struct{}

// Detect returns the manager for this machine.
func Detect(paths.Layout) Manager { return windowsService{} }

func (windowsService) Kind() string                                { return "windows" }
func (windowsService) Install(context.Context, Unit) (bool, error) { return false, errWindows }
func (windowsService) Start(context.Context, Unit) error           { return errWindows }
func (windowsService) Restart(context.Context, Unit) error         { return errWindows }
func (windowsService) Stop(context.Context, Unit) error            { return nil } // nothing can run
func (windowsService) Remove(context.Context, Unit) error          { return nil }
func (windowsService) Status(context.Context, Unit) (State, error) { return State{}, nil }

// EnsureUser is not needed: the service runs as an account that Windows makes.
func EnsureUser(context.Context, string, string) (uid, gid int, err error) { return -1, -1, nil }

// RemoveUser has nothing to remove.
func RemoveUser(context.Context, string) error { return nil }

// LogGroups are groups of Unix.
func LogGroups() []string { return nil }

// SuperviseOptions is what the supervisor needs to know.
type SuperviseOptions struct {
	Layout  paths.Layout
	Prepare func(context.Context) error
	Ended   func(how string) error
	Report  func(context.Context) error
	Log     *logfile.Logger
}

// Supervise is for machines without a service manager, which Windows has.
func Supervise(context.Context, SuperviseOptions) error { return errWindows }

// Vanished reports whether the handler's folder is gone.
func Vanished(u Unit) bool {
	_, err := os.Stat(u.HandlerDir)
	return u.HandlerDir != "" && errors.Is(err, os.ErrNotExist)
}
