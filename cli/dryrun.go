package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/handler"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
)

// Bounds of how long a dry run looks.
const (
	shortestLook = time.Second
	longestLook  = 24 * time.Hour
)

// dryRun shows what would arrive with the configured data sources, or with those
// of a file of public settings. Nothing is sent and nothing kept.
func dryRun(ctx context.Context, args []string, s Streams) error {
	flags := flag.NewFlagSet("dry-run", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	lasting := flags.Duration("for", time.Minute, "")
	asJSON := flags.Bool("json", false, "")
	var files []string
	for err := flags.Parse(args); ; err = flags.Parse(flags.Args()[1:]) { // flags may follow the file
		if err != nil {
			return fmt.Errorf("%w: %w; dry-run takes --for DURATION, --json and a file with public settings", errUsage, err)
		}
		if flags.NArg() == 0 {
			break
		}
		files = append(files, flags.Arg(0))
	}
	if len(files) > 1 || *lasting < shortestLook || *lasting > longestLook {
		return fmt.Errorf("%w: name one file at most, and look for %v to %v", errUsage, shortestLook, longestLook)
	}
	layout := paths.New(os.Getenv(paths.EnvRoot))
	config, err := dryConfig(layout, strings.Join(files, ""))
	if err != nil {
		return err
	}
	log, closer, err := logfile.Open(logfile.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = closer.Close() }() // nothing is written
	if !*asJSON {
		fmt.Fprintf(s.Out, "Looking for %v; nothing is sent. Ctrl-C ends it sooner.\n", *lasting)
	}
	var told func(int64)
	if !*asJSON {
		told = progress(s.Out, time.Now)
	}
	report, err := agent.DryRun(ctx, agent.Options{Layout: layout, Config: config, Log: log}, *lasting, told)
	if err != nil {
		return err
	}
	if *asJSON {
		data, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(s.Out, string(data))
		return err
	}
	printDryRun(s.Out, report)
	return nil
}

// progressEvery lies between two signs of life at least.
const progressEvery = 10 * time.Second

// progress returns what tells a person how many rows there are so far.
func progress(w io.Writer, now func() time.Time) func(rows int64) {
	last := now()
	return func(rows int64) {
		if at := now(); at.Sub(last) >= progressEvery {
			last = at
			fmt.Fprintf(w, "%d rows so far\n", rows)
		}
	}
}

func dryConfig(layout paths.Layout, file string) (*agent.Config, error) {
	if file == "" {
		config, err := readConfig(layout)
		if err != nil {
			return nil, errors.Join(err, errors.New("name a file with public settings to look at those"))
		}
		return config, nil
	}
	data, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	return handler.PublicConfig(data)
}

func printDryRun(w io.Writer, r *agent.DryReport) {
	fmt.Fprintf(w, "\nIn %.0f seconds would have arrived:\n\n", r.Seconds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TABLE\tROWS\tROWS A DAY\tBILLED A DAY\tMOST OF IT")
	var billed int64
	for _, table := range r.Tables {
		size := megabytes(table.BytesADay)
		if table.Free {
			size = "free"
		}
		billed += table.BytesADay
		for i, who := range table.Top {
			name := fmt.Sprintf("%s (%d rows)", plain(who.Name), who.Rows)
			if i > 0 {
				fmt.Fprintf(t, "\t\t\t\t%s\n", name)
				continue
			}
			fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\n", plain(table.Table), table.Rows, table.RowsPerDay, size, name)
		}
	}
	_ = t.Flush() // a person's terminal
	if len(r.Tables) == 0 {
		fmt.Fprintln(w, "  nothing")
	}
	fmt.Fprintf(w, "\nBilled in all: about %s a day, if it goes on like this. Azure bills the text of the columns;\nHeartbeat and Operation are free.\n", megabytes(billed))
	for _, src := range r.Sources {
		if src.Filtered > 0 || len(src.Redacted) > 0 || src.Lost > 0 {
			fmt.Fprintf(w, "%s: %d rows, %d filtered out, redacted: %s, %d lost\n", plain(src.Name), src.Rows, src.Filtered, redacted(src.Redacted), src.Lost)
		}
	}
	for _, src := range r.Sources {
		for _, thing := range slices.Sorted(maps.Keys(src.Troubles)) {
			fmt.Fprintf(w, "! %s, %s: %s\n", plain(src.Name), plain(thing), plain(src.Troubles[thing]))
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "* %s\n", strings.TrimSpace(note))
	}
}

// megabytes prints a number of bytes as MB of 1,000,000, as Azure bills.
func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
