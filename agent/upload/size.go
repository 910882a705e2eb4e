package upload

import (
	"context"
	"time"
)

const (
	// sizeKnownFor is how long a size counts as too large before it is tried
	// again: limits change, and links become faster.
	sizeKnownFor = time.Hour
	// smallBody is never too large because another one was.
	smallBody = 64 << 10
)

// A tooLarge is a size that the destination has not taken.
type tooLarge struct {
	bytes  int // of a body, compressed
	result Result
	until  time.Time
}

// try makes one attempt, as attempt does. It answers at once for a body of more
// than one row that is known to be too large.
func (u *Uploader) try(ctx context.Context, batch Batch) (result Result, ok bool) {
	if result, known := u.knownTooLarge(batch); known {
		return result, true
	}
	result, ok = u.attempt(ctx, batch)
	if ok && result.Answer == TooLarge {
		u.learnSize(batch, result)
	}
	return result, ok
}

func (u *Uploader) knownTooLarge(batch Batch) (Result, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	known := batch.Rows > 1 && u.tooLarge.bytes > 0 && len(batch.Body) >= u.tooLarge.bytes && time.Now().Before(u.tooLarge.until)
	return u.tooLarge.result, known
}

// learnSize remembers that a body was too large.
func (u *Uploader) learnSize(batch Batch, r Result) {
	u.mu.Lock()
	defer u.mu.Unlock()
	size, now := len(batch.Body), time.Now()
	if batch.Rows < 2 || size < smallBody || now.Before(u.tooLarge.until) && size >= u.tooLarge.bytes {
		return
	}
	u.tooLarge = tooLarge{size, r, now.Add(sizeKnownFor)}
	u.o.Log.Info("bodies of this size are not taken, and are divided from now on", "destination", u.name, "bytes", size, "why", r.Why)
}
