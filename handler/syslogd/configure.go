// Package rsyslog tells the machine's rsyslog to hand messages to the agent.
//
// It writes one file of its own into /etc/rsyslog.d, and touches no other. The
// messages go into a named pipe, with rsyslog's own ompipe: omuxsock, which
// sends to a Unix socket, throws away what it sends while the agent restarts,
// and omfwd would need a port. When nobody reads, the pipe is full and rsyslog
// keeps the messages in a queue on disk. In /var/log the pipe is where the
// AppArmor profile of Ubuntu and the SELinux policy of Red Hat let rsyslogd
// write.
package rsyslog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/internal/atomicfile"
)

// Options say what rsyslog hands on, and on which machine.
type Options struct {
	// Root is the folder that the machine's paths are below; "" is the machine
	// itself.
	Root string
	// Pipe is the path of the named pipe that the agent reads, Root included.
	// Configure makes it. Its folder is the caller's alone to write, because
	// rsyslogd would follow a link that lay there; everybody passes through it.
	Pipe string
	// UID owns the pipe: the agent's user.
	UID int
	// Selectors say which messages are wanted. Without any, Configure removes
	// the file.
	Selectors []syslog.Selector
	// Run runs a program and returns what it printed; nil does so.
	Run func(ctx context.Context, program string, args ...string) (output []byte, err error)
}

// A Result is what was done.
type Result struct {
	// Changed says that rsyslog obeys something else than before.
	Changed bool
	// Warning says in a sentence what a person should know, "" for nothing.
	Warning string
}

// file is the file that this package writes; pending, beside it, says that
// rsyslog was not restarted yet; check is tried out. Only *.conf is read by
// rsyslog, and nothing outside this folder when AppArmor confines it.
const (
	folder   = "/etc/rsyslog.d"
	filename = "95-" + name
	file     = folder + "/" + filename + ".conf"
	pending  = folder + "/" + filename + ".pending"
	check    = folder + "/" + filename + ".check"
)

// Configure makes rsyslog hand on what is selected, and nothing else of ours.
// The file is tried out with `rsyslogd -N1` before it takes its place; when
// rsyslog refuses it, or does not start with it, the former file stays. A
// machine without rsyslog is no error: Result.Warning says so.
func Configure(ctx context.Context, o Options) (Result, error) {
	wanted, err := syslog.Compile(o.Selectors)
	if err != nil {
		return Result{}, fmt.Errorf("configure rsyslog: %w", err)
	}
	if wanted == (syslog.Selection{}) {
		return Remove(ctx, o)
	}
	m, warning := find(o)
	if warning != "" {
		// The agent waits for messages all the same.
		if _, err := m.makePipe(); err != nil {
			return Result{}, fmt.Errorf("configure rsyslog: %w", err)
		}
		return Result{Warning: warning}, nil
	}
	result, err := m.configure(ctx, wanted)
	if err != nil {
		return Result{}, fmt.Errorf("configure rsyslog: %w", err)
	}
	return result, nil
}

func (m *machine) configure(ctx context.Context, wanted syslog.Selection) (Result, error) {
	former, err := m.former()
	if err == nil {
		err = m.clean()
	}
	if err != nil {
		return Result{}, err
	}
	if strings.ContainsAny(m.opts.Pipe, "\"\\\n\r\x00") {
		return Result{}, fmt.Errorf("the path of the pipe, %q, has a character that rsyslog cannot read", m.opts.Pipe)
	}
	remade, err := m.makePipe()
	if err != nil {
		return Result{}, err
	}
	text := []byte(dropin(name, m.opts.Pipe, wanted, m.workDirectory != ""))
	if bytes.Equal(text, former) && !remade && !exists(m.path(pending)) {
		return Result{}, nil
	}
	var warnings []string
	if m.workDirectory == "" {
		warnings = append(warnings, "rsyslog has no work directory, so messages wait in memory alone while the agent is stopped; "+
			"set $WorkDirectory in "+mainFile)
	}
	faults, err := m.try(ctx, dropin(name+"-check", m.opts.Pipe, wanted, m.workDirectory != ""))
	if err != nil {
		return Result{}, err
	}
	undone, err := m.replace(ctx, former, text)
	if err != nil {
		return Result{}, err
	}
	for _, warning := range []string{faults, undone} {
		if warning != "" {
			warnings = append(warnings, warning)
		}
	}
	return Result{Changed: true, Warning: strings.Join(warnings, "; ")}, nil
}

// Remove takes away all that Configure made: the file, the pipe, and what is
// left in the queue. It succeeds when there is nothing.
func Remove(ctx context.Context, o Options) (Result, error) {
	result, err := remove(ctx, o)
	if err != nil {
		return Result{}, fmt.Errorf("remove rsyslog configuration: %w", err)
	}
	return result, nil
}

func remove(ctx context.Context, o Options) (result Result, err error) {
	m, _ := find(o) // without rsyslog there can still be our files
	former, err := m.former()
	switch {
	case errors.Is(err, errNotOurs):
	case err != nil:
		return Result{}, err
	case former != nil:
		// By one rename the file is gone and the restart is noted, on a full
		// disk as well.
		if err := os.Rename(m.path(file), m.path(pending)); err != nil {
			return Result{}, err
		}
	}
	if exists(m.path(pending)) {
		result.Changed = true
		if result.Warning, err = m.restart(ctx); err != nil {
			result.Warning = fmt.Sprintf("the agent's configuration of rsyslog is removed, but %v", err)
		}
	}
	return result, errors.Join(removeFile(m.path(pending)), removeFile(m.path(check)), m.clean(), m.removePipe(), m.removeQueue())
}

// clean deletes what a killed command left half-written.
func (m *machine) clean() error { return atomicfile.Clean(m.path(folder), filename, 0) }

// errNotOurs is the cause when somebody else's file has our file's name.
var errNotOurs = errors.New("was not written by the agent and is left alone; move it away")

// former returns our file as it is, nil when there is none.
func (m *machine) former() ([]byte, error) {
	text, err := atomicfile.ReadLimited(m.path(file), 1<<20)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !bytes.HasPrefix(text, []byte(marker)):
		return nil, fmt.Errorf("%s %w", file, errNotOurs)
	}
	return text, nil
}

// replace puts text in the place of our file, which was former, and restarts
// rsyslog. When that fails, former is put back.
func (m *machine) replace(ctx context.Context, former, text []byte) (warning string, err error) {
	// A crash before the restart is made good by the next Configure.
	if err := atomicfile.Write(m.path(pending), []byte(marker), 0o644); err != nil {
		return "", err
	}
	if err := atomicfile.Write(m.path(file), text, 0o644); err != nil {
		return "", err
	}
	if warning, err = m.restart(ctx); err != nil {
		if back := m.putBack(ctx, former); back != nil {
			return "", errors.Join(err, fmt.Errorf("put back the former configuration: %w", back))
		}
		err = fmt.Errorf("%w; the former configuration is back", err)
	}
	return warning, errors.Join(err, removeFile(m.path(pending)))
}

func (m *machine) putBack(ctx context.Context, former []byte) (err error) {
	if former == nil {
		err = removeFile(m.path(file))
	} else {
		err = atomicfile.Write(m.path(file), former, 0o644)
	}
	if err == nil {
		_, err = m.restart(ctx)
	}
	return err
}

// try holds the file against rsyslog's own check, together with the rest of
// the machine's configuration. The warning is about faults of the latter.
func (m *machine) try(ctx context.Context, text string) (warning string, err error) {
	const whole = "$IncludeConfig " // older than include(), and read by all versions
	ours := m.validate(ctx, whole+m.path(mainFile)+"\n"+text)
	if ours == nil {
		return "", nil
	}
	machine := m.validate(ctx, whole+m.path(mainFile)+"\n")
	if machine == nil {
		return "", fmt.Errorf("rsyslog refuses the new file: %w", ours)
	}
	if alone := m.validate(ctx, text); alone != nil {
		return "", fmt.Errorf("rsyslog refuses the new file: %w", alone)
	}
	return fmt.Sprintf("rsyslog finds faults in this machine's configuration, which are not the agent's: %v", machine), nil
}

// validate runs rsyslogd's check of a configuration. The file is in rsyslog's
// folder because rsyslogd, when it is confined, can read no other.
func (m *machine) validate(ctx context.Context, text string) (err error) {
	if err := atomicfile.Write(m.path(check), []byte(marker+text), 0o644); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeFile(m.path(check))) }()
	output, err := m.run(ctx, checkTimeout, m.rsyslogd, "-N1", "-f", m.path(check))
	if err != nil {
		return fmt.Errorf("%w: %s", err, complaint(output))
	}
	return nil
}

// complaint returns what rsyslogd printed in one line, without the lines that
// it always prints.
func complaint(output []byte) string {
	const limit = 400
	var parts []string
	for line := range strings.Lines(string(output)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "rsyslogd: ")
		if line != "" && !strings.HasPrefix(line, "version ") && !strings.HasPrefix(line, "End of config") {
			parts = append(parts, line)
		}
	}
	text := strings.ToValidUTF8(strings.Join(parts, "; "), "?")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}
