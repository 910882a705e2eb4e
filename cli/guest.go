package cli

import (
	"context"
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/handler"
	"github.com/openloganalytics/agent/internal/logfile"
)

// guestCommand runs one of the guest agent's verbs and returns its exit code.
// No missing file keeps a verb from running: disable and uninstall need none.
func guestCommand(ctx context.Context, h *handler.Handler, c extension.Command, s Streams) int {
	guest := extension.ParseGuestAgent(os.LookupEnv)
	env, envErr := extension.ReadEnvironment(ctx, h.HandlerDir(guest))
	if envErr != nil {
		env = nil
	}
	path := h.LogPath(env)
	log, closer, err := logfile.Open(logfile.Options{Path: path, MaxBytes: handlerLogBytes})
	switch {
	case err != nil:
		log, path = logfile.Discard(), ""
	case env == nil && c.Name == "uninstall":
		// The log would lie in a folder that is to go; what fails is printed.
		_ = closer.Close() // nothing was written
		log, path = logfile.Discard(), ""
	default:
		defer func() { _ = closer.Close() }() // the command has ended; there is nobody to tell
	}
	if envErr != nil {
		log.Warn("no handler environment", "error", envErr)
	}
	x := &extension.Invocation{
		Env: env, Guest: guest, Log: log, LogPath: path, Stderr: s.Err, Now: time.Now,
		Events: extension.NewEventWriter(env, guest, uuid.NewString(), log, time.Now),
	}
	if seq, err := extension.CurrentSequence(env, guest); err == nil {
		x.Seq, x.HasSeq = seq, true
	}
	return extension.Execute(ctx, c, x)
}
