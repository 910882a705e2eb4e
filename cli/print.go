package cli

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/internal/product"
)

func versionText() string {
	return fmt.Sprintf("%s %s %s/%s %s", product.Name, product.Version, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// printHealth writes the agent's health for a person. Texts that came from
// outside are quoted when they hold anything but plain characters.
func printHealth(w io.Writer, h *agent.Health, now time.Time) {
	state := "running"
	if h.Clean {
		state = "stopped"
	}
	fmt.Fprintf(w, "%s %s, %s since %s; written %s ago\n\n", product.Name, plain(h.Version), state, h.Started.Format(time.DateTime), now.Sub(h.Updated).Round(time.Second))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WORKSPACE\tSTATE\tDELIVERED\tWAITING\tREFUSED")
	for _, ws := range h.Workspaces {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\n", plain(ws.ID), plain(ws.State), ws.Delivered, ws.Waiting, ws.Refused)
	}
	fmt.Fprintln(t, "\nSOURCE\tSTATE\tREAD\tDROPPED\t")
	for _, src := range h.Sources {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t\n", plain(src.Name), plain(src.State), src.Read, src.Dropped)
	}
	_ = t.Flush() // a person's terminal
	fmt.Fprintf(w, "\nSpool: %s, %d of %d MB used\n", plain(h.Spool.State), h.Spool.Bytes>>20, h.Spool.Budget>>20)
	for _, ws := range h.Workspaces {
		if ws.Message != "" {
			fmt.Fprintf(w, "! workspace %s: %s\n", plain(ws.ID), plain(ws.Message))
		}
	}
	if h.Spool.Message != "" {
		fmt.Fprintf(w, "! spool: %s\n", plain(h.Spool.Message))
	}
	for _, src := range h.Sources {
		if src.Message != "" {
			fmt.Fprintf(w, "! source %s: %s\n", plain(src.Name), plain(src.Message))
		}
		for _, thing := range slices.Sorted(maps.Keys(src.Troubles)) {
			fmt.Fprintf(w, "! source %s, %s: %s\n", plain(src.Name), plain(thing), plain(src.Troubles[thing]))
		}
	}
}

// plain returns text as it is when a terminal shows it as it is, quoted
// otherwise.
func plain(text string) string {
	if !needsQuote(text) {
		return text
	}
	return strconv.Quote(text)
}

func needsQuote(text string) bool {
	for _, r := range text {
		if !strconv.IsPrint(r) {
			return true
		}
	}
	return false
}
