// Package tail follows text files through rotation, line by line. It knows no
// format: it hands over blocks of whole lines, and remembers how far it got.
//
// A file is not its path, and not its inode alone: paths move on at rotation,
// inodes are given to new files, and a file may be cut and written anew under
// the same inode. So a place in a file is kept with a mark: the file's device,
// inode and time of birth, a hash of its first kilobyte, and a hash of the
// bytes just before the place. Reading goes on only where all of that is as it
// was. What does not fit is classified:
//
//   - the path leads to another file: rotated. The old file is read to its end
//     wherever it is now, the new one from its beginning.
//   - the same file, other bytes: truncated. It is read from its beginning, and
//     a copy that was made before the cut is found and read to its end.
//   - no file: deleted. What is open is read to its end, then forgotten.
//
// While the spool has no room nothing is read, but files go on being found and
// held open, so that what is rotated away or deleted meanwhile is read later.
//
// What is known to be lost is told to Emitter.Lost with its exact bytes. Its
// records are exact too for what waited for the spool; otherwise they are the
// least that it can have been.
package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/internal/logfile"
)

// Options say what to follow and where the lines go.
type Options struct {
	// Name is the source's name, which checkpoint keys begin with.
	Name string
	// Table takes the rows.
	Table *record.Table
	// Patterns are absolute paths with * ? [] {} **.
	Patterns []string
	// Exclude are patterns of paths that are not read though Patterns match. A
	// file that is renamed to one is read to its end.
	Exclude []string
	// FromStart reads files that are there when a pattern is first used from
	// their beginning, not from their end. Files that appear later are always
	// read from their beginning.
	FromStart bool
	// RowBytes is what a row takes beside its line and the file's path, in
	// bytes of field values, so that no Emit grows over source.MaxEmit.
	RowBytes int
	// Deny lists folders that are never read, besides the secrets of the
	// machine: the agent's own state.
	Deny []string
	Log  *logfile.Logger

	pollOnly bool // without file system events, for tests of time
}

// Lines adds one row per line of block, which came from the file at path. The
// block is whole lines, except that a line may lack its end when it was cut
// for its length or will never be completed. CutLine takes it apart.
type Lines func(b *record.Batch, path string, block []byte)

// MaxLine is the most that is kept of one line, in bytes. The rest is skipped
// and counted as lost. A single line may be longer than source.MaxEmit; then
// it is emitted alone.
const MaxLine = 1 << 20

// CheckPatterns says what is wrong with patterns; nil when nothing is.
func CheckPatterns(patterns []string) error {
	if len(patterns) == 0 {
		return errors.New("check file patterns: there are none; give at least one absolute path")
	}
	for _, p := range patterns {
		if !filepath.IsAbs(p) {
			return fmt.Errorf("check file pattern %q: not an absolute path", p)
		}
		if !doublestar.ValidatePathPattern(p) {
			return fmt.Errorf("check file pattern %q: malformed; see that each [ and { is closed", p)
		}
	}
	return nil
}

// CutLine returns the first line of block without its end, LF or CR LF, and
// what follows it.
func CutLine(block []byte) (line, rest []byte) {
	i := bytes.IndexByte(block, '\n')
	if i < 0 {
		return block, nil
	}
	line, rest = block[:i], block[i+1:]
	if i > 0 && line[i-1] == '\r' {
		line = line[:i-1]
	}
	return line, rest
}

// Follow reads the files that match, as they are and as they grow, until ctx
// ends; then it returns nil. Trouble with single files goes to out.
func Follow(ctx context.Context, o Options, out source.Emitter, lines Lines) error {
	if err := CheckPatterns(o.Patterns); err != nil {
		return err
	}
	t := newFollower(o, out, lines)
	defer t.close()
	err := t.run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
