package perf

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// patience is how long a file system may take to tell how full it is.
	patience = time.Second
	// maxSilent file systems may owe an answer at a time; each holds a thread.
	maxSilent = 16
)

// A prober asks file systems how full they are and does not hang with them: a
// dead server answers never, and cannot be interrupted. A file system that
// owes an answer is not asked again until it gave it.
type prober struct {
	ask func(path string) (Usage, error)

	mu     sync.Mutex
	silent map[string]time.Time // path -> asked when
}

type answer struct {
	usage Usage
	err   error
}

func newProber(ask func(path string) (Usage, error)) *prober {
	return &prober{ask: ask, silent: map[string]time.Time{}}
}

// usage asks the file system at path, and waits for its answer for as long as
// patience and ctx last. The goroutine of a question that got no answer lives
// until the file system lets it go.
func (p *prober) usage(ctx context.Context, path string) (Usage, error) {
	asked, err := p.begin(path)
	if err != nil {
		return Usage{}, err
	}
	answered := make(chan answer, 1)
	go func() {
		usage, err := p.ask(path)
		p.mu.Lock()
		delete(p.silent, path)
		p.mu.Unlock()
		answered <- answer{usage, err}
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case a := <-answered:
		return a.usage, a.err
	case <-ctx.Done():
		return Usage{}, ctx.Err()
	case <-timer.C:
		return Usage{}, noAnswer(asked)
	}
}

// begin notes that path is asked, or says why it cannot be.
func (p *prober) begin(path string) (time.Time, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if asked, silent := p.silent[path]; silent {
		return asked, noAnswer(asked)
	}
	if len(p.silent) >= maxSilent {
		return time.Time{}, fmt.Errorf("%d other file systems do not answer, and no more are asked until one does", maxSilent)
	}
	now := time.Now()
	p.silent[path] = now
	return now, nil
}

func noAnswer(asked time.Time) error {
	return fmt.Errorf("it has not answered since %s; see to its server, or unmount it",
		asked.UTC().Format("2006-01-02T15:04:05Z"))
}
