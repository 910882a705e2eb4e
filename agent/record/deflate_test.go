package record

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// reinflate returns what deflate data holds that has no final block.
func reinflate(t *testing.T, data []byte) []byte {
	t.Helper()
	const end = "\x01\x00\x00\xff\xff" // a final stored block of nothing
	raw, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(data), strings.NewReader(end))))
	if err != nil {
		t.Fatalf("inflate %d bytes: %v", len(data), err)
	}
	return raw
}

// wantSame deflates src and holds what comes out against it.
func wantSame(t *testing.T, d *deflater, src []byte) (size int) {
	t.Helper()
	const before = "before"
	data := d.deflate([]byte(before), src)
	data, kept := bytes.CutPrefix(data, []byte(before))
	if !kept {
		t.Fatal("what was in the slice before is gone")
	}
	if got := reinflate(t, data); !bytes.Equal(got, src) {
		t.Fatalf("%d bytes %.60q came out as %d bytes %.60q", len(src), src, len(got), got)
	}
	if most := len(src) + len(src)/4000 + 20; len(data) > most {
		t.Errorf("%d bytes %.60q became %d, want at most %d", len(src), src, len(data), most)
	}
	return len(data)
}

func TestDeflate(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	noise := make([]byte, 300<<10)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	hex := fmt.Appendf(nil, "%x", noise[:100<<10])
	everyByte := make([]byte, 256)
	for i := range everyByte {
		everyByte[i] = byte(i)
	}
	inputs := map[string][]byte{
		"noise":     noise,
		"hex":       hex,
		"bytes":     bytes.Repeat(everyByte, 20),
		"one byte":  bytes.Repeat([]byte{'a'}, 200<<10),
		"spaces":    bytes.Repeat([]byte{' '}, 70000),
		"word":      bytes.Repeat([]byte("a word "), 40000),
		"chinese":   bytes.Repeat([]byte("日志记录在这里，没有空格。"), 3000),
		"log":       bytes.Join(logLines(3000), []byte(`"},{"RawData":"`)),
		"unbounded": fibonacci(),
	}
	for n := range 40 {
		inputs[fmt.Sprintf("%d of a", n)] = bytes.Repeat([]byte{'a'}, n)
		inputs[fmt.Sprintf("%d of noise", n)] = noise[:n]
	}
	// Repetitions of every length that is split in another way.
	for _, n := range []int{3, 4, 5, 6, 257, 258, 259, 260, 261, 262, 515, 516, 517, 518, 519, 1000} {
		inputs[fmt.Sprintf("repetition of %d", n)] = slicesOf(" ", hex[:n], " . ", hex[:n], "! some more text at the end")
	}
	// The farthest repetition that may be said, and those around it.
	for distance := window - 3; distance <= window+3; distance++ {
		inputs[fmt.Sprintf("distance %d", distance)] = slicesOf(" needle in the haystack ", hex[:distance-24], " needle in the haystack ", "and what follows it")
	}
	for size := blockBytes - 2; size <= blockBytes+2; size++ {
		inputs[fmt.Sprintf("block of %d", size)] = bytes.Repeat([]byte("some words, again "), size)[:size]
		inputs[fmt.Sprintf("block and a half of %d", size)] = hex[:size+blockBytes/2-3]
	}
	d := new(deflater)
	for name, input := range inputs {
		t.Run(name, func(t *testing.T) { wantSame(t, d, input) })
	}
	t.Run("repetitions are found", func(t *testing.T) {
		for _, name := range []string{"word", "log", "chinese", "one byte", "distance 32768"} {
			if size := wantSame(t, d, inputs[name]); size > len(inputs[name])*2/3 {
				t.Errorf("%s: %d of %d bytes", name, size, len(inputs[name]))
			}
		}
	})
	t.Run("places start anew", func(t *testing.T) {
		d.base = 1<<32 - 1<<20
		wantSame(t, d, inputs["log"])
		wantSame(t, d, inputs["log"])
	})
}

func slicesOf(parts ...any) []byte {
	var all []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			all = append(all, p...)
		case []byte:
			all = append(all, p...)
		}
	}
	return all
}

// fibonacci returns letters as often as the Fibonacci numbers say: without a
// bound their codes would have 23 bits.
func fibonacci() []byte {
	var text []byte
	for i, a, b := 0, 1, 1; i < 24; i, a, b = i+1, b, a+b {
		text = append(text, bytes.Repeat([]byte{byte('A' + i)}, a)...)
	}
	r := rand.New(rand.NewPCG(7, 8))
	r.Shuffle(len(text), func(i, j int) { text[i], text[j] = text[j], text[i] })
	return text
}

// TestCodesAreComplete holds that every code that is made is a complete prefix
// code: some inflaters refuse any other.
func TestCodesAreComplete(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 2000 {
		counts := make([]uint32, 2+r.IntN(literalsCount-1))
		shape := r.IntN(20)
		for i := range counts {
			if r.IntN(3) > 0 {
				counts[i] = 1 + r.Uint32N(4)<<r.IntN(1+shape)
			}
		}
		most := []int{longestOrderCode, longestCode}[r.IntN(2)]
		counts = counts[:min(len(counts), 1<<most)]
		var tokens tokens
		codes := make([]code, len(counts))
		tokens.makeCodes(codes, counts, most)
		used, room := 0, 0
		for i, c := range codes {
			if (counts[i] > 0) != (c.size() > 0) || int(c.size()) > most {
				t.Fatalf("a count of %d has a code of %d bits", counts[i], c.size())
			}
			if c.size() > 0 {
				used++
				room += 1 << (most - int(c.size()))
			}
		}
		if used > 1 && room != 1<<most {
			t.Fatalf("%d codes of at most %d bits take %d of the room of %d", used, most, room, 1<<most)
		}
	}
}

func FuzzDeflate(f *testing.F) {
	f.Add([]byte("a word, a word, a word and a word"), uint16(1))
	f.Add(fibonacci()[:2000], uint16(3))
	f.Add([]byte("日志,日志,日志,日志,日志,日志"), uint16(700))
	d := new(deflater)
	f.Fuzz(func(t *testing.T, data []byte, times uint16) {
		input := bytes.Repeat(data, 1+int(times)%100)
		input = input[:min(len(input), 2*blockBytes)]
		wantSame(t, d, input)
	})
}
