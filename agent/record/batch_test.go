package record

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	heartbeat = &Table{Name: "Heartbeat", DataType: "HEALTH_ASSESSMENT_BLOB", IPName: "LogManagement"}
	custom    = &Table{Name: "App_CL", LogType: "App", TimeField: "Timestamp"}
)

func text(key, value string) Field { return Field{Key: key, Value: []byte(value)} }

// inflate returns the JSON of a body, and fails the test unless the body is a
// complete zlib stream.
func inflate(t *testing.T, body []byte) string {
	t.Helper()
	raw, err := Inflate(body, 1<<24)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestBodyOfAKnownRequest compares with a request of the OMS agent for Linux:
// its JSON, byte for byte, and the checksum that ends its zlib stream.
func TestBodyOfAKnownRequest(t *testing.T) {
	b := NewBatch(heartbeat, NewCompressor())
	b.Add([]Field{text("Timestamp", "2024-01-02T03:04:05.123Z"), text("Computer", "host1")})
	piece := b.Cut()
	body := slices.Concat(piece.Data, piece.Tail)

	want := `{"DataType":"HEALTH_ASSESSMENT_BLOB","IPName":"LogManagement","DataItems":[` +
		`{"Timestamp":"2024-01-02T03:04:05.123Z","Computer":"host1"}]}`
	if got := inflate(t, body); got != want {
		t.Errorf("body = %s, want %s", got, want)
	}
	if got := hex.EncodeToString(body[:2]); got != "7801" {
		t.Errorf("body begins %s, want 7801", got)
	}
	if got := hex.EncodeToString(body[len(body)-4:]); got != "1fab2906" {
		t.Errorf("body ends %s, want 1fab2906", got)
	}
	if got := hex.EncodeToString(piece.Tail[:7]); got != "010200fdff5d7d" {
		t.Errorf("tail begins %s, want a final stored block of ]}", got)
	}
	if want := len(want) - len("]}"); piece.Raw != want || piece.Rows != 1 {
		t.Errorf("piece says %d raw bytes and %d rows, want %d and 1", piece.Raw, piece.Rows, want)
	}
}

func TestRowsOfEveryKind(t *testing.T) {
	b := NewBatch(custom, NewCompressor())
	b.Add([]Field{
		{Kind: Members, Value: []byte(`"Computer":"host1","FilePath":"/a"`)},
		text("RawData", `say "hi"`),
		{Key: "Count", Kind: JSON, Value: []byte("42")},
	})
	b.Add(nil)
	piece := b.Cut()
	want := `[{"Computer":"host1","FilePath":"/a","RawData":"say \"hi\"","Count":42},{}]`
	if got := inflate(t, slices.Concat(piece.Data, piece.Tail)); got != want {
		t.Errorf("body = %s, want %s", got, want)
	}
}

// TestBodyIsCompleteAfterEveryPiece cuts bodies at random places and holds
// every prefix of pieces to the plain JSON of its rows.
func TestBodyIsCompleteAfterEveryPiece(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	lines := logLines(2000)
	compressor := NewCompressor()
	for _, table := range []*Table{heartbeat, custom} {
		b := NewBatch(table, compressor)
		for round := range 20 {
			b.Begin()
			var body []byte
			var plain []string
			raw := 0
			for range 1 + r.IntN(5) {
				rows := 1 + r.IntN(200)
				for range rows {
					line := lines[r.IntN(len(lines))]
					b.Add([]Field{{Key: "RawData", Value: line}})
					plain = append(plain, `{"RawData":`+string(AppendText(nil, line))+`}`)
				}
				want := string(table.head()) + strings.Join(plain, ",") + string(table.foot())
				if b.Raw() != len(want) {
					t.Fatalf("round %d: Raw() = %d, want %d", round, b.Raw(), len(want))
				}
				piece := b.Cut()
				body = append(body, piece.Data...)
				raw += piece.Raw
				if got := inflate(t, slices.Concat(body, piece.Tail)); got != want {
					t.Fatalf("%s, round %d: body after %d rows is not their JSON", table.Name, round, len(plain))
				}
				if piece.Rows != rows || raw+len(table.foot()) != len(want) || b.Raw() != len(want) {
					t.Fatalf("round %d: pieces say %d rows in the last, %d raw bytes; want %d, %d",
						round, piece.Rows, raw, rows, len(want)-len(table.foot()))
				}
			}
		}
	}
}

// FuzzBody cuts one text into rows and pieces wherever cuts says.
func FuzzBody(f *testing.F) {
	f.Add([]byte("some text of no meaning, but some length"), []byte{3, 0, 9, 130, 255})
	f.Add(bytes.Repeat([]byte("abcd\"\n\xff"), 5000), []byte{255, 128, 200, 1, 1, 1})
	compressor := NewCompressor()
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		b := NewBatch(custom, compressor)
		var body, tail []byte
		var plain []string
		for _, c := range append(cuts, 255) {
			n := min(int(c)*len(data)/256, len(data))
			row := data[:n]
			data = data[n:]
			b.Add([]Field{{Key: "A", Value: row}})
			plain = append(plain, `{"A":`+string(AppendText(nil, row))+`}`)
			if c >= 128 {
				piece := b.Cut()
				body, tail = append(body, piece.Data...), piece.Tail
			}
		}
		if got, want := inflate(t, append(body, tail...)), "["+strings.Join(plain, ",")+"]"; got != want {
			t.Errorf("body = %.200s, want %.200s", got, want)
		}
	})
}

// TestBeginTakesPendingRowsAlong: a body is ended while rows are pending, as
// the emitter does when the rows would make it too long.
func TestBeginTakesPendingRowsAlong(t *testing.T) {
	b := NewBatch(custom, NewCompressor())
	b.Add([]Field{text("A", "1")})
	first := b.Cut()
	body := slices.Concat(first.Data, first.Tail)
	b.Add([]Field{text("A", "2")})
	if got, want := b.Raw(), len(`[{"A":"1"},{"A":"2"}]`); got != want {
		t.Errorf("Raw() before Begin = %d, want %d", got, want)
	}
	b.Begin()
	if got, want := b.Raw(), len(`[{"A":"2"}]`); got != want || b.Rows() != 1 || b.Pending() != len(`,{"A":"2"}`) {
		t.Errorf("after Begin: Raw() %d, Rows() %d, Pending() %d; want %d, 1, 10", got, b.Rows(), b.Pending(), want)
	}
	second := b.Cut()
	if got, want := inflate(t, body), `[{"A":"1"}]`; got != want {
		t.Errorf("first body = %s, want %s", got, want)
	}
	if got, want := inflate(t, slices.Concat(second.Data, second.Tail)), `[{"A":"2"}]`; got != want {
		t.Errorf("second body = %s, want %s", got, want)
	}
}

// TestPieceStaysForAnotherTry: rows may be added between two attempts to store
// the same piece.
func TestPieceStaysForAnotherTry(t *testing.T) {
	b := NewBatch(custom, NewCompressor())
	b.Add([]Field{text("A", "1")})
	piece := b.Cut()
	before := slices.Concat(piece.Data, piece.Tail)
	for range 1000 {
		b.Add([]Field{text("A", "more")})
	}
	if after := slices.Concat(piece.Data, piece.Tail); !bytes.Equal(before, after) {
		t.Error("the piece changed before the next Cut")
	}
}

func TestCutWithoutRows(t *testing.T) {
	b := NewBatch(custom, NewCompressor())
	b.Add([]Field{text("A", "1")})
	data := slices.Clone(b.Cut().Data)
	if piece := b.Cut(); piece.Data != nil || piece.Tail != nil || piece.Rows != 0 || piece.Raw != 0 {
		t.Errorf("Cut without rows = %+v, want nothing", piece)
	}
	b.Add([]Field{text("A", "2")})
	piece := b.Cut()
	if got, want := inflate(t, slices.Concat(data, piece.Data, piece.Tail)), `[{"A":"1"},{"A":"2"}]`; got != want {
		t.Errorf("body = %s, want %s", got, want)
	}
}

func TestAddAllocatesNothing(t *testing.T) {
	line := bytes.Repeat([]byte(`a "quoted" line `), 10)
	fields := []Field{{Kind: Members, Value: []byte(benchMembers)}, {Key: "RawData", Value: line}}
	b := NewBatch(custom, NewCompressor())
	fill := func() {
		for range 500 {
			b.Add(fields)
		}
		b.Cut()
	}
	if n := testing.AllocsPerRun(20, fill); n != 0 {
		t.Errorf("%v allocations for 500 rows and a cut, want 0", n)
	}
}

// TestBuffersShrinkAfterABurst: memory follows the load down as well as up.
func TestBuffersShrinkAfterABurst(t *testing.T) {
	b := NewBatch(custom, NewCompressor())
	line := []byte(strings.Repeat("burst ", 1000))
	for range 500 {
		b.Add([]Field{{Key: "RawData", Value: line}})
	}
	b.Cut()
	if size := cap(b.rows); size < 500*len(line) {
		t.Errorf("the buffer was given back during the burst: %d bytes are left", size)
	}
	b.Add([]Field{text("A", "1")})
	b.Cut()
	if size := cap(b.rows); size > 64<<10 {
		t.Errorf("%d bytes are kept after the burst, want at most 64 KiB", size)
	}
}

func TestCompressorIsSafeForManyBatches(t *testing.T) {
	compressor := NewCompressor()
	failed := make(chan error)
	const batches = 8
	for i := range batches {
		go func() {
			b := NewBatch(custom, compressor)
			value := strings.Repeat(fmt.Sprint(i), 5000)
			b.Add([]Field{text("A", value)})
			piece := b.Cut()
			raw, err := Inflate(slices.Concat(piece.Data, piece.Tail), 1<<20)
			if want := `[{"A":"` + value + `"}]`; err == nil && string(raw) != want {
				err = fmt.Errorf("batch %d holds another's rows", i)
			}
			failed <- err
		}()
	}
	for range batches {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if owned := len(compressor.idle); owned > cap(compressor.slots) {
		t.Errorf("compressor owns %d encoders, want at most %d", owned, cap(compressor.slots))
	}
}

func TestLabel(t *testing.T) {
	tests := []struct {
		table *Table
		label string
	}{
		{heartbeat, `{"name":"Heartbeat","dataType":"HEALTH_ASSESSMENT_BLOB","ipName":"LogManagement"}`},
		{custom, `{"name":"App_CL","logType":"App","timeField":"Timestamp"}`},
	}
	for _, tt := range tests {
		if got := string(tt.table.Label()); got != tt.label {
			t.Errorf("label of %s = %s, want %s", tt.table.Name, got, tt.label)
		}
		got, err := ParseLabel([]byte(tt.label))
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(tt.table, got); diff != "" {
			t.Errorf("ParseLabel: %s", diff)
		}
	}
	for _, bad := range []string{"", "{}", "[]", `{"name":7}`} {
		if got, err := ParseLabel([]byte(bad)); err == nil {
			t.Errorf("ParseLabel(%q) = %+v, want an error", bad, got)
		}
	}
}

func TestTablesThatKeepTheTimeOfARow(t *testing.T) {
	syslog := &Table{Name: "Syslog", DataType: "LINUX_SYSLOGS_BLOB", IPName: "LOGMANAGEMENT", EventTime: "EventTime"}
	for table, want := range map[*Table]bool{heartbeat: false, custom: true, syslog: true, heartbeat.Late(): true} {
		if table.KeepsTime() != want {
			t.Errorf("%s keeps the time of a row: %v, want %v", table.Name, !want, want)
		}
	}
	if diff := cmp.Diff(&Table{Name: "HeartbeatLate_CL", LogType: "HeartbeatLate"}, heartbeat.Late()); diff != "" {
		t.Error(diff)
	}
}

func TestTimeOf(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	for row, known := range map[string]bool{
		`{"Timestamp":"2026-01-02T03:04:05.678Z","Host":"h"}`:                    true,
		`{"Message":"{\"Timestamp\":7}","Timestamp":"2026-01-02T03:04:05.678Z"}`: true,
		`{"Name":"AvailableMB","CollectionTime":"2026-01-02T03:04:05.678Z"}`:     true,
		`{"Host":"h"}`:          false,
		`{"Timestamp":"today"}`: false,
		`{`:                     false,
	} {
		got, ok := TimeOf([]byte(row))
		if ok != known || known && !got.Equal(at) {
			t.Errorf("TimeOf(%s) = %v, %v", row, got, ok)
		}
	}
}

func FuzzTimeOf(f *testing.F) {
	f.Add([]byte(`{"Timestamp":"2026-01-02T03:04:05.678Z"}`))
	f.Add([]byte(`{"Timestamp":null}`))
	f.Fuzz(func(t *testing.T, row []byte) {
		at, ok := TimeOf(row)
		if ok == at.IsZero() || ok && !json.Valid(row) {
			t.Errorf("TimeOf(%q) = %v, %v", row, at, ok)
		}
	})
}

func TestSplitRowsAndBodyAreInverse(t *testing.T) {
	for _, table := range []*Table{heartbeat, custom} {
		b := NewBatch(table, NewCompressor())
		var want []string
		for i, line := range append(logLines(50), []byte(`}],{"[`), []byte(`\"`)) {
			b.Add([]Field{{Key: "Data", Value: line}, {Key: "More", Kind: JSON, Value: []byte(`{"a":[{},"}"]}`)}})
			want = append(want, `{"Data":`+string(AppendText(nil, line))+`,"More":{"a":[{},"}"]}}`)
			if i%7 == 0 {
				b.Begin() // only the last body is looked at
				want = want[:0]
				b.Cut()
				b.Begin()
			}
		}
		piece := b.Cut()
		raw := []byte(inflate(t, slices.Concat(piece.Data, piece.Tail)))
		rows, err := SplitRows(table, raw)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, row := range rows {
			got = append(got, string(row))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", table.Name, diff)
		}
		if again := inflate(t, Body(table, rows)); again != string(raw) {
			t.Errorf("%s: Body(SplitRows(raw)) = %s, want %s", table.Name, again, raw)
		}
	}
}

func TestSplitRowsRefusesWhatIsNotOurs(t *testing.T) {
	for _, raw := range []string{
		"", "[", "]", "{}", `[{}`, `[{},]`, `[,{}]`, `[{}{}]`, `[{"a":"]`, `[{"a":"\"}]`, `[1]`, `[{}] `,
	} {
		if rows, err := SplitRows(custom, []byte(raw)); err == nil {
			t.Errorf("SplitRows(%q) = %q, want an error", raw, rows)
		}
	}
}

func FuzzSplitRows(f *testing.F) {
	f.Add([]byte(`[{"a":"b"},{"c":{"d":"}"}}]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`[{"a":"\\"}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		rows, err := SplitRows(custom, raw)
		if json.Valid(raw) && bytes.HasPrefix(raw, []byte(`[{`)) && err != nil && !hasSpace(raw) && onlyObjects(raw) {
			t.Fatalf("SplitRows(%q): %v", raw, err)
		}
		if err != nil {
			return
		}
		if joined := "[" + string(bytes.Join(rows, []byte(","))) + "]"; joined != string(raw) {
			t.Fatalf("rows of %q join to %q", raw, joined)
		}
	})
}

func hasSpace(raw []byte) bool { return bytes.ContainsAny(raw, " \t\r\n") }

func onlyObjects(raw []byte) bool {
	var rows []map[string]any
	return json.Unmarshal(raw, &rows) == nil && !bytes.Contains(raw, []byte("null"))
}

func TestInflateRefuses(t *testing.T) {
	b := NewBatch(custom, NewCompressor())
	b.Add([]Field{text("A", strings.Repeat("x", 1000))})
	piece := b.Cut()
	body := slices.Concat(piece.Data, piece.Tail)
	if _, err := Inflate(body, 1010); err != nil {
		t.Errorf("Inflate to exactly the limit: %v", err)
	}
	flipped := slices.Clone(body)
	flipped[len(flipped)-1] ^= 1
	for name, try := range map[string]struct {
		body  []byte
		limit int
	}{
		"more than the limit": {body, 1009},
		"a wrong checksum":    {flipped, 1 << 20},
		"no tail":             {piece.Data, 1 << 20},
		"no header":           {[]byte("plain text"), 1 << 20},
	} {
		if _, err := Inflate(try.body, try.limit); err == nil {
			t.Errorf("Inflate took a body with %s", name)
		}
	}
}
