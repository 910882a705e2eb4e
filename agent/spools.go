package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/spool"
	"github.com/openloganalytics/agent/agent/upload"
	"github.com/openloganalytics/agent/agent/workspace"
	"github.com/openloganalytics/agent/internal/vfs"
)

// Spools share the disk quota. The agent of a newer version may have left a
// spool that this version cannot read: that one is left for the newer version,
// and another, named after the format, is used beside it. When the newer
// version is back, or its spool is gone, the one beside is left over: what is
// in it is delivered, and it is removed. What others hold comes off the quota
// of the one in use, down to leastQuota: so all together exceed the quota by no
// more than that.
type spools struct {
	o     Options
	queue *spool.Spool // what sources emit goes here
	dir   string       // of queue
	newer bool         // a spool of a newer version stands beside
	left  []*leftover
}

// leastQuota is what a spool has to be able to work, whatever others take: one
// segment of a large spool, which holds several of the largest groups that the
// intake makes.
const leastQuota = 8 << 20

// defaultQuota is what there is without a setting.
const defaultQuota = 1 << 30

// A leftover is a spool that is only emptied.
type leftover struct {
	dir   string
	queue *spool.Spool
}

// openSpools opens the queue and what is left over beside it.
func openSpools(o Options) (*spools, error) {
	s := &spools{o: o, dir: o.Layout.SpoolDir()}
	err := s.open()
	if errors.Is(err, spool.ErrNewer) {
		s.newer, s.dir = true, besideDir(o, spool.Format)
		o.Log.Warn("the spool was written by a newer version, which will deliver what is in it; another is used meanwhile", "spool", s.dir)
		err = s.open()
	}
	if err != nil {
		return nil, err
	}
	for older := range spool.Format {
		if dir := besideDir(o, older+1); dir != s.dir {
			s.openLeft(dir)
		}
	}
	return s, nil
}

// besideDir is the folder of the spool of one format that stands beside another.
func besideDir(o Options, format int) string {
	return fmt.Sprintf("%s-%d", o.Layout.SpoolDir(), format)
}

// open opens the queue with what others leave of the quota.
func (s *spools) open() (err error) {
	s.queue, err = openSpool(s.o, s.dir, s.budget())
	return err
}

func openSpool(o Options, dir string, budget int64) (*spool.Spool, error) {
	folder, err := vfs.OS(dir)
	if err != nil {
		return nil, fmt.Errorf("open spool folder: %w", err)
	}
	if kind := vfs.WeakSync(dir); kind != "" {
		o.Log.Warn("the spool is on a file system that may forget in a power cut what it has synced; keep the state folder on a local disk", "spool", dir, "on", kind)
	}
	names := make([]string, 0, len(o.Config.Workspaces))
	for _, w := range o.Config.Workspaces {
		names = append(names, "workspace/"+w.ID)
	}
	queue, err := spool.Open(folder, spool.Options{Budget: budget, Destinations: names, First: urgent, Log: o.Log})
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	return queue, nil
}

// openLeft opens a spool that is left over, if there is one. One that cannot be
// read is left alone: another version may know what to do with it.
func (s *spools) openLeft(dir string) {
	if !holdsSegments(dir) {
		if err := removeSpool(dir); err != nil {
			s.o.Log.Warn("cannot remove a spool that is delivered", "spool", dir, "error", err)
		}
		return
	}
	queue, err := openSpool(s.o, dir, max(usedBy(dir), leastQuota))
	if err != nil {
		s.o.Log.Warn("a spool that is left over cannot be read; it stays, and counts against the disk quota", "spool", dir, "error", err)
		return
	}
	s.o.Log.Info("a spool is left over from when another version was in use; it is delivered and removed", "spool", dir)
	s.left = append(s.left, &leftover{dir, queue})
}

// budget is what others leave of the quota.
func (s *spools) budget() int64 {
	quota := int64(s.o.Config.Limits.DiskMB) << 20
	if quota == 0 {
		quota = defaultQuota
	}
	taken, _ := s.others()
	return max(quota-taken, min(leastQuota, quota))
}

// others returns what spools beside the queue take on the disk, in bytes, and a
// sentence on them.
func (s *spools) others() (taken int64, note string) {
	for _, dir := range s.besides() {
		taken += usedBy(dir)
	}
	switch {
	case taken == 0:
		return 0, ""
	case s.newer:
		note = fmt.Sprintf("a spool of a newer version takes %d MB of the disk quota, and what is in it is delivered when that version is installed again", taken>>20)
	case len(s.left) > 0:
		note = fmt.Sprintf("a spool that is left over from another version takes %d MB of the disk quota until it is delivered", taken>>20)
	default:
		note = fmt.Sprintf("folders beside %s take %d MB of the disk quota: they hold what was set aside, or cannot be read by this version; remove them when nobody needs them", s.dir, taken>>20)
	}
	return taken, note
}

// besides lists the folders of all spools but the queue's.
func (s *spools) besides() []string {
	top := s.o.Layout.SpoolDir()
	entries, err := os.ReadDir(filepath.Dir(top))
	if err != nil {
		return nil // then there is no spool
	}
	var dirs []string
	for _, e := range entries {
		suffix, ok := strings.CutPrefix(e.Name(), filepath.Base(top))
		dir := filepath.Join(filepath.Dir(top), e.Name())
		if ok && e.IsDir() && dir != s.dir && (suffix == "" || isFormat(suffix)) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// isFormat reports whether the end of a folder's name names a format.
func isFormat(suffix string) bool {
	digits, ok := strings.CutPrefix(suffix, "-")
	_, err := strconv.ParseUint(digits, 10, 32)
	return ok && err == nil
}

// holdsSegments reports whether there is anything to deliver in a folder.
func holdsSegments(dir string) bool {
	found, err := filepath.Glob(filepath.Join(dir, "segment-*"))
	return err == nil && len(found) > 0
}

// usedBy is what the files in a folder take on the disk, in bytes.
func usedBy(dir string) (used int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0 // gone meanwhile
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			used += spool.OnDisk(info.Size())
		}
	}
	return used
}

// lookLeft is how often a spool that is left over is looked at: whether it is
// empty.
const lookLeft = 5 * time.Second

// empty delivers what is left over until nothing of it waits, removes it and
// gives its part of the quota to the queue; or until ctx ends.
func (s *spools) empty(ctx context.Context, l *leftover, clients []*workspace.Client) {
	delivery, stop := context.WithCancel(ctx)
	defer stop()
	var uploading sync.WaitGroup
	for _, c := range clients {
		u := upload.New(upload.Options{Destination: lingering{c}, Queue: l.queue, Log: s.o.Log.With("destination", c.Name()).With("spool", l.dir)})
		uploading.Go(func() { u.Run(delivery) })
	}
	for !l.empty() {
		select {
		case <-ctx.Done():
			uploading.Wait()
			return
		case <-time.After(lookLeft):
		}
	}
	stop()
	uploading.Wait()
	s.remove(l)
}

// remove removes a spool that is empty, and gives the queue its part of the
// quota.
func (s *spools) remove(l *leftover) {
	err := l.queue.Close()
	if err == nil {
		err = removeSpool(l.dir)
	}
	if err != nil {
		s.o.Log.Warn("cannot remove a spool that is delivered", "spool", l.dir, "error", err)
	} else {
		s.o.Log.Info("a spool that was left over is delivered and removed", "spool", l.dir)
	}
	s.queue.SetBudget(s.budget())
}

// empty reports whether nothing waits for any destination.
func (l *leftover) empty() bool {
	destinations := l.queue.Stats().Destinations
	for i := range destinations {
		if destinations[i].WaitingBatches > 0 {
			return false
		}
	}
	return len(destinations) > 0
}

// removeSpool removes the folder of a spool that is delivered, but for what was
// set aside for people. The segments go first: cursors without them do no harm,
// but segments without cursors would be delivered again.
func removeSpool(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	kept := false
	for _, e := range slices.Backward(entries) { // from segment- to cursor-
		if strings.HasPrefix(e.Name(), "aside-") {
			kept = true
		} else if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if kept {
		return nil
	}
	return os.Remove(dir)
}

// close gives all spools back.
func (s *spools) close() {
	queues := []*spool.Spool{s.queue}
	for _, l := range s.left {
		queues = append(queues, l.queue)
	}
	for _, queue := range queues {
		if err := queue.Close(); err != nil && !errors.Is(err, spool.ErrClosed) {
			s.o.Log.Error("cannot close the spool", "error", err)
		}
	}
}
