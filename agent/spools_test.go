package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent/ledger"
	"github.com/openloganalytics/agent/agent/spool"
	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/paths"
)

// newerSegment is the beginning of a segment of a format that is not known yet.
func newerSegment() []byte {
	b := append([]byte("LASEGM\r\n"), make([]byte, 504)...)
	binary.LittleEndian.PutUint32(b[8:], spool.Format+1)
	binary.LittleEndian.PutUint64(b[16:], 7)
	binary.LittleEndian.PutUint32(b[48:], crc32.Checksum(b[:48], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// A tenant is the state folder of an agent to which anything may happen.
type tenant struct {
	*testing.T
	o    Options
	s    *spools
	l    *ledger.Ledger
	rng  *rand.Rand
	did  []string
	logs int64 // the most that they may take
}

func newTenant(t *testing.T, seed uint64, diskMB int) *tenant {
	t.Helper()
	layout := paths.New(t.TempDir())
	n := &tenant{T: t, rng: rand.New(rand.NewPCG(seed, 1)), l: ledger.New(), logs: 1 << 20}
	if err := os.MkdirAll(layout.AgentDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	log, end, err := logfile.Open(logfile.Options{Path: filepath.Join(layout.AgentLogDir(), "agent.log"), MaxBytes: n.logs})
	if err != nil {
		t.Fatal(err)
	}
	n.o = Options{Layout: layout, Log: log, Config: &Config{Limits: Limits{DiskMB: diskMB}, Workspaces: []Workspace{{ID: "a"}, {ID: "b"}}}}
	n.open()
	t.Cleanup(func() {
		n.s.close()
		if err := end.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *tenant) quota() int64 { return int64(n.o.Config.Limits.DiskMB) << 20 }

func (n *tenant) open() {
	n.Helper()
	s, err := openSpools(n.o)
	if err != nil {
		n.Fatal(err)
	}
	n.s = s
}

// append appends noise with the ledger, and reports whether there was room.
func (n *tenant) append(size int) bool {
	n.Helper()
	n.l.Read("test", 1, int64(size))
	n.l.Lost(fmt.Sprint("source ", n.rng.IntN(50)), ledger.Loss{Reason: "spool-full", Records: 1, Last: time.Now()})
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(n.rng.Uint32())
	}
	_, err := n.s.queue.Append([]spool.Piece{{Label: testTable.Label(), Data: data, Rows: 1, Raw: size}},
		[]spool.Checkpoint{{Key: ledgerKey, Value: n.l.Encode()}})
	if err != nil && !errors.Is(err, spool.ErrFull) {
		n.Fatal(err)
	}
	return err == nil
}

// finish lets each workspace finish a batch of a spool, and reports whether
// there was any.
func (n *tenant) finish(queue *spool.Spool, refuse bool) (any bool) {
	n.Helper()
	for _, w := range n.o.Config.Workspaces {
		name := "workspace/" + w.ID
		ctx, cancel := context.WithTimeout(n.Context(), time.Millisecond)
		b, err := queue.Next(ctx, name)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			continue
		}
		if err != nil {
			n.Fatal(err)
		}
		any = true
		outcome := spool.Outcome{Delivered: b.Rows}
		if refuse {
			outcome = spool.Outcome{Refused: b.Rows}
			body, err := b.Body(nil)
			if err == nil {
				err = queue.SetAside(name, b.ID, body, "refused")
			}
			if err != nil && !errors.Is(err, spool.ErrTooLarge) {
				n.Fatal(err)
			}
		}
		if err := queue.Done(name, b.ID, outcome); err != nil {
			n.Fatal(err)
		}
	}
	return any
}

// newer lets a newer version take the spool over and use it, up to what the
// spool beside it leaves of the quota.
func (n *tenant) newer(bytes int64) {
	n.Helper()
	n.s.close()
	dir := n.o.Layout.SpoolDir()
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		n.Fatal(err)
	}
	data := append(newerSegment(), make([]byte, max(bytes-512, 0))...)
	if err := os.WriteFile(filepath.Join(dir, "segment-0000000000000001"), data, 0o600); err != nil {
		n.Fatal(err)
	}
	n.open()
}

// gone lets the newer version deliver its spool and go.
func (n *tenant) gone() {
	n.Helper()
	n.s.close()
	if err := os.RemoveAll(n.o.Layout.SpoolDir()); err != nil {
		n.Fatal(err)
	}
	n.open()
}

func (n *tenant) step() {
	n.Helper()
	name := "append"
	switch what := n.rng.IntN(100); {
	case what < 50:
		n.append(1 + n.rng.IntN(1<<n.rng.IntN(20)))
	case what < 60:
		name = "fill"
		for n.append(1 << 20) {
		}
	case what < 75:
		name = "finish"
		n.finish(n.s.queue, n.rng.IntN(3) == 0)
	case what < 80:
		name = "finish what is left over"
		if len(n.s.left) > 0 && !n.finish(n.s.left[0].queue, n.rng.IntN(3) == 0) {
			n.s.remove(n.s.left[0])
			n.s.left = nil
		}
	case what < 85:
		name = "health"
		if err := atomicfile.Write(n.o.Layout.HealthFile(), make([]byte, n.rng.IntN(20000)), 0o600); err != nil {
			n.Fatal(err)
		}
	case what < 90:
		name = "log"
		for range 50 {
			n.o.Log.Warn(fmt.Sprint("message ", n.rng.IntN(100)), "number", n.rng.Uint64())
		}
	case what < 95:
		name = "restart"
		n.s.close()
		n.open()
	case what < 97:
		beside := usedBy(besideDir(n.o, spool.Format))
		bytes := n.rng.Int64N(max(n.quota()-beside, leastQuota))
		name = fmt.Sprintf("newer version with %d bytes beside %d", bytes, beside)
		n.newer(bytes)
	default:
		name = "newer version gone"
		n.gone()
	}
	n.did = append(n.did, name)
}

// check wants all that the agent has on the disk, by length and by blocks,
// within the quota and one segment, and its logs within theirs. Besides there
// are folders, the health, and what names and locks take.
func (n *tenant) check() {
	n.Helper()
	const besides = 128 << 10
	used := map[string]int64{}
	var sum int64
	err := filepath.WalkDir(n.o.Layout.Root(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		used[filepath.Dir(path)] += allocation(info)
		sum += allocation(info)
		return nil
	})
	if err != nil {
		n.Fatal(err)
	}
	if most := n.quota() + leastQuota + n.logs + besides; sum > most {
		n.Fatalf("the folders take %d bytes, want at most %d: %v\nlast %q", sum, most, used, n.did[max(len(n.did)-20, 0):])
	}
}

// All that the agent keeps is within the quota and one segment, seen after
// every step: with a newer version's spool beside its own, and with its own left
// over from when that was so.
func TestQuotaHoldsForAllSpools(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, seed, 16)
			for range 400 {
				n.step()
				n.check()
			}
		})
	}
}

// Beside a newer version's spool there is as much as that leaves, and enough to
// work when it leaves nothing; what is left over when it is gone is delivered,
// and then all of the quota is there again.
func TestSpoolBesideANewerOne(t *testing.T) {
	n := newTenant(t, 1, 32)
	for _, tt := range []struct{ holds, leaves int64 }{{0, 32 << 20}, {8 << 20, 24 << 20}, {31 << 20, leastQuota}, {32 << 20, leastQuota}, {64 << 20, leastQuota}} {
		n.newer(tt.holds)
		if got := n.s.queue.Stats().Budget; got > tt.leaves || got < tt.leaves-1<<20 {
			t.Errorf("beside %d bytes the budget is %d, want %d", tt.holds, got, tt.leaves)
		}
		if taken, note := n.s.others(); taken < tt.holds || note == "" {
			t.Errorf("%d bytes are told of, and %q", taken, note)
		}
		for round := range 3 { // the largest group that the intake makes, however badly it compresses
			if !n.append(3 << 20) {
				t.Errorf("beside %d bytes there is no room for a large group, round %d", tt.holds, round)
			}
			for n.finish(n.s.queue, false) {
			}
		}
	}
	for n.append(100 << 10) {
	}
	n.gone()
	if len(n.s.left) != 1 || n.s.queue.Stats().Budget > n.quota()-6<<20 {
		t.Fatalf("%d spools are left over, the budget is %d", len(n.s.left), n.s.queue.Stats().Budget)
	}
	left := n.s.left[0]
	for !left.empty() {
		n.finish(left.queue, false)
	}
	n.s.remove(left)
	if got := n.s.queue.Stats().Budget; got != n.quota() {
		t.Errorf("after all is delivered the budget is %d, want %d", got, n.quota())
	}
	if _, err := os.Lstat(left.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the spool that was delivered is still there: %v", err)
	}
}

// What a spool that is removed had set aside stays.
func TestRemovedSpoolLeavesWhatWasSetAside(t *testing.T) {
	n := newTenant(t, 1, 32)
	n.newer(0)
	n.append(1000)
	n.gone()
	left := n.s.left[0]
	n.finish(left.queue, true)
	n.s.remove(left)
	for range 2 {
		kept, err := filepath.Glob(filepath.Join(left.dir, "*"))
		if err != nil || len(kept) != 2 { // one for each workspace
			t.Errorf("%v is left (%v)", kept, err)
		}
		n.s.close()
		n.open()
		if len(n.s.left) != 0 {
			t.Error("it is opened again")
		}
	}
	if taken, note := n.s.others(); taken != 2*4096 || note == "" {
		t.Errorf("%d bytes are told of, and %q", taken, note)
	}
}
