package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"reflect"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/openloganalytics/agent/agent/workspace"
)

// lookForConfig lies between two looks at the config file where the system does
// not tell of a change, or the file could not be read; else lookSeldom does, in
// case it was not told.
const (
	lookForConfig = time.Second
	lookSeldom    = time.Minute
)

// A configChangedError is why the agent begins anew: the config differs in more
// than its sources.
type configChangedError struct{ config *Config }

func (*configChangedError) Error() string { return "the config changed" }

// heed looks for another config until ctx ends. Other sources are brought
// about as the agent runs; for anything else it calls stop with a
// configChangedError.
func (r *roster) heed(ctx context.Context, stop context.CancelCauseFunc) {
	if r.o.Reread == nil {
		return
	}
	pause := lookSeldom
	changed, failed, forget, err := watchFolder(r.o.Layout.ConfigDir())
	defer forget()
	if err != nil {
		r.o.Log.Info("the system does not tell when the config changes; it is looked at every second", "error", err)
		pause = lookForConfig
	}
	var seen fs.FileInfo
	for {
		next := pause
		if info, err := os.Stat(r.o.Layout.ConfigFile()); err == nil && !sameFile(seen, info) {
			if r.reread(ctx, stop) {
				seen = info
			} else {
				next = lookForConfig
			}
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-changed:
		case err := <-failed: // something may not have been told
			r.o.Log.Debug("the system may not have told of a change of the config", "error", err)
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// watchFolder tells of changes in a folder until forget is called; with an error
// it tells of none.
func watchFolder(dir string) (changed <-chan fsnotify.Event, failed <-chan error, forget func(), err error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, nil, func() {}, err
	}
	if err := w.Add(dir); err != nil {
		return nil, nil, func() {}, errors.Join(err, w.Close())
	}
	return w.Events, w.Errors, func() { _ = w.Close() }, nil // nothing was written
}

// sameFile reports whether a file was neither replaced nor written.
func sameFile(a, b fs.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// reread obeys the config file as it is now; false when it is to be read again.
func (r *roster) reread(ctx context.Context, stop context.CancelCauseFunc) bool {
	config, err := r.o.Reread()
	if err != nil {
		r.o.Log.Error("cannot read the changed config; the agent goes on with the one that it has", "error", err)
		return false
	}
	r.mu.Lock()
	now := r.config
	r.mu.Unlock()
	if reflect.DeepEqual(config, now) {
		return true
	}
	if sourcesOnly(config, now) {
		err := r.obey(ctx, config)
		if err == nil || ctx.Err() != nil {
			return true
		}
		r.o.Log.Error("cannot change the sources", "error", err) // and so it cannot start with them
	}
	stop(&configChangedError{config})
	return true
}

// stored returns the configuration that the first workspace pushed last, so
// that the agent starts with it, with or without a network. One that makes no
// sense is set aside.
func stored(o Options) (document []byte, p *pushed) {
	first := o.Config.Workspaces[0].ID
	dir := o.Layout.WorkspaceDir(first)
	document, err := workspace.LoadConfiguration(dir)
	if document == nil && err == nil {
		return nil, nil
	}
	if err == nil {
		p, err = readPushed(document, first, o.Config.AnyFile)
	}
	if err == nil {
		return document, p
	}
	aside, failed := workspace.SetAsideConfiguration(dir, time.Now())
	o.Log.Warn("the stored configuration of the workspace is set aside", "error", err, "now", aside, "failed", failed)
	return nil, nil
}
