package agent

import (
	"fmt"
	"slices"
	"time"

	"github.com/openloganalytics/agent/agent/ledger"
	"github.com/openloganalytics/agent/agent/spool"
)

// Reasons of losses that happen behind the sources.
const (
	lostRefused = "refused" // by the workspace, and set aside
	lostDamaged = "damaged" // on the disk, in the spool
)

// account returns the ledger and the spool as they were at one moment: the
// ledger of the last frame, and the rows up to that frame.
func account(queue *spool.Spool) (*ledger.Ledger, spool.Stats) {
	stats, saved := queue.StatsWith(ledgerKey)
	l, err := ledger.Decode(saved)
	if err != nil {
		l = newLedger(stats) // as the intake does, which says so
	}
	return l, stats
}

// newLedger returns a ledger for a spool that has none: what is in it counts as
// read by sources that are not known.
func newLedger(stats spool.Stats) *ledger.Ledger {
	l := ledger.New()
	if stats.Rows > 0 {
		l.Read(unknownSource, stats.Rows, 0)
	}
	return l
}

// behind returns what was lost at the destinations.
func behind(destinations []spool.DestinationStats) []ledger.Loss {
	var losses []ledger.Loss
	for _, d := range destinations {
		if d.Refused > 0 {
			losses = append(losses, ledger.Loss{Source: d.Name, Reason: lostRefused, Records: d.Refused})
		}
		if d.Lost > 0 {
			losses = append(losses, ledger.Loss{Source: d.Name, Reason: lostDamaged, Records: d.Lost})
		}
	}
	return losses
}

// A kind of loss has one entry in a ledger.
type kind struct{ source, reason, class string }

func kindOf(l ledger.Loss) kind { return kind{l.Source, l.Reason, l.Class} }

func byKind(l *ledger.Ledger) map[kind]ledger.Loss {
	all := map[kind]ledger.Loss{}
	for _, loss := range l.Losses() {
		all[kindOf(loss)] = loss
	}
	return all
}

// lostBehind makes what was lost at a destination be told; not the rows that
// tell it, or a workspace that refuses those would be told of them without end.
func (in *intake) lostBehind(table string) {
	if table != operationTable {
		signal(in.lossy)
	}
}

// shownLosses is how many kinds of losses the health file names.
const shownLosses = 100

// ledgerHealth shows the ledger with what was lost at the destinations; told,
// the ledger as it was last told, knows when that was.
func ledgerHealth(l, told *ledger.Ledger, destinations []spool.DestinationStats) LedgerHealth {
	read, lost := l.Totals()
	h := LedgerHealth{Read: read + lost, Emitted: read, Dropped: lost}
	dropped := l.Losses()
	slices.SortStableFunc(dropped, func(a, b ledger.Loss) int { return b.Last.Compare(a.Last) })
	losses := behind(destinations)
	times := byKind(told)
	for i := range losses {
		known := times[kindOf(losses[i])]
		losses[i].First, losses[i].Last = known.First, known.Last
	}
	losses = append(losses, dropped...)
	for _, loss := range losses[:min(len(losses), shownLosses)] {
		h.Losses = append(h.Losses, LossHealth(loss))
	}
	return h
}

// count enters what became of the records at the workspace.
func (w *WorkspaceHealth) count(d *spool.DestinationStats) {
	w.Before, w.Delivered, w.Refused, w.Damaged = d.Before, d.Delivered, d.Refused, d.Lost
	w.Waiting, w.WaitingBytes, w.OldestWait = d.Waiting, d.WaitingBytes, d.Oldest
}

// Conserved returns nil when every record is accounted for: what was read was
// emitted or dropped, and for each workspace what was emitted was not for it,
// or is delivered, refused, damaged or waiting. The error has the numbers.
func (h *Health) Conserved() error {
	l := &h.Ledger
	if l.Read != l.Emitted+l.Dropped {
		return fmt.Errorf("account for all records: %d were read, but %d emitted and %d dropped", l.Read, l.Emitted, l.Dropped)
	}
	for i := range h.Workspaces {
		w := &h.Workspaces[i]
		if sum := w.Before + w.Delivered + w.Refused + w.Damaged + w.Waiting; sum != l.Emitted {
			return fmt.Errorf("account for all records: %d were emitted, but at workspace %s there are %d: %d from before, %d delivered, %d refused, %d damaged, %d waiting",
				l.Emitted, w.ID, sum, w.Before, w.Delivered, w.Refused, w.Damaged, w.Waiting)
		}
	}
	return nil
}

// The service replaces the time of a row that is older than two days by that of
// its arrival; people are warned before that.
const (
	waitsLong    = 36 * time.Hour
	waitsTooLong = 48 * time.Hour
)

// Late returns a sentence when records have waited for so long that the
// workspace will not, or hardly, take their time for granted; "" otherwise.
func (w *WorkspaceHealth) Late(now time.Time) string {
	if w.Waiting == 0 || w.OldestWait.IsZero() || now.Sub(w.OldestWait) < waitsLong {
		return ""
	}
	since := w.OldestWait.UTC().Format(time.RFC3339)
	if now.Sub(w.OldestWait) < waitsTooLong {
		return fmt.Sprintf("records have waited since %s: after two days, at %s, the service files them under the time of their arrival, and their own time is in another column only; bring the workspace within reach before that",
			since, w.OldestWait.Add(waitsTooLong).UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("records have waited since %s, more than two days: the service files them under the time of their arrival, and their own time is in another column only (see docs/delivery.md)", since)
}
