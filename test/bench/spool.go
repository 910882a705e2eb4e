//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/spool"
	"github.com/openloganalytics/agent/internal/vfs"
)

// spoolSize is how large a spool gets before it counts as full.
const spoolSize = 1 << 30

func spoolWorks() []*work {
	return []*work{{name: "spool", title: "the spool alone, 1 GiB", run: runSpool, entries: []entry{{peer: ours, setup: setup{Input: "file"}}}}}
}

var spoolColumns = []column{
	{"CPU µs per record", "%.3f", result.perMillion},
	rate,
	{"written, of the bodies", "%.3f", writtenPerByte.figure},
	start,
}

func spoolTargets() []target {
	return []target{
		{"spool", "drained", 2.7e6, false, "records/s", medianOf("spool", rate)},
		{"spool", "CPU, appended and drained", 0.33, true, "µs per record", medianOf("spool", perMillion)},
		{"spool", "written, of the bodies", 1.04, true, "×", medianOf("spool", writtenPerByte)},
		{"spool", "1 GiB, start to first upload, worst round", 2, true, "s", worstOf("spool", ours, start)},
	}
}

// runSpool fills a spool in this process as the agent does with a backlog, in
// frames of a MiB of lines that are compressed already; lets the agent start on
// it, with nothing of it in the memory of the machine; and drains what it leaves,
// a sync for each batch.
func runSpool(ctx context.Context, b *bench, _ *work, e entry, r *result) (err error) {
	piece := bodyOf(1 << 20)
	in, err := b.open(ctx, b.peers[e.peer], e.setup, piece.Rows, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	before := used(os.Getpid(), false)
	batches, err := fill(in.launch.store, piece)
	if err != nil {
		return err
	}
	filled := used(os.Getpid(), false)
	if err := forgetCached(in.launch.store); err != nil {
		return err
	}
	if err := in.start(ctx); err != nil {
		return err
	}
	for end := time.Now().Add(30 * time.Second); in.sink.count().Unique == 0 && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond)
	}
	r.Start = time.Since(in.started).Seconds()
	if in.sink.count().Unique == 0 {
		return fmt.Errorf("nothing was uploaded in 30 s: %s", in.tail())
	}
	in.kill(syscall.SIGKILL)

	begun, mark := time.Now(), used(os.Getpid(), false)
	drained, size, err := drain(ctx, in.launch.store)
	if err != nil {
		return err
	}
	now := used(os.Getpid(), false)
	r.Seconds, r.Records = time.Since(begun).Seconds(), int64(drained*piece.Rows)
	appended := (filled.cpu - before.cpu).Seconds() / float64(batches)
	r.CPU = (now.cpu - mark.cpu).Seconds() + appended*float64(drained)
	r.Lines = size
	r.Wrote = now.wrote - mark.wrote + int64(float64(filled.wrote-before.wrote)*float64(drained)/float64(batches))
	return nil
}

// bodyOf returns a body of that many bytes of rows as the agent makes them.
func bodyOf(raw int) spool.Piece {
	table := &record.Table{Name: "Bench_CL", LogType: "Bench", TimeField: "Timestamp"}
	batch, lines := record.NewBatch(table, record.NewCompressor()), newWriter(1)
	for n := 0; batch.Pending() < raw; n++ {
		batch.Add([]record.Field{
			{Key: "Timestamp", Kind: record.Text, Value: []byte("2026-01-02T03:04:05.678Z")},
			{Key: "RawData", Kind: record.Text, Value: lines.line(nil, n, 0)},
			{Key: "Computer", Kind: record.Text, Value: []byte("vm")},
			{Key: "FilePath", Kind: record.Text, Value: []byte("/var/log/app/server.log")},
		})
	}
	cut := batch.Cut()
	return spool.Piece{Label: table.Label(), Data: bytes.Clone(cut.Data), Tail: bytes.Clone(cut.Tail), Rows: cut.Rows, Raw: cut.Raw}
}

func openSpool(dir string) (*spool.Spool, error) {
	fsys, err := vfs.OS(dir)
	if err != nil {
		return nil, err
	}
	return spool.Open(fsys, spool.Options{Budget: spoolSize, Destinations: []string{"workspace/" + workspaceID}})
}

// fill appends the piece, a batch each time, until the spool is full.
func fill(dir string, piece spool.Piece) (batches int, err error) {
	s, err := openSpool(dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	place := make([]byte, 60) // of a file
	for ; ; batches++ {
		_, err := s.Append([]spool.Piece{piece}, []spool.Checkpoint{{Key: "tail/1", Value: place}})
		if errors.Is(err, spool.ErrFull) {
			return batches, nil
		}
		if err != nil {
			return batches, err
		}
	}
}

// forgetCached makes the kernel read the files from the disk again.
func forgetCached(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	for _, name := range names {
		f, openErr := os.Open(name)
		if openErr != nil {
			return openErr
		}
		err = errors.Join(err, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	}
	return err
}

// drain takes all batches one after the other and returns how many there were,
// and the bytes of their bodies.
func drain(ctx context.Context, dir string) (batches int, size int64, err error) {
	s, err := openSpool(dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	name := "workspace/" + workspaceID
	waiting := s.Stats().Destinations[0].WaitingBatches
	var body []byte
	for ; batches < waiting; batches++ {
		b, err := s.Next(ctx, name)
		if err != nil {
			return batches, size, err
		}
		if body, err = b.Body(body[:0]); err != nil {
			return batches, size, err
		}
		size += int64(len(body))
		if err := s.Done(name, b.ID, spool.Outcome{Delivered: b.Rows}); err != nil {
			return batches, size, err
		}
	}
	return batches, size, nil
}
