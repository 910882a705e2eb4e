package perf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
)

// A tree reads the kernel's files below a root.
type tree struct {
	root string // "" is the machine itself
	buf  []byte
}

// read returns the content of a file, valid until the next read.
func (t *tree) read(name string) ([]byte, error) {
	f, err := os.Open(t.root + name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written that could be lost
	t.buf = t.buf[:0]
	for {
		t.buf = slices.Grow(t.buf, 4096)
		n, err := f.Read(t.buf[len(t.buf):cap(t.buf)])
		t.buf = t.buf[:len(t.buf)+n]
		if errors.Is(err, io.EOF) {
			return t.buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// processes calls yield with the number of each process. It fails when those of
// other users are hidden, as far as it knows from the first of all.
func (t *tree) processes(yield func(pid string)) error {
	f, err := os.Open(t.root + "/proc")
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // nothing was written that could be lost
	first := false
	for {
		names, err := f.Readdirnames(256)
		for _, name := range names {
			if name[0] >= '1' && name[0] <= '9' {
				first = first || name == "1"
				yield(name)
			}
		}
		switch {
		case errors.Is(err, io.EOF) && !first:
			return errors.New("/proc hides the processes of other users; mount it without hidepid, and let the agent's service see them (ProtectProc)")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("list processes: %w", err)
		}
	}
}

// cutLine returns the first line of data and what follows it.
func cutLine(data []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(data, []byte("\n"))
	return line, rest
}

// cutField returns the first word of line and what follows it. Words are
// separated by blanks and tabs only: any other byte may be part of a name.
func cutField(line []byte) (field, rest []byte) {
	begin := 0
	for begin < len(line) && (line[begin] == ' ' || line[begin] == '\t') {
		begin++
	}
	end := begin
	for end < len(line) && line[end] != ' ' && line[end] != '\t' {
		end++
	}
	return line[begin:end], line[end:]
}

// cutUints reads the words of line into dst as far as they are numbers, and
// returns how many it read.
func cutUints(line []byte, dst []uint64) int {
	for i := range dst {
		var field []byte
		field, line = cutField(line)
		n, ok := parseUint(field)
		if !ok {
			return i
		}
		dst[i] = n
	}
	return len(dst)
}

// parseUint reads a decimal number and nothing else.
func parseUint(text []byte) (uint64, bool) {
	if len(text) == 0 {
		return 0, false
	}
	n := uint64(0)
	for _, c := range text {
		digit := uint64(c - '0')
		if digit > 9 || n > (math.MaxUint64-digit)/10 {
			return 0, false
		}
		n = 10*n + digit
	}
	return n, true
}

// parseDecimal reads a number as the kernel writes loads and times: digits,
// perhaps a point and more digits.
func parseDecimal(text []byte) (float64, bool) {
	whole, fraction, pointed := bytes.Cut(text, []byte("."))
	n, ok := parseUint(whole)
	if !ok || !pointed {
		return float64(n), ok
	}
	part, ok := parseUint(fraction)
	return float64(n) + float64(part)/math.Pow10(len(fraction)), ok
}
