package record

import (
	"bytes"
	"fmt"
	"hash/adler32"
	"math/rand/v2"
	"testing"
)

// logLines returns n lines of about 200 bytes that look like a service's log.
func logLines(n int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	verbs := []string{"GET", "PUT", "POST", "DELETE"}
	levels := []string{"INFO", "INFO", "INFO", "WARN", "ERROR"}
	lines := make([][]byte, n)
	for i := range lines {
		lines[i] = fmt.Appendf(nil,
			"2026-03-04T05:%02d:%02d.%03dZ %s [worker-%d] request id=%016x method=%s path=\"/api/v1/orders/%d/items\" status=%d bytes=%d took=%dms client=10.%d.%d.%d agent=\"example/1.%d\"",
			i/6000%60, i/100%60, i*10%1000, levels[r.IntN(5)], r.IntN(16), r.Uint64(), verbs[r.IntN(4)], r.IntN(100000),
			200+r.IntN(5)*100, r.IntN(100000), r.IntN(900), r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(30))
	}
	return lines
}

var benchTable = &Table{Name: "App_CL", LogType: "App", TimeField: "Timestamp"}

const benchMembers = `"Timestamp":"2026-03-04T05:06:07.089Z","Computer":"host1","FilePath":"/var/log/app/app.log"`

func BenchmarkAdd(b *testing.B) {
	lines := logLines(1000)
	batch := NewBatch(benchTable, NewCompressor())
	fields := []Field{{Kind: Members, Value: []byte(benchMembers)}, {Key: "RawData"}}
	size := 0
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		fields[1].Value = lines[i%len(lines)]
		size += len(fields[1].Value)
		batch.Add(fields)
		if batch.Rows() == len(lines) {
			batch.rows, batch.n = batch.rows[:0], 0
		}
	}
	b.SetBytes(int64(size / b.N))
}

// BenchmarkBody is the whole way of a row, in pieces of 256 KiB of lines.
func BenchmarkBody(b *testing.B) {
	lines := logLines(10000)
	batch := NewBatch(benchTable, NewCompressor())
	fields := []Field{{Kind: Members, Value: []byte(benchMembers)}, {Key: "RawData"}}
	in, out := 0, 0
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		fields[1].Value = lines[i%len(lines)]
		in += len(fields[1].Value)
		batch.Add(fields)
		if batch.Pending() >= 340<<10 {
			out += len(batch.Cut().Data)
		}
	}
	out += len(batch.Cut().Data)
	b.SetBytes(int64(in / b.N))
	b.ReportMetric(float64(out)/float64(in), "out/in")
}

func BenchmarkAppendText(b *testing.B) {
	for _, tt := range []struct {
		name string
		text []byte
	}{
		{"plain", bytes.Repeat([]byte("the quick brown fox "), 10)},
		{"quotes", bytes.Repeat([]byte(`{"key":"value"} `), 12)},
		{"chinese", bytes.Repeat([]byte("日志记录"), 16)},
	} {
		b.Run(tt.name, func(b *testing.B) {
			b.SetBytes(int64(len(tt.text)))
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf = AppendText(buf[:0], tt.text)
			}
		})
	}
}

func BenchmarkAdler(b *testing.B) {
	data := bytes.Join(logLines(1000), []byte("\n"))
	b.Run("ours", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			adler(adlerInit, data)
		}
	})
	b.Run("std", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			adler32.Checksum(data)
		}
	})
}
