package agent

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent/source"
)

// rosterKey is the checkpoint that says which sources run, and which have run
// and left their places behind.
const rosterKey = "sources"

// The places of sources that do not run any more are kept, so that one that is
// taken back goes on where it was: of so many sources, for so long.
const (
	maxRetired   = 50
	retiredFor   = 90 * 24 * time.Hour
	forgetAtOnce = 1000 // checkpoints: a frame does not hold any number
)

// A past is the checkpoint's content.
type past struct {
	Running []string             `json:"running"`
	Retired map[string]time.Time `json:"retired,omitempty"` // since when
}

// remember notes who runs, and forgets the places of those that have not run
// for too long.
func (r *roster) remember(now []*running) {
	if r.past == nil {
		r.past = &past{}
		saved := r.intake.spool.Checkpoint(rosterKey)
		if saved != nil && json.Unmarshal(saved, r.past) != nil {
			r.o.Log.Warn("what ran before is not known; the places of sources that do not run any more stay")
		}
	}
	names := make([]string, 0, len(now))
	for _, one := range now {
		names = append(names, one.source.Name())
	}
	slices.Sort(names)
	after, forgotten := r.past.next(slices.Compact(names), time.Now().UTC().Truncate(time.Second))
	var at []source.Checkpoint
	for _, name := range slices.Sorted(maps.Keys(forgotten)) {
		keys := r.placesOf(name, after.Running)
		if room := forgetAtOnce - len(at); len(keys) > room {
			keys = keys[:room]
			after.Retired[name] = forgotten[name] // the rest at the next change
		}
		for _, key := range keys {
			at = append(at, source.Checkpoint{Key: key})
		}
	}
	if text(after) != text(r.past) {
		r.past = &after
		r.intake.remember(append(at, source.Checkpoint{Key: rosterKey, Value: []byte(text(after))}))
	}
}

// next returns what is so once the sources of the names run, and since when
// those have not run whose places are to be forgotten.
func (p *past) next(names []string, now time.Time) (after past, forgotten map[string]time.Time) {
	after = past{Running: names, Retired: map[string]time.Time{}}
	maps.Copy(after.Retired, p.Retired)
	for _, name := range p.Running {
		after.Retired[name] = now
	}
	for _, name := range names {
		delete(after.Retired, name)
	}
	forgotten = map[string]time.Time{}
	oldest := slices.SortedFunc(maps.Keys(after.Retired), func(a, b string) int {
		return cmp.Or(after.Retired[a].Compare(after.Retired[b]), cmp.Compare(a, b))
	})
	for i, name := range oldest {
		if since := after.Retired[name]; len(oldest)-i > maxRetired || now.Sub(since) > retiredFor {
			forgotten[name] = since
			delete(after.Retired, name)
		}
	}
	return after, forgotten
}

// placesOf lists the checkpoints of a source, none of those that run.
func (r *roster) placesOf(name string, running []string) []string {
	of := func(key, name string) bool { return key == name || strings.HasPrefix(key, name+":") }
	var keys []string
	r.intake.spool.Checkpoints(name, func(key string, _ []byte) bool {
		if of(key, name) && !slices.ContainsFunc(running, func(other string) bool { return of(key, other) }) {
			keys = append(keys, key)
		}
		return true
	})
	return keys
}

// remember makes checkpoints durable with the next group.
func (in *intake) remember(at []source.Checkpoint) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, cp := range at {
		in.checkpoints[cp.Key] = cp.Value
	}
	in.touched()
}
