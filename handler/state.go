package handler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/internal/atomicfile"
)

// state is what one command leaves for the next, whatever version runs it.
type state struct {
	// Owner is the version that install or update named last, OwnerDir its
	// handler folder. Uninstall of another version leaves shared things alone.
	Owner    string `json:"owner"`
	OwnerDir string `json:"ownerDir,omitempty"`
	// Updating is when update named an owner that was not enabled since.
	Updating time.Time `json:"updating,omitzero"`

	// MachineID tells a captured image from the machine it was captured on.
	MachineID string    `json:"machineId,omitempty"`
	Installed time.Time `json:"installed,omitzero"`

	// What the service unit depends on.
	HandlerDir string `json:"handlerDir,omitempty"`
	CPUPercent int    `json:"cpuPercent,omitempty"`
	MemoryMB   int    `json:"memoryMB,omitempty"`
	ReadAll    bool   `json:"readAll,omitempty"`
	ReadsTmp   bool   `json:"readsTmp,omitempty"`
	ReadsHome  bool   `json:"readsHome,omitempty"`
	BindsLow   bool   `json:"bindsLow,omitempty"`

	// JournalSince is when the journal was chosen as the road of syslog.
	JournalSince string `json:"journalSince,omitempty"`

	// Missing is when the handler's folder was first found gone.
	Missing time.Time `json:"missing,omitzero"`

	// Generation of the config in force.
	Generation string `json:"generation,omitempty"`
	// Keys holds a digest of each workspace key that was handed to the agent,
	// so that the same key is not handed over twice.
	Keys map[string]string `json:"keys,omitempty"`

	// Where the reporter writes: the environment and number of the last enable.
	Reporting *reporting `json:"reporting,omitempty"`
}

// reporting is where the status of the settings in force is written.
type reporting struct {
	HandlerDir string `json:"handlerDir"`
	Extension  string `json:"extension,omitempty"`
	Sequence   int    `json:"sequence"`
	LogPath    string `json:"logPath"`
	// Notes are what enable had to say besides.
	Notes []string `json:"notes,omitempty"`
	// Failed says that enable ended in an error which the agent has to mend.
	Failed bool `json:"failed,omitempty"`
}

const stateLimit = 1 << 20

func (h *Handler) stateFile() string { return filepath.Join(h.Layout.HandlerDir(), "state.json") }

// loadState reads the state; a machine without one has the zero state.
func (h *Handler) loadState() (*state, error) {
	s := &state{}
	data, err := atomicfile.ReadLimited(h.stateFile(), stateLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read handler state: %w", err)
	}
	if json.Unmarshal(data, s) == nil {
		return s, nil
	}
	// All of it can be found out again by the next enable.
	if err := os.Rename(h.stateFile(), h.stateFile()+".unreadable"); err != nil {
		return nil, fmt.Errorf("set aside handler state %s: %w", h.stateFile(), err)
	}
	return &state{}, nil
}

func (h *Handler) saveState(s *state) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write handler state: %w", err)
	}
	if err := os.MkdirAll(h.Layout.HandlerDir(), 0o700); err != nil {
		return fmt.Errorf("write handler state: %w", err)
	}
	if err := atomicfile.Write(h.stateFile(), data, 0o600); err != nil {
		return fmt.Errorf("write handler state: %w", err)
	}
	return nil
}

// open takes the machine for a command that changes it: the state folder is
// there, locked, and read. unlock gives it back.
func (h *Handler) open(ctx context.Context) (s *state, unlock func(), err error) {
	if err := os.MkdirAll(h.Layout.StateDir(), 0o711); err != nil {
		return nil, nil, extension.WithCode(extension.ExitMissingDependency, fmt.Errorf("make state folder: %w; the folder has to be writable", err))
	}
	unlock, err = h.lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	if s, err = h.loadState(); err != nil {
		unlock()
		return nil, nil, err
	}
	return s, unlock, nil
}

// lock keeps two commands from overlapping. It locks the state folder itself,
// so that it needs neither disk space nor a file that could be left behind;
// without that folder there is nothing to protect.
func (h *Handler) lock(ctx context.Context) (unlock func(), err error) {
	l := flock.New(h.Layout.StateDir(), flock.SetFlag(os.O_RDONLY))
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_, err = l.TryLockContext(ctx, 100*time.Millisecond)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w; another command of this extension is at work", h.Layout.StateDir(), err)
	}
	return func() {
		// Nothing depends on the unlock: the lock ends with the process.
		_ = l.Close()
	}, nil
}
