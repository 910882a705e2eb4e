// Package syslogd tells the machine's syslog daemon to hand messages to the
// agent: rsyslog or syslog-ng.
//
// It writes one file of its own into the daemon's folder for such files, and
// touches no other. The file is tried out with the daemon's own check before
// it takes its place. Messages that the agent does not take wait in a queue of
// the daemon's, on disk where it can.
package syslogd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/internal/atomicfile"
)

// Options say what the daemon hands on, and on which machine.
type Options struct {
	// Daemon is the daemon's name: RSyslog or SyslogNG. See Choose.
	Daemon string
	// Root is the folder that the machine's paths are below; "" is the machine
	// itself.
	Root string
	// Pipe is the path of the named pipe that the agent reads, Root included, for
	// rsyslog. Configure makes it. Its folder is the caller's alone to write, because
	// rsyslogd would follow a link that lay there; everybody passes through it.
	Pipe string
	// UID owns the pipe: the agent's user.
	UID int
	// Socket is the path of the Unix stream socket that the agent listens on, for
	// syslog-ng. The agent makes it.
	Socket string
	// Selectors say which messages are wanted. Without any, Configure removes
	// the file.
	Selectors []syslog.Selector
	// Run runs a program and returns what it printed; nil does so.
	Run func(ctx context.Context, program string, args ...string) (output []byte, err error)
}

// A Result is what was done.
type Result struct {
	// Changed says that the daemon obeys something else than before.
	Changed bool
	// Warning says in a sentence what a person should know, "" for nothing.
	Warning string
}

// Configure makes the daemon hand on what is selected, and nothing else of ours;
// another daemon hands on nothing any more. The file is tried out before it
// takes its place; when the daemon refuses it, or does not start with it, the
// former file stays. A machine without the daemon is no error: Result.Warning
// says so.
func Configure(ctx context.Context, o Options) (Result, error) {
	wanted, err := syslog.Compile(o.Selectors)
	if err != nil {
		return Result{}, fmt.Errorf("configure %s: %w", o.Daemon, err)
	}
	if wanted == (syslog.Selection{}) {
		return Remove(ctx, o)
	}
	var result Result
	for _, m := range machines(o) {
		var one Result
		if m.name == o.Daemon {
			one, err = m.configure(ctx, wanted)
		} else {
			one, err = m.remove(ctx)
		}
		if err != nil {
			return Result{}, fmt.Errorf("configure %s: %w", m.name, err)
		}
		result = result.and(one)
	}
	return result, nil
}

// and is what two daemons were told.
func (r Result) and(other Result) Result {
	r.Changed = r.Changed || other.Changed
	r.Warning = joined(r.Warning, other.Warning)
	return r
}

// joined joins the sentences that are not empty.
func joined(sentences ...string) string {
	return strings.Join(slices.DeleteFunc(sentences, func(s string) bool { return s == "" }), "; ")
}

func (m *machine) configure(ctx context.Context, wanted syslog.Selection) (Result, error) {
	if warning := m.find(); warning != "" {
		// The agent waits for messages all the same.
		_, _, err := m.daemon.prepare(m)
		return Result{Warning: warning}, err
	}
	former, err := m.former()
	if err == nil {
		err = m.clean()
	}
	if err != nil {
		return Result{}, err
	}
	remade, warning, err := m.daemon.prepare(m)
	if err != nil {
		return Result{}, err
	}
	text := []byte(marker + m.daemon.text(m, name, wanted))
	if bytes.Equal(text, former) && !remade && !exists(m.path(m.pending())) {
		return Result{}, nil
	}
	faults, err := m.try(ctx, m.daemon.text(m, name+"-check", wanted))
	if err != nil {
		return Result{}, err
	}
	undone, err := m.replace(ctx, former, text)
	if err != nil {
		return Result{}, err
	}
	return Result{Changed: true, Warning: joined(warning, faults, undone)}, nil
}

// Remove takes away all that Configure made: the file, the pipe, and what is
// left in the queue. It succeeds when there is nothing.
func Remove(ctx context.Context, o Options) (Result, error) {
	var result Result
	var errs []error
	for _, m := range machines(o) {
		one, err := m.remove(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("remove %s configuration: %w", m.name, err))
		}
		result = result.and(one)
	}
	if err := errors.Join(errs...); err != nil {
		return Result{}, err
	}
	return result, nil
}

func (m *machine) remove(ctx context.Context) (result Result, err error) {
	_ = m.find() // without the daemon there can still be our files
	former, err := m.former()
	switch {
	case errors.Is(err, errNotOurs):
	case err != nil:
		return Result{}, err
	case former != nil:
		// By one rename the file is gone and the restart is noted, on a full
		// disk as well.
		if err := os.Rename(m.path(m.file()), m.path(m.pending())); err != nil {
			return Result{}, err
		}
	}
	if exists(m.path(m.pending())) {
		result.Changed = true
		if result.Warning, err = m.restart(ctx); err != nil {
			result.Warning = fmt.Sprintf("the agent's configuration of %s is removed, but %v", m.name, err)
		}
	}
	return result, errors.Join(removeFile(m.path(m.pending())), removeFile(m.path(m.check())), m.clean(), m.daemon.remove(m))
}

// marker begins every file that this package writes, and no other.
const marker = "# Written by log-analytics-agent, which overwrites changes. Rules of your own go into another file.\n"

// name is what the template, the action and the queue's files are called.
const name = "log-analytics-agent"

// clean deletes what a killed command left half-written.
func (m *machine) clean() error { return atomicfile.Clean(m.path(m.folder), filename, 0) }

// errNotOurs is the cause when somebody else's file has our file's name.
var errNotOurs = errors.New("was not written by the agent and is left alone; move it away")

// former returns our file as it is, nil when there is none.
func (m *machine) former() ([]byte, error) {
	text, err := atomicfile.ReadLimited(m.path(m.file()), 1<<20)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !bytes.HasPrefix(text, []byte(marker)):
		return nil, fmt.Errorf("%s %w", m.file(), errNotOurs)
	}
	return text, nil
}

// replace puts text in the place of our file, which was former, and restarts
// the daemon. When that fails, former is put back.
func (m *machine) replace(ctx context.Context, former, text []byte) (warning string, err error) {
	// A crash before the restart is made good by the next Configure.
	if err := atomicfile.Write(m.path(m.pending()), []byte(marker), 0o644); err != nil {
		return "", err
	}
	if err := atomicfile.Write(m.path(m.file()), text, 0o644); err != nil {
		return "", err
	}
	if warning, err = m.restart(ctx); err != nil {
		if back := m.putBack(ctx, former); back != nil {
			return "", errors.Join(err, fmt.Errorf("put back the former configuration: %w", back))
		}
		err = fmt.Errorf("%w; the former configuration is back", err)
	}
	return warning, errors.Join(err, removeFile(m.path(m.pending())))
}

func (m *machine) putBack(ctx context.Context, former []byte) (err error) {
	if former == nil {
		err = removeFile(m.path(m.file()))
	} else {
		err = atomicfile.Write(m.path(m.file()), former, 0o644)
	}
	if err == nil {
		_, err = m.restart(ctx)
	}
	return err
}

// try holds the file against the daemon's own check, together with the rest of
// the machine's configuration. The warning is about faults of the latter.
func (m *machine) try(ctx context.Context, text string) (warning string, err error) {
	ours := m.validate(ctx, m.daemon.whole(m)+text)
	if ours == nil {
		return "", nil
	}
	machine := m.validate(ctx, m.daemon.whole(m))
	if machine == nil {
		return "", fmt.Errorf("%s refuses the new file: %w", m.name, ours)
	}
	if alone := m.daemon.alone(m, text); alone != "" {
		if err := m.validate(ctx, alone); err != nil {
			return "", fmt.Errorf("%s refuses the new file: %w", m.name, err)
		}
	}
	return fmt.Sprintf("%s finds faults in this machine's configuration, which are not the agent's: %v", m.name, machine), nil
}

// validate runs the daemon's check of a configuration. The file is in the
// daemon's folder because the daemon, when it is confined, can read no other.
func (m *machine) validate(ctx context.Context, text string) (err error) {
	if err := atomicfile.Write(m.path(m.check()), []byte(marker+text), 0o644); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeFile(m.path(m.check()))) }()
	output, err := m.run(ctx, checkTimeout, m.program, append(m.checkArgs, m.path(m.check()))...)
	if err != nil {
		return fmt.Errorf("%w: %s", err, complaint(output))
	}
	return nil
}

// complaint returns what a daemon printed in one line, without the lines that
// rsyslogd always prints, and without warnings.
func complaint(output []byte) string {
	const limit = 400
	var parts []string
	for line := range strings.Lines(string(output)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "rsyslogd: ")
		if line != "" && !strings.HasPrefix(line, "version ") && !strings.HasPrefix(line, "End of config") && !strings.Contains(line, "] WARNING: ") {
			parts = append(parts, line)
		}
	}
	text := strings.ToValidUTF8(strings.Join(parts, "; "), "?")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}
