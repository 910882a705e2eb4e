// Package cli is what a person or the guest agent types: a table of commands,
// their flags and their exit codes.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/handler"
	"github.com/openloganalytics/agent/internal/product"
)

// Streams are where a command writes.
type Streams struct{ Out, Err io.Writer }

// A command is one word that the program takes.
type command struct {
	name string
	args string // as usage shows them
	help string
	run  func(ctx context.Context, args []string, s Streams) error
}

// errUsage is the cause when the command line makes no sense.
var errUsage = errors.New("wrong usage")

// commands lists every command in the order usage prints them.
func commands() []command {
	list := []command{
		{name: "status", args: "[--json]", help: "show how the agent is doing", run: status},
		{name: "dry-run", args: "[FILE]", help: "show what would be sent, and what it would cost", run: dryRun},
		{name: "validate", args: "FILE", help: "check a file with public settings", run: validate},
		{name: "version", help: "print the version", run: version},
		{name: "run", help: "collect and deliver; the service starts this", run: run},
		{name: "supervise", help: "keep run alive where there is no service manager", run: supervise},
		{name: "prepare", help: "root's part of a start of run; the service does this", run: prepare},
		{name: "ended", help: "root's part of an end of run; the service does this", run: ended},
		{name: "report", help: "bring the extension's status file up to date", run: report},
	}
	return list
}

// Run runs the command that args name and returns the exit code. It is the one
// place where errors become exit codes.
func Run(ctx context.Context, args []string, s Streams) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	name := ""
	if len(args) > 0 {
		name, args = strings.TrimLeft(args[0], "-/"), args[1:]
	}
	h, err := handler.New(os.LookupEnv)
	if err != nil {
		return exit(s, name, err)
	}
	for _, c := range h.Commands() {
		if c.Name == name {
			return guestCommand(ctx, h, c, s)
		}
	}
	for _, c := range commands() {
		if c.name == name {
			return exit(s, name, c.run(ctx, args, s))
		}
	}
	if name == "help" || name == "h" {
		usage(s.Out, h)
		return extension.ExitOK
	}
	if name != "" {
		fmt.Fprintf(s.Err, "%s: no command %q\n\n", product.Name, name)
	}
	usage(s.Err, h)
	return extension.ExitUsage
}

// exit prints an error and turns it into the exit code.
func exit(s Streams, name string, err error) int {
	switch {
	case err == nil:
		return extension.ExitOK
	case errors.Is(err, errUsage):
		fmt.Fprintf(s.Err, "%s %s: %v\n", product.Name, name, err)
		return extension.ExitUsage
	default:
		fmt.Fprintf(s.Err, "%s %s: %v\n", product.Name, name, err)
		return extension.CodeOf(err)
	}
}

func usage(w io.Writer, h *handler.Handler) {
	fmt.Fprintf(w, "Usage: %s COMMAND\n\nCommands for people and services:\n", product.Name)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-20s %s\n", strings.TrimSpace(c.name+" "+c.args), c.help)
	}
	fmt.Fprint(w, "\nCommands for Azure's guest agent:\n ")
	for _, c := range h.Commands() {
		fmt.Fprint(w, " ", c.Name)
	}
	fmt.Fprintln(w)
}
