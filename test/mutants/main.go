// Command mutants breaks the code that keeps data durable, one place at a time,
// and runs the tests that are there to see it. It prints a table and fails when
// a mutant survives, or when the text that it replaces is not in the source any
// more: then the mutant has to follow the code.
//
// Nothing is written to the source: the compiler is given the changed file in
// the place of the real one.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"
)

// A mutant is one replacement in one file and the tests that have to fail.
type mutant struct {
	name      string
	file      string
	old, with string // old is there exactly once
	pkg       string
	tests     string // pattern for go test -run
}

const (
	spool = "./agent/spool"
	every = "^Test[SW][0-9]" // every invariant and hazard
)

// mutants is the literal list.
var mutants = []mutant{
	{"append does not sync its frame", "agent/spool/append.go", "		err = s.active.file.Sync()\n", "", spool, every},
	{"new segment is not synced", "agent/spool/append.go", "	if err == nil {\n		err = file.Sync()\n	}\n	if err == nil {\n		err = s.fs.SyncDir()\n	}\n	if err != nil {\n		err = fmt.Errorf(\"%w: write segment", "	if err == nil {\n		err = s.fs.SyncDir()\n	}\n	if err != nil {\n		err = fmt.Errorf(\"%w: write segment", spool, every},
	{"folder is not synced for a new segment", "agent/spool/append.go", "		err = file.Sync()\n	}\n	if err == nil {\n		err = s.fs.SyncDir()\n	}\n", "		err = file.Sync()\n	}\n", spool, every},
	{"append goes on in a segment that failed", "agent/spool/append.go", "		s.seal(int64(n))\n		return s.begin(h)\n", "		return nil, 0, fmt.Errorf(\"%w after %d bytes: %w\", ErrFailing, n, err)\n", spool, every},
	{"last segment of the start is not made durable", "agent/spool/append.go", "	seg := s.unsettled\n	s.mu.Unlock()\n	if seg.segment == nil {", "	seg := s.unsettled\n	s.mu.Unlock()\n	if seg.segment != nil {", spool, every},
	{"copy of the last segment is not synced", "agent/spool/append.go", "	if err == nil {\n		err = file.Sync()\n	}\n	err = errors.Join(err, file.Close(), from.Close())", "	err = errors.Join(err, file.Close(), from.Close())", spool, every},
	{"cursor is not synced", "agent/spool/cursor.go", "			err = d.handle.Sync()\n", "			err = nil\n", spool, every},
	{"cursor that was made anew is not synced", "agent/spool/cursor.go", "		err = file.Sync()\n", "		err = nil\n", spool, every},
	{"folder is not synced for a cursor", "agent/spool/cursor.go", "	if err := s.fs.SyncDir(); err != nil {\n		return err\n	}\n	handle", "	handle", spool, every},
	{"cursor after the segments it frees", "agent/spool/deliver.go", "	if err := s.moveCursor(d); err != nil {\n		return fmt.Errorf(\"finish batch %d: %w\", id, err)\n	}\n	s.sweep()\n", "	s.mu.Lock()\n	d.durable = d.through\n	s.mu.Unlock()\n	s.sweep()\n	if err := s.moveCursor(d); err != nil {\n		return fmt.Errorf(\"finish batch %d: %w\", id, err)\n	}\n", spool, every},
	{"cursor counts as durable before it is", "agent/spool/cursor.go", "	oldest, later := s.segments[0], s.segments[1:]\n	if oldest.last > s.through(func(d *destination) ID { return d.durable })", "	oldest, later := s.segments[0], s.segments[1:]\n	if oldest.last > s.through(func(d *destination) ID { return d.through })", spool, every + "|TestSegmentsWaitForTheCursor"},
	{"cursor is moved when a batch is taken", "agent/spool/deliver.go", "	d.flight[next.id] = struct{}{}\n", "	d.flight[next.id] = struct{}{}\n	d.done.set(uint64(next.id - d.through - 1))\n", spool, every},
	{"checkpoint ahead of the sync", "agent/spool/append.go", "	s.frame = appendFrame(s.frame[:0], &header, s.parts, checkpoints)\n", "	s.frame = appendFrame(s.frame[:0], &header, s.parts, checkpoints)\n	s.mu.Lock()\n	for i := range checkpoints {\n		s.setCheckpoint(checkpoints[i])\n	}\n	s.mu.Unlock()\n", spool, every},
	{"removals are not durable one by one", "agent/spool/aside.go", "	s.segments = s.segments[1:]\n	s.mu.Unlock()\n	return s.syncRemoval()\n", "	s.segments = s.segments[1:]\n	s.mu.Unlock()\n	s.unsynced = false\n	return nil\n", spool, every + "|TestSegmentsGoInOrder"},
	{"checksum of a frame is not checked", "agent/spool/format.go", "return le.Uint32(b[4:]) == checksum(b[8:])", "return len(b) > 0", spool, every},
	{"checksum of a body is not checked", "agent/spool/deliver.go", "if n < len(dst) || checksum(dst) != want {", "if n < len(dst) || want == checksum(nil)+1 {", spool, every},
	{"data of the last segment is not verified", "agent/spool/recover.go", "if bad := sc.verify(&fr); bad != nil {", "if bad := sc.verify(&fr); bad != nil && !last {", spool, every},
	{"checksum of a cursor is not checked", "agent/spool/format.go", "		le.Uint32(b[slotSize-4:]) != checksum(b[:slotSize-4]) {", "		false {", spool, every},
	{"both slots of a cursor in one place", "agent/spool/cursor.go", "return int64(generation%2) * slotDistance", "return int64(generation%2) * 0", spool, every},
	{"frames that failed count", "agent/spool/recover.go", "if fr.seq < r.seq || fr.seq > limit || fr.seq == limit && fr.flags&flagSnapshot == 0 {", "if fr.seq < r.seq || limit == 0 {", spool, every + "|TestFrameThatFailedIsVoid"},
	{"frames count that a batch went without", "agent/spool/recover.go", "if last && r.wentWithout(&fr) {", "if last && r.wentWithout(&fr) && r.id == 0 {", spool, every + "|TestFrameThatABatchWentWithoutIsVoid"},
	{"a snapshot that the next segment repeats is void", "agent/spool/recover.go", "fr.seq > limit || fr.seq == limit && fr.flags&flagSnapshot == 0 {", "fr.seq >= limit {", spool, every + "|TestSnapshotAloneCounts"},
	{"segments that could not be removed are forgotten", "agent/spool/append.go", "		seg.whole = false\n		s.mu.Lock()\n		s.segments = append(s.segments, seg)\n", "		seg.whole = false\n		s.mu.Lock()\n", spool, every + "|TestVoidFramesGoWithWhatMakesThemVoid"},
	{"create overwrites", "internal/vfs/os.go", "os.O_CREATE|os.O_EXCL", "os.O_CREATE", "./internal/vfs", "TestFolder"},
	{"the lock excludes nobody", "internal/vfs/os.go", "	if !held {", "	if !held && d == \"\" {", spool, "TestW13"},
	{"write beside: rename before sync", "internal/atomicfile/atomicfile.go", "	if err == nil {\n		err = file.Sync()\n	}\n", "", "./internal/atomicfile", "."},
	{"write beside: folder is not synced", "internal/atomicfile/atomicfile.go", "	return syncDir(dir)\n", "	return nil\n", "./internal/atomicfile", "."},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // temporary files
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "mutant\ttests\tcaught by\tverdict")
	survived := 0
	for i, m := range mutants {
		begun := time.Now()
		caught, err := m.try(ctx, filepath.Join(dir, fmt.Sprint(i)))
		verdict := "caught"
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			fmt.Fprintf(os.Stderr, "%s: %v\n", m.name, err)
			caught, verdict = "-", "NOT TRIED"
			survived++
		case caught == "":
			caught, verdict = "-", "SURVIVED"
			survived++
		}
		fmt.Fprintf(w, "%s\t%s -run %s\t%s\t%s\n", m.name, m.pkg, m.tests, caught, verdict)
		fmt.Printf("%2d of %d, %4.1f s: %s: %s\n", i+1, len(mutants), time.Since(begun).Seconds(), m.name, verdict)
	}
	fmt.Println()
	if err := w.Flush(); err != nil {
		return err
	}
	if survived > 0 {
		return fmt.Errorf("%d of %d mutants survived or could not be tried", survived, len(mutants))
	}
	return nil
}

var (
	failed  = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)
	crashed = regexp.MustCompile(`(?m)^panic: .*|^fatal error: .*`)
)

// try runs the mutant's tests and returns which one saw it.
func (m *mutant) try(ctx context.Context, prefix string) (caught string, err error) {
	overlay, err := m.overlay(prefix)
	if err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", overlay, "-o", prefix+".test", m.pkg)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("it does not build: %w: %s", err, out)
	}
	test := exec.CommandContext(ctx, prefix+".test", "-test.run", m.tests, "-test.failfast", "-test.timeout", "2m")
	test.Dir = m.pkg
	out, err := test.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "", nil
	case ctx.Err() != nil || !errors.As(err, &exit):
		return "", err
	}
	if name := failed.FindSubmatch(out); name != nil {
		return string(name[1]), nil
	}
	if what := crashed.Find(out); what != nil {
		return string(what[:min(len(what), 60)]), nil
	}
	return "", fmt.Errorf("the tests say nothing that is understood: %s", out)
}

// overlay writes the changed file and tells the compiler of it.
func (m *mutant) overlay(prefix string) (string, error) {
	text, err := os.ReadFile(m.file)
	if err != nil {
		return "", fmt.Errorf("run this from the top of the repository: %w", err)
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		return "", fmt.Errorf("%s has the text to replace %d times, want once; let the mutant follow the code:\n%s", m.file, n, m.old)
	}
	path, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	changed, list := prefix+".go", prefix+".json"
	data, err := json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
	if err != nil {
		return "", err
	}
	return list, errors.Join(
		os.WriteFile(changed, []byte(strings.Replace(string(text), m.old, m.with, 1)), 0o600),
		os.WriteFile(list, data, 0o600))
}
