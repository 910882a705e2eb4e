package service

import (
	"errors"
	"fmt"
	"os"
)

// maxOutput is what is kept of the output of one life of the agent, in bytes.
const maxOutput = 512 << 10

// endOfOutput is the part of maxOutput that is for the end.
const endOfOutput = 64 << 10

// lastWords keep what the agent writes to its standard output and error: the
// beginning, as it comes, and the end, once that is known. So a file never has
// more than maxOutput bytes, and tells why the agent ended both when that is
// followed by much and when it comes after much. Write never fails: who writes
// must not end for want of a reader.
type lastWords struct {
	file *os.File
	room int    // bytes of the beginning that are still to come
	end  []byte // the newest of what comes after
	left int64  // bytes that are in neither
	err  error  // why the file does not have all of it
}

func newLastWords(path string) (*lastWords, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open output of the agent: %w", err)
	}
	return &lastWords{file: file, room: maxOutput - endOfOutput - len(leftOut(0))}, nil
}

// leftOut stands for bytes that are not kept.
func leftOut(n int64) string { return fmt.Sprintf("\n[%20d bytes are left out]\n", n) }

// Write keeps p, or takes note that it does not.
func (w *lastWords) Write(p []byte) (int, error) {
	n := min(len(p), w.room)
	if n > 0 {
		w.room -= n
		w.put(p[:n])
	}
	w.end = append(w.end, p[n:]...)
	if over := len(w.end) - endOfOutput; over > 0 {
		w.left += int64(over)
		w.end = append(w.end[:0], w.end[over:]...)
	}
	return len(p), nil
}

func (w *lastWords) put(p []byte) {
	if _, err := w.file.Write(p); err != nil && w.err == nil {
		w.err = err
	}
}

// Close writes the end, and reports what could not be kept.
func (w *lastWords) Close() error {
	if w.left > 0 {
		w.put([]byte(leftOut(w.left)))
	}
	w.put(w.end)
	return errors.Join(w.err, w.file.Close())
}
