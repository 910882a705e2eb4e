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

	"github.com/openloganalytics/agent/handler/service"
	"github.com/openloganalytics/agent/handler/syslogd"
	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/logfile"
)

// Prepare is root's part of every start of the agent, whoever starts it: at
// boot that is the service manager, long before enable. It keeps the agent from
// starting with what belongs to the machine that an image was captured on, and
// makes what the agent needs and may not make.
func (h *Handler) Prepare(ctx context.Context, log *logfile.Logger) error {
	if err := h.leaveOtherMachine(ctx, log); err != nil {
		return fmt.Errorf("prepare the agent's start: %w", err)
	}
	if _, err := os.Stat(h.Layout.ConfigFile()); errors.Is(err, fs.ErrNotExist) {
		return errors.New("prepare the agent's start: it has no settings yet; the extension's enable command brings them")
	}
	uid, gid, err := h.account(ctx)
	if err == nil {
		err = h.folders(uid, gid)
	}
	if err == nil {
		err = syslogd.Attach(h.Layout.SyslogPipe())
	}
	if err != nil {
		return fmt.Errorf("prepare the agent's start: %w", err)
	}
	return nil
}

// leaveOtherMachine is knowMachine outside a command. A command that waits for
// this very start has the lock, and has known the machine before.
func (h *Handler) leaveOtherMachine(ctx context.Context, log *logfile.Logger) error {
	for {
		s, err := h.loadState()
		if err != nil {
			return err
		}
		if !h.onOtherMachine(s) {
			return nil
		}
		trying, cancel := context.WithTimeout(ctx, time.Second)
		s, unlock, err := h.open(trying)
		cancel()
		if ctx.Err() != nil || err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return errors.Join(err, ctx.Err())
		}
		if err != nil {
			continue
		}
		defer unlock()
		if err := h.knowMachine(s, log); err != nil {
			return err
		}
		return h.saveState(s)
	}
}

// Ended is root's part of every end of the agent. how says in words why it
// ended, and is empty for a stop that was asked for.
func (h *Handler) Ended(how string) error {
	err := syslogd.Detach(h.Layout.SyslogPipe())
	if how == "" {
		return err
	}
	data, failed := json.Marshal(end{time.Now().UTC(), how})
	if failed == nil {
		failed = atomicfile.Write(h.endFile(), data, 0o600)
	}
	return errors.Join(err, failed)
}

// An end is the last one of the agent's that nobody asked for. That it changed
// is what makes the service manager call Report.
type end struct {
	At  time.Time `json:"at"`
	How string    `json:"how"`
}

func (h *Handler) endFile() string { return filepath.Join(h.Layout.HandlerDir(), service.EndFile) }

// lastEnd returns the last end, zero when there was none.
func (h *Handler) lastEnd() end {
	var e end
	data, err := atomicfile.ReadLimited(h.endFile(), 64<<10)
	if err != nil || json.Unmarshal(data, &e) != nil {
		return end{}
	}
	return e
}
