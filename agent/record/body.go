package record

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"
)

// Inflate returns what a body holds, checksum verified. It fails when that is
// more than limit bytes.
func Inflate(body []byte, limit int) ([]byte, error) {
	r, err := zlib.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("inflate body of %d bytes: %w", len(body), err)
	}
	raw, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("inflate body of %d bytes: %w", len(body), err)
	}
	if len(raw) > limit {
		return nil, fmt.Errorf("inflate body of %d bytes: more than %d bytes of JSON", len(body), limit)
	}
	return raw, nil
}

// SplitRows returns the rows in raw, the inflated body of a batch for t. The
// rows are slices of raw.
func SplitRows(t *Table, raw []byte) ([][]byte, error) {
	rest, headed := bytes.CutPrefix(raw, t.head())
	rest, footed := bytes.CutSuffix(rest, t.foot())
	if !headed || !footed {
		return nil, fmt.Errorf("split body of %d bytes: not the envelope of table %s", len(raw), t.Name)
	}
	var rows [][]byte
	for len(rest) > 0 {
		if len(rows) > 0 {
			if rest[0] != ',' {
				return nil, fmt.Errorf("split body of %d bytes: no comma after row %d", len(raw), len(rows))
			}
			rest = rest[1:]
		}
		n := rowLength(rest)
		if n == 0 {
			return nil, fmt.Errorf("split body of %d bytes: row %d is not a whole JSON object", len(raw), len(rows)+1)
		}
		rows = append(rows, rest[:n])
		rest = rest[n:]
	}
	return rows, nil
}

// rowLength returns the length of the JSON object that s begins with, 0 when
// it begins with none or it does not end.
func rowLength(s []byte) int {
	if len(s) == 0 || s[0] != '{' {
		return 0
	}
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			depth++
		case c == '}':
			depth--
			if depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

// Body returns the body that delivers rows, each a JSON object, to t; nil when
// there are none.
func Body(t *Table, rows [][]byte) []byte {
	b := NewBatch(t, NewCompressor())
	for _, row := range rows {
		b.rows = append(append(b.rows, ','), row...)
		b.n++
	}
	piece := b.Cut()
	return append(piece.Data, piece.Tail...)
}
