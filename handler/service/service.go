// Package service keeps the agent's `run` alive: with systemd where it is the
// init system, with a supervisor of our own elsewhere, with the service
// manager on Windows.
package service

import (
	"context"
	"time"
)

// A Unit is the long-running agent as a service manager needs to know it.
type Unit struct {
	Name     string // log-analytics-agent
	Binary   string // absolute path, without a version in it
	User     string // the unprivileged user; empty runs as the caller
	Group    string
	Groups   []string // supplementary groups that exist on this machine
	StateDir string   // the only folder, with RunDir and LogDir, that it writes
	RunDir   string
	LogDir   string
	ReadDir  string // configuration, read only
	// HandlerDir is the extension's folder. When it vanished without an
	// uninstall the service stops and disables itself. Empty outside Azure.
	HandlerDir string
	CPUPercent int // of one core; 0 is no ceiling
	MemoryMB   int
	// ReadAll gives the capability to read files of other users, for custom
	// logs that need it.
	ReadAll bool
	// BindLow gives the capability to listen on a port below 1024, for a
	// configured listener.
	BindLow bool
	// PrivateTmp, ProtectHome are off when a configured path lies there.
	PrivateTmp  bool
	ProtectHome bool
}

// EndFile is the name of the file, in the handler's folder, that the end of the
// agent changes when nobody asked for it. systemd watches it.
const EndFile = "agent-ended.json"

// State is what a manager knows of the service.
type State struct {
	Running  bool
	PID      int
	Since    time.Time
	Restarts int
	// Group is the control group, to tell a service that sits in the guest
	// agent's own.
	Group string
}

// A Manager installs, starts and removes the service. Every method is safe to
// repeat, and Stop and Remove succeed when there is nothing.
type Manager interface {
	// Kind is "systemd", "supervisor" or "windows".
	Kind() string
	// Install makes the machine match u and reports whether anything changed.
	Install(ctx context.Context, u Unit) (changed bool, err error)
	// Start makes sure that the service runs, now and after a reboot.
	Start(ctx context.Context, u Unit) error
	// Restart stops and starts it.
	Restart(ctx context.Context, u Unit) error
	// Stop ends it and its reporter within ctx, and keeps it from starting at boot.
	Stop(ctx context.Context, u Unit) error
	// Remove deletes all that Install made.
	Remove(ctx context.Context, u Unit) error
	// Status asks for the state; a service that is not installed is not running.
	Status(ctx context.Context, u Unit) (State, error)
}
