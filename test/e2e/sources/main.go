//go:build linux

// Command sources proves each data source end to end: settings as a user writes
// them go to the real package, a real daemon does its work, and the rows that
// arrive in the workspace emulator are compared with what the daemon did. It
// prints a table with a row for each source, and fails when one of them does.
//
// It needs the daemons that the table names, and root, as which some of them
// have to be started. They keep everything in a temporary folder, listen at
// loopback addresses only, and end with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/openloganalytics/agent/internal/product"
)

// A source is one row of the table.
type source struct {
	name   string // as the docs call it
	daemon string // the program that has to be there; empty is none
	table  string // where its rows land
	// start makes the daemon work and returns what the settings have to say.
	start func(ctx context.Context, l *lab) (scene, error)
}

// A scene is a daemon at work.
type scene struct {
	public, protected map[string]any // settings besides those that every machine has
	// act makes the daemon, which the agent watches by now, do something; nil is
	// nothing.
	act func(ctx context.Context) error
	// loses says that the agent has to lose records in this scene.
	loses bool
	// check says what is missing from the rows that have arrived so far; nil is
	// nothing.
	check func(rows []map[string]any) error
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "e2e-sources:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("sources", flag.ContinueOnError)
	dir := flags.String("package", "build", "folder that holds the package")
	only := flags.String("only", "", "run the sources whose names begin like this")
	if err := flags.Parse(args); err != nil {
		return err
	}
	version, zip, err := findPackage(*dir)
	if err != nil {
		return err
	}
	var failed []error
	fmt.Printf("| %-24s | %-11s | %-15s | %5s | %s\n| --- | --- | --- | --- | ---\n", "source", "daemon", "table", "rows", "verdict")
	ran := 0
	for _, s := range append(sources(), logs()...) {
		if !strings.HasPrefix(s.name, *only) {
			continue
		}
		ran++
		rows, err := prove(ctx, s, version, zip)
		verdict := "arrives"
		if err != nil {
			verdict = "FAILS"
			failed = append(failed, fmt.Errorf("%s: %w", s.name, err))
		}
		fmt.Printf("| %-24s | %-11s | %-15s | %5d | %s\n", s.name, s.daemon, s.table, rows, verdict)
		if ctx.Err() != nil {
			break
		}
	}
	if ran == 0 {
		return fmt.Errorf("no source is named %q", *only)
	}
	return errors.Join(failed...)
}

// findPackage returns the Linux package in a folder, with its version.
func findPackage(dir string) (version, zip string, err error) {
	prefix := product.Publisher + "." + product.TypeLinux + "-"
	zips, err := filepath.Glob(filepath.Join(dir, prefix+"*.zip"))
	if err != nil || len(zips) != 1 {
		return "", "", fmt.Errorf("%d packages in %s; make one with make package", len(zips), dir)
	}
	name := strings.TrimSuffix(filepath.Base(zips[0]), ".zip")
	return strings.TrimPrefix(name, prefix), zips[0], nil
}

// patience bounds every wait.
const patience = 90 * time.Second

// prove lets one source go all the way, and returns how many rows arrived.
func prove(ctx context.Context, s source, version, zip string) (rows int, err error) {
	l, err := newLab(ctx, s)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	play, err := s.start(ctx, l)
	if err != nil {
		return 0, fmt.Errorf("start the daemon: %w", err)
	}
	if err := l.enable(version, zip, play); err != nil {
		return 0, err
	}
	if play.act != nil {
		if err := play.act(ctx); err != nil {
			return 0, fmt.Errorf("let the daemon work: %w", err)
		}
	}
	err = eventually(ctx, func() error {
		all, err := l.service.Rows(l.workspace.ID, s.table)
		if err != nil {
			return err
		}
		rows = len(all)
		return play.check(all)
	})
	if err != nil {
		return rows, errors.Join(err, l.complaints())
	}
	return rows, l.conserved(play.loses)
}

// eventually waits until check returns nil.
func eventually(ctx context.Context, check func() error) error {
	for deadline := time.Now().Add(patience); ; {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
