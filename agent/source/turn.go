package source

import "context"

// A Turn is held by one goroutine at a time, as a mutex is; who waits for it
// gives up when its context ends.
type Turn chan struct{}

// NewTurn returns a turn that nobody holds.
func NewTurn() Turn { return make(Turn, 1) }

// Take waits for the turn, and returns ctx's error when ctx ends first.
func (t Turn) Take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Give gives it back.
func (t Turn) Give() { <-t }
