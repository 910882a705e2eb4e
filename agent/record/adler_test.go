package record

import (
	"bytes"
	"hash/adler32"
	"testing"
)

func TestAdlerMatchesTheStandardLibrary(t *testing.T) {
	full := bytes.Repeat([]byte{0xff}, 3<<20) // the most that the lanes must hold
	mixed := bytes.Join(logLines(3000), []byte("\n"))
	for _, data := range [][]byte{full, mixed} {
		for _, n := range []int{0, 1, 7, 8, 127, 128, 129, 255, 4096, 1<<20 - 1, 1 << 20, 1<<20 + 1, len(data)} {
			part := data[:min(n, len(data))]
			if got, want := adler(adlerInit, part), adler32.Checksum(part); got != want {
				t.Errorf("adler of %d bytes = %08x, want %08x", len(part), got, want)
			}
		}
	}
}

func FuzzAdler(f *testing.F) {
	f.Add([]byte("Wikipedia"), 3)
	f.Add(bytes.Repeat([]byte{0xff}, 1000), 500)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		cut = min(max(cut, 0), len(data))
		got := adler(adler(adlerInit, data[:cut]), data[cut:])
		if want := adler32.Checksum(data); got != want {
			t.Errorf("adler in two parts = %08x, want %08x", got, want)
		}
	})
}
