package tail

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// A guard keeps the agent from being used to read what whoever chose a path,
// or placed a link, could not have read. A pattern is a request to send a
// file to a workspace with the agent's rights; so the secrets of the machine
// are refused by path and by inode, and links lead only where their owner
// could have copied from.
type guard struct {
	dirs   []string // nothing below
	files  []string // and no other name of the same file
	names  []string // patterns of the last path element
	mounts []string // nothing on these file systems, wherever they are mounted

	openFile func(path string) (*os.File, error) // openPlain, unless in a test
}

// A refusalError says why a file is not read. It stays so until the file is another.
type refusalError string

func (r refusalError) Error() string { return string(r) }

// errCompressed refuses what rotation leaves of a file that was read when it was
// plain: no trouble.
const errCompressed = refusalError("it is compressed")

func refuse(format string, args ...any) error { return refusalError(fmt.Sprintf(format, args...)) }

func newGuard(deny []string) guard {
	g := systemGuard()
	g.openFile = openPlain
	for _, dir := range deny {
		g.dirs = append(g.dirs, dir)
		if final, err := filepath.EvalSymlinks(dir); err == nil && final != dir {
			g.dirs = append(g.dirs, final)
		}
	}
	return g
}

// open opens the regular file at path for reading and returns it with its
// status and its path without links.
func (g guard) open(path string) (*os.File, status, string, error) {
	final, err := resolve(path)
	if err != nil {
		return nil, status{}, "", err
	}
	if err := g.admitPath(final); err != nil {
		return nil, status{}, "", err
	}
	if st, err := lstatPath(final); err == nil && st.kind != 0 {
		return nil, status{}, "", refuse("it is a %s, and only regular files are read", kindName(st.kind))
	}
	f, err := g.openFile(final)
	if err != nil {
		return nil, status{}, "", err
	}
	st, err := statFile(f)
	if err == nil {
		err = g.admit(st)
	}
	if err == nil {
		final, err = finalPath(f, final)
	}
	if err == nil {
		err = g.admitPath(final)
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, status{}, "", err
	}
	return f, st, final, nil
}

func (g guard) admitPath(path string) error {
	final := foldCase(path)
	for _, dir := range g.dirs {
		if rest, ok := strings.CutPrefix(final, foldCase(dir)); ok && (rest == "" || os.IsPathSeparator(rest[0])) {
			return refuse("files below %s are never read", dir)
		}
	}
	if slices.Contains(g.files, final) {
		return refuse("it holds credentials of this machine")
	}
	for _, name := range g.names {
		if doublestar.MatchUnvalidated(name, filepath.Base(final)) {
			return refuse("files named %s hold keys and are never read", name)
		}
	}
	return nil
}

// admit judges an open file, whatever name led to it.
func (g guard) admit(st status) error {
	if st.kind != 0 {
		return refuse("it is a %s, and only regular files are read", kindName(st.kind))
	}
	for _, secret := range g.files {
		if s, err := statPath(secret); err == nil && s.id.dev == st.id.dev && s.id.ino == st.id.ino {
			return refuse("it is another name of %s", secret)
		}
	}
	root, err := statPath("/")
	for _, mount := range g.mounts {
		m, mountErr := statPath(mount)
		if err == nil && mountErr == nil && m.id.dev == st.id.dev && m.id.dev != root.id.dev {
			return refuse("it is on the file system of %s", mount)
		}
	}
	return nil
}

// keyText is what every private key begins with, wideKeyText the same in UTF-16
// of either kind.
const (
	keyText     = "PRIVATE KEY-----"
	wideKeyText = "P\x00R\x00I\x00V\x00A\x00T\x00E\x00 \x00K\x00E\x00Y\x00-\x00-\x00-\x00-\x00-"
)

// admitHead judges the first bytes of a file.
func admitHead(head []byte) error {
	switch {
	case compressed(head):
		return errCompressed
	case bytes.Contains(head, []byte(keyText)), bytes.Contains(head, []byte(wideKeyText)):
		return refuse("it holds a private key")
	case bytes.HasPrefix(head, []byte("\xff\xfe\x00\x00")), bytes.HasPrefix(head, []byte("\x00\x00\xfe\xff")):
		return refuse("it is UTF-32; have it written as UTF-8")
	}
	return nil
}

// compressed reports whether head begins a gzip, zstd, bzip2 or xz file.
func compressed(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "\x28\xb5\x2f\xfd", "BZh", "\xfd7zXZ\x00"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return false
}

// resolve returns path without links. Every link on the way must belong to
// root or to the owner of what it leads to: a user's link to somebody else's
// file is refused.
func resolve(path string) (string, error) {
	const maxLinks = 40
	root := filepath.VolumeName(path) + string(filepath.Separator)
	final, todo := root, strings.TrimPrefix(filepath.Clean(path), root)
	for links := 0; todo != ""; {
		var name string
		name, todo, _ = strings.Cut(todo, string(filepath.Separator))
		step := filepath.Join(final, name) // name may be ".."
		st, err := lstatPath(step)
		if err != nil {
			return "", err
		}
		if st.kind != fs.ModeSymlink {
			final = step
			continue
		}
		if links++; links > maxLinks {
			return "", refuse("more than %d links lead to it", maxLinks)
		}
		target, err := statPath(step)
		if err != nil {
			return "", err
		}
		if st.owner != 0 && st.owner != target.owner {
			return "", refuse("the link %s belongs to user %d, what it leads to belongs to user %d; have root make the link", step, st.owner, target.owner)
		}
		dest, err := os.Readlink(step)
		if err != nil {
			return "", fmt.Errorf("read link: %w", err)
		}
		if filepath.IsAbs(dest) {
			root = filepath.VolumeName(dest) + string(filepath.Separator)
			final, dest = root, strings.TrimPrefix(filepath.Clean(dest), root)
		}
		todo = strings.TrimSuffix(dest+string(filepath.Separator)+todo, string(filepath.Separator))
	}
	return final, nil
}

func kindName(kind fs.FileMode) string {
	switch kind {
	case fs.ModeDir:
		return "folder"
	case fs.ModeNamedPipe:
		return "named pipe"
	case fs.ModeSocket:
		return "socket"
	case fs.ModeSymlink:
		return "link"
	default:
		return "device"
	}
}
