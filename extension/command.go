package extension

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/openloganalytics/agent/internal/logfile"
)

// Sentinels with which a command says that there was nothing for it to do. It
// counts as a success, and the status that stood before it stands again.
var (
	ErrAlreadyApplied = errors.New("the settings are in force already")
	ErrSuperseded     = errors.New("newer settings took over")
)

// A Command is one verb of the guest agent's contract. Running it twice leaves
// the machine as running it once.
type Command struct {
	// Name is the verb: install, enable, disable, update, uninstall.
	Name string
	// Reports says that the command has a status of its own: transitioning
	// while it runs and success at its end. The others leave enable's status
	// in peace unless they fail.
	Reports bool
	// NeedsSequence says that there must be settings.
	NeedsSequence bool
	// Timeout ends the command. 0 is a minute less than the guest agent gives.
	Timeout time.Duration
	// FailCode is the exit code of an error that has none of its own. 0 is
	// ExitFailed.
	FailCode int
	// Run does the work. It ends soon after ctx does.
	Run func(ctx context.Context, x *Invocation) error
}

// An Invocation is one run of one command: what the guest agent said, and where
// to answer. Env is nil when HandlerEnvironment.json cannot be read, which must
// not keep anybody from uninstalling.
type Invocation struct {
	Env    *Environment
	Guest  GuestAgent
	Seq    int // valid when HasSeq
	HasSeq bool

	Log     *logfile.Logger
	LogPath string // for the messages that people see
	Events  *EventWriter
	Stderr  io.Writer // the guest agent shows its first 3,200 bytes
	Now     func() time.Time

	// Status is set by Execute; nil, which is safe to use, when there is no
	// number to report for.
	Status *Reporter
}

// Execute runs the command and returns the exit code. It ends when ctx does: a
// signal reaches the command as its end, and the message tells its cause.
//
// When Execute returns, the goroutine of a command that did not heed the end of
// its context may still run; the process is expected to exit.
func Execute(ctx context.Context, cmd Command, x *Invocation) (exitCode int) {
	ctx, cancel := context.WithTimeoutCause(ctx, cmd.timeout(), fmt.Errorf("not done within %v", cmd.timeout()))
	defer cancel()

	if x.HasSeq && x.Env != nil {
		x.Status = NewReporter(x.Env, x.Guest.ExtensionName, x.Seq, cmd.title(), x.LogPath, x.Now)
	}
	began := x.Now()
	log := x.Log.With("command", cmd.Name)
	log.Info("command begins", "version", x.Guest.ExtensionVersion, "sequence", x.Seq, "hasSequence", x.HasSeq)
	if cmd.Reports {
		if err := x.Status.Begin(cmd.title() + " began."); err != nil {
			log.Warn("status not written", "error", err)
		}
	}
	err := cmd.perform(ctx, x)

	code, message := cmd.outcome(err)
	if unwritten := cmd.report(x.Status, err, code, message); unwritten != nil {
		message += " (" + unwritten.Error() + ")"
		if code == ExitOK {
			code = cmd.failCode()
		}
	}
	if code == ExitOK {
		log.Info("command ended", "message", message, "took", x.Now().Sub(began))
		x.Events.Log(LevelInformational, cmd.title(), message)
		return code
	}
	log.Error("command failed", "message", message, "code", code, "took", x.Now().Sub(began))
	x.Events.Log(LevelError, cmd.title(), message)
	x.complain(message)
	return code
}

// stopGrace is what a command has to put things in order once its context
// ended. It is part of the minute by which Execute is ahead of the guest agent.
const stopGrace = 15 * time.Second

// perform runs the command to its end, or to the end of ctx and the grace.
func (c Command) perform(ctx context.Context, x *Invocation) error {
	if c.NeedsSequence && !x.HasSeq {
		return ErrNoSettings
	}
	done := make(chan error, 1)
	go func() { done <- c.guarded(ctx, x) }()

	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		grace := time.NewTimer(stopGrace)
		defer grace.Stop()
		select {
		case err = <-done:
		case <-grace.C:
			err = fmt.Errorf("it did not stop when told to: %w", ctx.Err())
		}
	}
	if ended := ctx.Err(); ended != nil && errors.Is(err, ended) {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

// guarded runs the command and makes an error of a panic. The stack goes to the
// log. Of the value only what the runtime says is kept: any other may hold what
// must not be printed.
func (c Command) guarded(ctx context.Context, x *Invocation) (err error) {
	defer func() {
		value := recover()
		if value == nil {
			return
		}
		err = fmt.Errorf("internal error, panic of type %T; please report it with the log", value)
		if fault, ok := value.(runtime.Error); ok {
			err = fmt.Errorf("internal error, %w; please report it with the log", fault)
		}
		x.Log.Error("panic", "command", c.Name, "stack", string(debug.Stack()))
	}()
	return c.Run(ctx, x)
}

// outcome is the exit code and the message for the error a command ended with.
func (c Command) outcome(err error) (code int, message string) {
	switch {
	case err == nil:
		return ExitOK, c.title() + " succeeded."
	case nothingToDo(err):
		return ExitOK, fmt.Sprintf("%s had nothing to do: %v.", c.title(), err)
	default:
		return codeOf(err, c.failCode()), fmt.Sprintf("%s failed: %v", c.title(), err)
	}
}

// report leaves a terminal status, unless the command has left a fitting one.
func (c Command) report(status *Reporter, err error, code int, message string) error {
	last := status.lastWritten()
	switch {
	case nothingToDo(err):
		return status.withdraw(message)
	case err != nil && last != StatusError:
		return status.fail(code, message)
	case err == nil && c.Reports && (last == StatusTransitioning || last == ""):
		return status.Success(message)
	default:
		return nil
	}
}

func nothingToDo(err error) bool {
	return errors.Is(err, ErrAlreadyApplied) || errors.Is(err, ErrSuperseded)
}

// timeout is a minute less than the time after which the guest agent kills the
// command.
func (c Command) timeout() time.Duration {
	switch {
	case c.Timeout > 0:
		return c.Timeout
	case c.Name == "enable", c.Name == "uninstall":
		return 4 * time.Minute
	default:
		return 14 * time.Minute
	}
}

func (c Command) failCode() int {
	if c.FailCode == ExitOK {
		return ExitFailed
	}
	return c.FailCode
}

// title is the operation as people read it: Enable.
func (c Command) title() string {
	return strings.ToUpper(c.Name[:1]) + c.Name[1:]
}

// complain prints what the guest agent shows for a failed command. That it
// cannot be printed changes nothing: the exit code and the log tell it too.
func (x *Invocation) complain(message string) {
	if x.LogPath != "" {
		message += " Log: " + x.LogPath
	}
	_, _ = fmt.Fprintln(x.Stderr, clean(message))
}
