package emulator

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A store keeps rows as JSON lines in <workspace>/<table>.jsonl below dir. A
// row is in its file before the request that brought it is answered. Memory
// holds counts and an offset for every markEvery-th row.
type store struct {
	dir    string
	mu     sync.Mutex
	tables map[tableKey]*table
}

type tableKey struct{ workspace, name string }

// A table is one file and what is known of it.
type table struct {
	path    string
	rows    int64
	size    int64   // bytes of whole rows
	marks   []int64 // where row 1, 1+markEvery, 1+2*markEvery ... begin
	last    time.Time
	minutes [rateMinutes]minute
}

// A minute counts the rows that arrived in it.
type minute struct {
	at   int64 // minutes since 1970
	rows int
}

const (
	markEvery   = 512
	rateMinutes = 60
	suffixRows  = ".jsonl"
)

// openStore counts what earlier runs left. A last line without its end was
// never acknowledged; it is set aside in a file of its own, so that the next
// row does not run into it.
func openStore(dir string, now time.Time, logf func(string, ...any)) (*store, error) {
	s := &store{dir: dir, tables: map[tableKey]*table{}}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"+suffixRows))
	if err != nil {
		return nil, fmt.Errorf("open rows: %w", err)
	}
	for _, path := range files {
		t, rest, err := openTable(path)
		if err != nil {
			return nil, fmt.Errorf("open rows: %w", err)
		}
		if len(rest) > 0 {
			aside := fmt.Sprintf("%s.torn-%d", path, now.UnixNano())
			if err := errors.Join(writeFile(aside, rest, 0o600), os.Truncate(path, t.size)); err != nil {
				return nil, fmt.Errorf("set torn row aside: %w", err)
			}
			logf("set the torn last row of %s aside in %s", path, aside)
		}
		s.tables[tableKey{filepath.Base(filepath.Dir(path)), strings.TrimSuffix(filepath.Base(path), suffixRows)}] = t
	}
	return s, nil
}

// openTable counts the rows of a file and returns what follows the last one.
func openTable(path string) (t *table, rest []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	t = &table{path: path}
	var before []byte
	for lines := bufio.NewReaderSize(f, 1<<16); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			t.last = receivedTime(before)
			return t, line, nil
		}
		if err != nil {
			return nil, nil, err
		}
		t.count(int64(len(line)))
		before = line
	}
}

// count enters a row of that many bytes.
func (t *table) count(size int64) {
	if t.rows%markEvery == 0 {
		t.marks = append(t.marks, t.size)
	}
	t.rows++
	t.size += size
}

// receivedTime reads when a row arrived; a row that does not say is no error.
func receivedTime(line []byte) time.Time {
	var r struct {
		At time.Time `json:"_ReceivedTime"`
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return time.Time{}
	}
	return r.At
}

// add appends rows to a table, all or none.
func (s *store) add(workspace, name string, rows []row, now time.Time) error {
	var text bytes.Buffer
	sizes := make([]int64, 0, len(rows))
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	for _, r := range rows {
		before := text.Len()
		if err := enc.Encode(r); err != nil {
			return fmt.Errorf("keep rows of %s: %w", name, err)
		}
		sizes = append(sizes, int64(text.Len()-before))
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	key := tableKey{workspace, name}
	t := s.tables[key]
	if t == nil {
		t = &table{path: filepath.Join(s.dir, workspace, name+suffixRows)}
		if err := os.MkdirAll(filepath.Dir(t.path), 0o750); err != nil {
			return fmt.Errorf("keep rows of %s: %w", name, err)
		}
	}
	if err := t.write(text.Bytes()); err != nil {
		return fmt.Errorf("keep rows of %s: %w", name, err)
	}
	s.tables[key] = t
	for _, size := range sizes {
		t.count(size)
	}
	t.last = now
	t.minute(now).rows += len(rows)
	return nil
}

// write puts text behind the last row, or takes back what it could not
// complete.
func (t *table) write(text []byte) error {
	f, err := os.OpenFile(t.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // what WriteAt wrote is with the kernel
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != t.size {
		return fmt.Errorf("%s has %d bytes, the emulator left it with %d: somebody else writes it", t.path, info.Size(), t.size)
	}
	if _, err := f.WriteAt(text, t.size); err != nil {
		return errors.Join(err, f.Truncate(t.size))
	}
	return nil
}

// minute returns the counter for now, emptied if it belonged to the hour before.
func (t *table) minute(now time.Time) *minute {
	at := now.Unix() / 60
	m := &t.minutes[((at%rateMinutes)+rateMinutes)%rateMinutes]
	if m.at != at {
		*m = minute{at: at}
	}
	return m
}

// TableCount is one table of one workspace.
type TableCount struct {
	Workspace string    `json:"workspace"`
	Table     string    `json:"table"`
	Rows      int64     `json:"rows"`
	Last      time.Time `json:"last"` // when the last row arrived
}

// Tables lists the tables that have rows, by workspace and name.
func (e *Emulator) Tables() []TableCount {
	s := e.store
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []TableCount{}
	for key, t := range s.tables {
		list = append(list, TableCount{Workspace: key.workspace, Table: key.name, Rows: t.rows, Last: t.last})
	}
	slices.SortFunc(list, func(a, b TableCount) int {
		return cmp.Or(cmp.Compare(a.Workspace, b.Workspace), cmp.Compare(a.Table, b.Table))
	})
	return list
}

// TableRate is the rows of one table in each of the last 60 minutes, the
// present one last.
type TableRate struct {
	Workspace string           `json:"workspace"`
	Table     string           `json:"table"`
	Rows      [rateMinutes]int `json:"rows"`
}

// rates lists how fast rows arrive. It knows what arrived since the start.
func (s *store) rates(tables []TableCount, now time.Time) []TableRate {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []TableRate{}
	first := now.Unix()/60 - rateMinutes + 1
	for _, c := range tables {
		rate := TableRate{Workspace: c.Workspace, Table: c.Table}
		for _, m := range s.tables[tableKey{c.Workspace, c.Table}].minutes {
			if i := m.at - first; i >= 0 && i < rateMinutes {
				rate.Rows[i] = m.rows
			}
		}
		list = append(list, rate)
	}
	return list
}

// A StoredRow is a row with its number in the table, from 1.
type StoredRow struct {
	Number int64           `json:"n"`
	Row    json.RawMessage `json:"row"`
}

// read returns at most limit rows that contain text. With after >= 0 they are
// the first ones after that number; otherwise the last ones of the table.
// next is the number to go on after.
func (s *store) read(key tableKey, after int64, limit int, text string) (found []StoredRow, next int64, err error) {
	s.mu.Lock()
	t := s.tables[key]
	if t == nil {
		s.mu.Unlock()
		return []StoredRow{}, 0, nil
	}
	path, rows, size, marks := t.path, t.rows, t.size, t.marks
	s.mu.Unlock()

	tail := after < 0
	if tail && text == "" {
		after = rows - int64(limit)
	}
	after = max(after, 0)
	if after >= rows {
		return []StoredRow{}, rows, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read rows: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	mark := after / markEvery
	lines := bufio.NewReaderSize(io.NewSectionReader(f, marks[mark], size-marks[mark]), 1<<16)
	found = []StoredRow{}
	for next = mark * markEvery; next < rows && (tail || len(found) < limit); {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil, 0, fmt.Errorf("read row %d of %s: %w", next+1, key.name, err)
		}
		next++
		if next <= after || !bytes.Contains(line, []byte(text)) {
			continue
		}
		found = append(found, StoredRow{next, bytes.TrimSuffix(line, []byte("\n"))})
		if len(found) > limit {
			found = found[1:]
		}
	}
	return found, next, nil
}

// Rows returns every row of a table in the order of arrival, as users see
// them. A table without rows is empty, not an error.
func (e *Emulator) Rows(workspace, table string) ([]map[string]any, error) {
	rows := []map[string]any{}
	for after := int64(0); ; {
		page, next, err := e.store.read(tableKey{workspace, table}, after, maxRowsPage, "")
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			return rows, nil
		}
		for _, stored := range page {
			var r map[string]any
			if err := json.Unmarshal(stored.Row, &r); err != nil {
				return nil, fmt.Errorf("read row %d of %s: %w", stored.Number, table, err)
			}
			rows = append(rows, r)
		}
		after = next
	}
}

// RowsFile is the JSON lines file that holds the rows of a table.
func (e *Emulator) RowsFile(workspace, table string) string {
	return filepath.Join(e.store.dir, workspace, table+suffixRows)
}
