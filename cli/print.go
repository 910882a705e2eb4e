package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/internal/product"
)

func versionText() string {
	return fmt.Sprintf("%s %s %s/%s %s", product.Name, product.Version, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// A summary is the agent's health with what follows from it.
type summary struct {
	Verdict string `json:"verdict"` // "ok", "stopped" or "trouble"
	// Troubles are sentences that say what is wrong and what to do.
	Troubles []string `json:"troubles"`
	// Conserved says that every record is accounted for.
	Conserved bool `json:"conserved"`
	*agent.Health
}

// silentAfter is longer than an agent that runs leaves its health unwritten.
const silentAfter = 11 * time.Minute

// newSummary judges the agent's health at a time.
func newSummary(h *agent.Health, now time.Time) *summary {
	r := &summary{Verdict: "ok", Health: h, Conserved: true, Troubles: []string{}}
	add := func(thing, text string) { r.Troubles = append(r.Troubles, thing+": "+text) }
	if silent := now.Sub(h.Updated); silent > silentAfter && !h.Clean {
		add("agent", fmt.Sprintf("it has told nothing for %v and may not run: look at its log, and start it again by restarting the VM's guest agent", silent.Round(time.Minute)))
	}
	if err := h.Conserved(); err != nil {
		r.Conserved = false
		add("ledger", fmt.Sprintf("%v; please report this with the agent's log", err))
	}
	for i := range h.Workspaces {
		w := &h.Workspaces[i]
		for _, text := range []string{w.Message, w.Late(now)} {
			if text != "" {
				add("workspace "+w.ID, text)
			}
		}
	}
	if h.Spool.Message != "" {
		add("spool", h.Spool.Message)
	}
	if h.Limits.Message != "" {
		add("limits", h.Limits.Message)
	}
	for _, src := range h.Sources {
		if src.Message != "" {
			add("source "+src.Name, src.Message)
		}
		for _, thing := range slices.Sorted(maps.Keys(src.Troubles)) {
			add("source "+src.Name+", "+thing, src.Troubles[thing])
		}
	}
	for _, loss := range h.Ledger.Losses {
		if now.Sub(loss.Last) < recent {
			add(loss.Source, fmt.Sprintf("records were lost in the last day (%s): %s", loss.Reason, advice(loss.Reason)))
		}
	}
	switch {
	case len(r.Troubles) > 0:
		r.Verdict = "trouble"
	case h.Clean:
		r.Verdict = "stopped"
	}
	return r
}

// recent is how long a loss is a trouble; it stays in the ledger.
const recent = 24 * time.Hour

// advice says what to do about losses of one reason.
func advice(reason string) string {
	switch reason {
	case "spool-full", "emit-failed":
		return "raise diskQuotaInMB, or bring the workspace within reach"
	case "socket-buffer-full":
		return "let the sender use TCP or the local syslog daemon, which can wait"
	case "truncated":
		return "let the sender write shorter messages"
	case "vacuumed":
		return "raise SystemMaxUse in journald.conf, or bring the workspace within reach"
	case "compressed-xz":
		return "set Compress=no in journald.conf, or install rsyslog"
	case "truncated-file":
		return "let the application rotate by renaming, or keep its rotated files within the pattern"
	case "deleted-file", "rotated-out-of-reach":
		return "keep rotated files for longer, and within the pattern"
	case "line-too-long":
		return "let the application write shorter lines"
	case "nul-bytes":
		return "let the application open its log for appending"
	case "refused":
		return "the rows are set aside in the spool's folder with the workspace's answer"
	case "damaged":
		return "check the disk and the system log"
	}
	return "docs/delivery.md explains the reasons"
}

// print writes the summary for a person. Texts that came from outside are
// quoted when they hold anything but plain characters.
func (r *summary) print(w io.Writer, now time.Time) {
	state := "running"
	if r.Clean {
		state = "stopped"
	}
	fmt.Fprintf(w, "%s %s, %s since %s; written %s ago\n", product.Name, plain(r.Version), state, r.Started.Format(time.DateTime), now.Sub(r.Updated).Round(time.Second))
	fmt.Fprintf(w, "Verdict: %s\n\n", r.Verdict)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WORKSPACE\tSTATE\tDELIVERED\tWAITING\tREFUSED\tOLDEST UNSENT")
	for _, ws := range r.Workspaces {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\n", plain(ws.ID), plain(ws.State), ws.Delivered, ws.Waiting, ws.Refused, day(ws.OldestWait))
	}
	fmt.Fprintln(t, "\nSOURCE\tSTATE\tREAD\tDROPPED\tFILTERED\tREDACTED\tFROM")
	for _, src := range r.Sources {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\t%s\n", plain(src.Name), plain(src.State), src.Read+src.Dropped, src.Dropped, src.Filtered, redacted(src.Redacted), plain(src.Origin))
	}
	_ = t.Flush() // a person's terminal
	r.printConfiguration(w)
	fmt.Fprintf(w, "\nSpool: %s, %d of %d MB used\n", plain(r.Spool.State), r.Spool.Bytes>>20, r.Spool.Budget>>20)
	if r.Spool.Note != "" {
		fmt.Fprintf(w, "  %s\n", plain(r.Spool.Note))
	}
	r.printLimits(w)
	fmt.Fprint(w, "\nLedger\n")
	for i := range r.Workspaces {
		fmt.Fprintf(w, "  workspace %s: %s\n", plain(r.Workspaces[i].ID), r.equation(&r.Workspaces[i]))
	}
	r.printLosses(w)
	for _, text := range r.Troubles {
		fmt.Fprintf(w, "! %s\n", plain(text))
	}
}

// redacted says how many secrets of each kind were taken out.
func redacted(hits map[string]int64) string {
	if len(hits) == 0 {
		return "-"
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(hits)) {
		parts = append(parts, fmt.Sprintf("%d %s", hits[kind], kind))
	}
	return strings.Join(parts, ", ")
}

// printConfiguration says who chose the sources, and what of the workspace's
// own configuration has no effect.
func (r *summary) printConfiguration(w io.Writer) {
	c := &r.Configuration
	if c.Origin == "" {
		return
	}
	fmt.Fprintf(w, "\n%s\n", plain(c.Sentence()))
	if !c.Asked {
		return
	}
	fmt.Fprintf(w, "  last answer of the workspace %s, document %s\n", day(c.Answered), plain(cmp.Or(c.Checksum, "none")))
	if c.Problem != "" {
		fmt.Fprintf(w, "  not brought up to date: %s\n", plain(c.Problem))
	}
	for _, text := range c.Unobeyed {
		fmt.Fprintf(w, "  no effect: %s\n", plain(text))
	}
}

// equation says what became of every record at a workspace.
func (r *summary) equation(w *agent.WorkspaceHealth) string {
	text := fmt.Sprintf("%d read = %d delivered + %d waiting + %d refused + %d dropped", r.Ledger.Read, w.Delivered, w.Waiting, w.Refused, r.Ledger.Dropped)
	if w.Damaged != 0 {
		text += fmt.Sprintf(" + %d damaged on the disk", w.Damaged)
	}
	if w.Before != 0 {
		text += fmt.Sprintf(" + %d from before it was named", w.Before)
	}
	if !r.Conserved {
		return text + " - this does not add up"
	}
	return text
}

func (r *summary) printLosses(w io.Writer) {
	if len(r.Ledger.Losses) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nLOST AT\tREASON\tOF\tRECORDS\tBYTES\tFIRST\tLAST")
	for _, l := range r.Ledger.Losses {
		records := strconv.FormatInt(l.Records, 10)
		if l.Records == 0 {
			records = "?"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", plain(l.Source), plain(l.Reason), plain(l.Class), records, l.Bytes, day(l.First), day(l.Last))
	}
	_ = t.Flush() // a person's terminal
	fmt.Fprintln(w)
}

// printLimits shows the ceilings and who holds them.
func (r *summary) printLimits(w io.Writer) {
	l := &r.Limits
	if l.MemoryMB == 0 && l.CPUPercent == 0 {
		return
	}
	fmt.Fprintf(w, "Ceilings: %d MB of memory, of which %d are in use, %d %% of a core\n", l.MemoryMB, l.UsedMB, l.CPUPercent)
	if l.Note != "" {
		fmt.Fprintf(w, "  %s\n", plain(l.Note))
	}
}

// day prints a time, and a dash for none.
func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
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
