package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
)

// setOwner does nothing: a file inherits its owner and access from the folder.
func setOwner(*os.File, int, int) error { return nil }

// syncDir does nothing: NTFS journals names itself.
func syncDir(string) error { return nil }

// openNoFollow opens path when it is no link, and checks that it opened what it
// looked at. A Root opens files so that they can be replaced meanwhile, which
// os.Open does not.
func openNoFollow(path string) (*os.File, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	file, err := openIn(root, filepath.Base(path))
	return file, errors.Join(err, root.Close())
}

func openIn(root *os.Root, name string) (*os.File, error) {
	seen, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !seen.Mode().IsRegular() {
		return nil, ErrNotRegular
	}
	file, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	opened, err := file.Stat()
	if err == nil && !os.SameFile(seen, opened) {
		err = ErrNotRegular
	}
	if err != nil {
		// Nothing was written, so a failed close loses nothing.
		_ = file.Close()
		return nil, err
	}
	return file, nil
}
