package record

import (
	"runtime"
	"sync"
)

// A Compressor turns rows into deflate data. All batches of an
// agent share one Compressor: it is safe for concurrent use and owns no more
// encoders than there are processors.
type Compressor struct {
	slots chan struct{}

	mu   sync.Mutex
	idle []*deflater
}

// NewCompressor returns a compressor. It holds no memory until first used.
func NewCompressor() *Compressor {
	return &Compressor{slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// compress appends to dst the deflate data of a then b: no reference to
// anything before, no final block, ending at a byte boundary.
func (c *Compressor) compress(dst, a, b []byte) []byte {
	c.slots <- struct{}{}
	defer func() { <-c.slots }()
	d := c.take()
	defer c.give(d)
	w := bitWriter{out: dst}
	w.stored(a)
	return d.deflate(w.out, b)
}

func (c *Compressor) take() *deflater {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.idle); n > 0 {
		d := c.idle[n-1]
		c.idle = c.idle[:n-1]
		return d
	}
	return new(deflater)
}

func (c *Compressor) give(d *deflater) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, d)
}
