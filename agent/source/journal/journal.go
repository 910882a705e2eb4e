// Package journal is the source of syslog messages on machines without a
// syslog daemon: it reads the files of systemd's journal.
//
// It reads them itself. Neither libsystemd nor journalctl is needed, and a
// damaged file costs the entries that are damaged.
//
// Every file has a place of its own, the number of the last entry that was read
// of it, so no clock decides what was read. journald counts its entries, over
// all files and without a gap. A gap in what was read therefore is entries that
// were deleted before: it is told as lost, with the exact number.
package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/internal/logfile"
)

// Options say what is read.
type Options struct {
	// Volatile and Persistent are the folders with the files of this machine's
	// journal: /run/log/journal/ID, and /var/log/journal/ID, into which journald
	// moves when that can be written. Either may be missing.
	Volatile, Persistent string
	// Since names the time from which on the journal is read. With another one
	// than before the source begins anew.
	Since string
	// BootID is the present boot's id, and Uptime tells how long it lasts, by
	// the clock that journald uses (CLOCK_MONOTONIC).
	BootID string
	Uptime func() time.Duration

	// Selectors, Security, Hostname and Addresses are as for the syslog daemon's
	// messages.
	Selectors []syslog.Selector
	Security  []syslog.Selector
	Hostname  string
	Addresses func() []string

	Log *logfile.Logger
	Now func() time.Time // time.Now if nil
}

// firstLook is how much of the present boot is read at the very first start:
// what happened while the machine was set up, and not what an old machine has
// gathered.
const firstLook = time.Hour

// name is the source's, and begins the keys of its places.
const name = "journal"

// A Source reads the journal.
type Source struct {
	opts Options
	boot id
}

var _ source.Source = (*Source)(nil)

// New checks the options and returns the source.
func New(o Options) (*Source, error) {
	s := &Source{opts: o}
	if err := s.boot.parse(o.BootID); err != nil {
		return nil, fmt.Errorf("open journal: read boot id: %w", err)
	}
	if _, err := syslog.NewGroup(s.groupOptions()); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if s.opts.Now == nil {
		s.opts.Now = time.Now
	}
	return s, nil
}

func (s *Source) groupOptions() syslog.Options {
	return syslog.Options{Selectors: s.opts.Selectors, Security: s.opts.Security, Hostname: s.opts.Hostname, Addresses: s.opts.Addresses, Now: s.opts.Now}
}

// Name returns "journal".
func (s *Source) Name() string { return name }

// Run reads until ctx ends.
func (s *Source) Run(ctx context.Context, out source.Emitter) error {
	f, err := s.follower(out)
	if err != nil {
		return err
	}
	defer f.close()
	changed, stop := s.watch()
	defer stop()
	for quiet := false; ; {
		f.scan()
		if err := f.drain(ctx, quiet); err != nil || ctx.Err() != nil {
			return ignoreEnd(ctx, err)
		}
		if quiet, err = wait(ctx, changed, lookEvery); err != nil {
			return nil //nolint:nilerr // ctx ended
		}
	}
}

// lookEvery is how long the folders go unlooked at when nothing tells of a
// change in them.
const lookEvery = 10 * time.Second

// gather is how long after a change more of them gather. journald itself tells
// of changes four times a second at most.
const gather = 20 * time.Millisecond

// ignoreEnd returns nil when ctx ended: that is what a source has to do then.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it is because ctx ended
	}
	return err
}

// wait waits until something changed. quiet says that nothing did for as long
// as most.
func wait(ctx context.Context, changed <-chan struct{}, most time.Duration) (quiet bool, err error) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-timer.C:
		return true, nil
	case <-changed:
	}
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-time.After(gather):
		return false, nil
	}
}

// watch returns a channel that tells of changes in the folders. What cannot be
// watched is looked at now and then all the same.
func (s *Source) watch() (changed <-chan struct{}, stop func()) {
	wake := make(chan struct{}, 1)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		s.opts.Log.Warn("cannot watch the journal; it is looked at every ten seconds", "error", err)
		return wake, func() {}
	}
	// The folders above, because journald makes its own when it moves.
	for _, dir := range s.folders() {
		for _, dir := range []string{dir, filepath.Dir(dir)} {
			if err := watcher.Add(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				s.opts.Log.Warn("cannot watch the journal; it is looked at every ten seconds", "folder", dir, "error", err)
			}
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case event, ok := <-watcher.Events:
				if !ok {
					return
				}
				if event.Has(fsnotify.Create) {
					s.watchNew(watcher, event.Name)
				}
			case _, ok := <-watcher.Errors: // an overflow is a change as well
				if !ok {
					return
				}
			}
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	}()
	return wake, func() {
		_ = watcher.Close() // ends the goroutine; there is nothing to lose
		<-done
	}
}

// watchNew begins to watch one of the folders when it came to be.
func (s *Source) watchNew(watcher *fsnotify.Watcher, path string) {
	for _, dir := range s.folders() {
		if path != dir {
			continue
		}
		if err := watcher.Add(dir); err != nil {
			s.opts.Log.Warn("cannot watch the journal; it is looked at every ten seconds", "folder", dir, "error", err)
		}
	}
}

func (s *Source) folders() []string {
	var dirs []string
	for _, dir := range []string{s.opts.Volatile, s.opts.Persistent} {
		if dir != "" {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// A cursor is the place in the journal as a whole: the last entry that was read.
// Places in files say what to read next; the cursor says what is missing.
type cursor struct {
	Since     string `json:"since"` // see Options
	SeqnumID  id     `json:"seqnumId"`
	Seqnum    uint64 `json:"seqnum"` // the highest that was read; 0 before the first
	Boot      id     `json:"boot"`
	Monotonic uint64 `json:"monotonic"` // µs
	Realtime  uint64 `json:"realtime"`  // µs since 1970
	// The same of the last entry in the volatile folder. Its entries are copied,
	// with new numbers, when journald moves to the persistent one.
	VolatileBoot      id     `json:"volatileBoot,omitzero"`
	VolatileMonotonic uint64 `json:"volatileMonotonic,omitempty"`
}

// A place is how far one file was read.
type place struct {
	Seqnum   uint64 `json:"seqnum"` // of the last entry that was read; 0 for none
	Volatile bool   `json:"volatile,omitempty"`
}

// MarshalText implements encoding.TextMarshaler.
func (i id) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *id) UnmarshalText(text []byte) error { return i.parse(string(text)) }

func checkpoint(key string, value any) source.Checkpoint {
	data, err := json.Marshal(value)
	if err != nil {
		panic("BUG: a place is strings and numbers only: " + err.Error())
	}
	return source.Checkpoint{Key: key, Value: data}
}
