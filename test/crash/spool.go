//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openloganalytics/agent/agent/spool"
	"github.com/openloganalytics/agent/internal/vfs"
)

const (
	serial      = "serial" // the checkpoint that numbers the frames
	destination = "destination"
)

func openSpool(dir string) (*spool.Spool, int, error) {
	folder, err := vfs.OS(dir)
	if err != nil {
		return nil, 0, err
	}
	s, err := spool.Open(folder, spool.Options{
		Budget: 32 << 20, KeepFree: 1 << 20, SegmentBytes: 64 << 10, Destinations: []string{destination},
	})
	if err != nil {
		return nil, 0, err
	}
	last := 0
	if v := s.Checkpoint(serial); v != nil {
		if last, err = strconv.Atoi(string(v)); err != nil {
			return nil, 0, errors.Join(err, s.Close())
		}
	}
	return s, last, nil
}

// writeSpool appends frames to a spool and finishes batches, and says on its
// standard output what was acknowledged: "ack N", "take N", "done N".
func writeSpool(dir string) error {
	s, n, err := openSpool(dir)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(uint64(n), 1))
	filler := bytes.Repeat([]byte("0123456789abcdef"), 256)
	for {
		n++
		data := append(strconv.AppendInt(nil, int64(n), 10), ' ')
		data = append(data, filler[:rng.IntN(len(filler))]...)
		_, err := s.Append([]spool.Piece{{Label: []byte("t"), Data: data, Rows: 1}}, []spool.Checkpoint{{Key: serial, Value: strconv.AppendInt(nil, int64(n), 10)}})
		if err != nil {
			return err
		}
		fmt.Println("ack", n)
		if n%3 > 0 {
			continue
		}
		for range 3 {
			if err := finishOne(s); err != nil {
				return err
			}
		}
	}
}

func finishOne(s *spool.Spool) error {
	b, err := s.Next(context.Background(), destination)
	if err != nil {
		return err
	}
	n, err := number(b)
	if err != nil {
		return err
	}
	fmt.Println("take", n)
	if err := s.Done(destination, b.ID, spool.Outcome{Delivered: 1}); err != nil {
		return err
	}
	fmt.Println("done", n)
	return nil
}

// number is what the only row of a batch says.
func number(b *spool.Batch) (int, error) {
	body, err := b.Body(nil)
	if err != nil {
		return 0, err
	}
	text, _, _ := strings.Cut(string(body), " ")
	return strconv.Atoi(text)
}

// promises are what a writer was told.
type promises struct {
	mu    sync.Mutex
	acked int
	taken map[int]bool // Done was called
	done  map[int]bool // Done returned
	late  bool         // the power is off: what is told now counts for nothing
}

func (p *promises) hear(r io.Reader) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var word string
		var n int
		if _, err := fmt.Sscan(lines.Text(), &word, &n); err != nil {
			return fmt.Errorf("read what the writer says: %w", err)
		}
		p.mu.Lock()
		switch {
		case word == "take":
			p.taken[n] = true
		case p.late:
		case word == "ack":
			p.acked = n
		case word == "done":
			p.done[n] = true
		}
		p.mu.Unlock()
	}
	return lines.Err()
}

// spoolCuts cuts the power under a process that writes a spool.
func (l *lab) spoolCuts(ctx context.Context, kind string, cycles int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	acked, lost, repeated, err := l.cutSpool(ctx, self, kind, cycles, false)
	if err != nil {
		return err
	}
	l.add(fmt.Sprintf("power cut, spool on %s", kind), "0 lost, 0 repeated",
		fmt.Sprintf("%d cuts, %d frames acknowledged: %d lost, %d repeated", cycles, acked, lost, repeated), lost+repeated == 0 && acked > 0)
	return nil
}

// cutSpool returns how many frames were acknowledged, lost, and delivered again.
func (l *lab) cutSpool(ctx context.Context, program, kind string, cycles int, stop bool) (acked, lost, repeated int, err error) {
	d, err := l.disk(kind)
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, d.remove()) }()
	p := &promises{taken: map[int]bool{}, done: map[int]bool{}}
	for range cycles {
		if err := ctx.Err(); err != nil {
			return 0, 0, 0, err
		}
		before := p.acked
		if err := p.cycle(program, d); err != nil {
			return 0, 0, 0, err
		}
		acked += p.acked - before
		missing, again, err := p.judge(filepath.Join(d.mount, "spool"))
		if err != nil {
			return 0, 0, 0, err
		}
		lost, repeated = lost+missing, repeated+again
		if stop && lost > 0 {
			break
		}
	}
	return acked, lost, repeated, nil
}

// cycle lets the writer write, cuts the power and mounts what is left.
func (p *promises) cycle(program string, d *disk) error {
	writer := exec.Command(program, "-write-spool", filepath.Join(d.mount, "spool"))
	out, err := writer.StdoutPipe()
	if err != nil {
		return err
	}
	p.late = false
	if err := writer.Start(); err != nil {
		return err
	}
	heard := make(chan error, 1)
	go func() { heard <- p.hear(out) }()
	time.Sleep(time.Duration(50+rand.IntN(250)) * time.Millisecond)
	// Only what was told before the cut counts: a sync that is under way may
	// return well while the file system goes down.
	p.mu.Lock()
	p.late = true
	p.mu.Unlock()
	err = d.cut()
	_ = writer.Process.Kill() // it may have ended by itself
	err = errors.Join(err, <-heard)
	_ = writer.Wait() // it was killed
	if err != nil {
		return err
	}
	return d.again()
}

// judge compares what is in the spool with what was told.
func (p *promises) judge(dir string) (lost, repeated int, err error) {
	s, last, err := openSpool(dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	there := map[int]bool{}
	for s.Stats().Destinations[0].WaitingBatches > len(there) {
		b, err := s.Next(context.Background(), destination)
		if err != nil {
			return 0, 0, err
		}
		n, err := number(b)
		if err != nil {
			return 0, 0, err
		}
		there[n] = true
	}
	for n := 1; n <= max(last, p.acked); n++ {
		switch {
		case there[n] && p.done[n]:
			repeated++
		case !there[n] && !p.taken[n]:
			lost++
		}
	}
	p.acked = last // numbers go on from here
	for n := range p.taken {
		if there[n] {
			delete(p.taken, n) // Done did not become durable
		} else {
			p.done[n] = true
		}
	}
	return lost, repeated, nil
}

// teeth shows that the power cuts would find a spool that does not sync: a
// writer that was built so has to lose something within ten of them.
func (l *lab) teeth(ctx context.Context) error {
	const cycles = 10
	program, err := l.lazyWriter(ctx)
	if err != nil {
		return err
	}
	_, lost, _, err := l.cutSpool(ctx, program, "ext4", cycles, true)
	found := fmt.Sprintf("%d lost", lost)
	if err != nil {
		// Nor can it always be read again.
		found, lost = err.Error(), 1
	}
	l.add("power cut, spool built without fsync", fmt.Sprintf("must lose within %d cuts", cycles), found, lost > 0)
	return ctx.Err()
}

// lazyWriter builds this command with a vfs that does not sync.
func (l *lab) lazyWriter(ctx context.Context) (string, error) {
	dir, err := l.folder("lazy")
	if err != nil {
		return "", err
	}
	const source, sync = "internal/vfs/os_linux.go", "failed = unix.Fdatasync(int(fd))"
	text, err := os.ReadFile(source)
	if err != nil {
		return "", fmt.Errorf("run this from the top of the repository: %w", err)
	}
	if strings.Count(string(text), sync) != 1 {
		return "", fmt.Errorf("%s has no line %q to leave out", source, sync)
	}
	lazy := filepath.Join(dir, "os_linux.go")
	if err := os.WriteFile(lazy, []byte(strings.Replace(string(text), sync, "_ = fd", 1)), 0o600); err != nil {
		return "", err
	}
	absolute, err := filepath.Abs(source)
	if err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{absolute: lazy}})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", err
	}
	program := filepath.Join(dir, "writer")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-overlay", list, "-o", program, "./test/crash")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build a writer without fsync: %w: %s", err, out)
	}
	return program, nil
}
