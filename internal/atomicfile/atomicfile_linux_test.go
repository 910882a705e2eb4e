package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

func TestWriteSetsModeDespiteUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	for _, mode := range []fs.FileMode{0o600, 0o640, 0o644} {
		path := filepath.Join(t.TempDir(), "file")
		if err := Write(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != mode {
			t.Errorf("mode = %v, want %v", info.Mode(), mode)
		}
	}
}

// The link itself is replaced; what it pointed to stays.
func TestWriteReplacesSymlink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := Write(link, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{target: "precious", link: "new"} {
		if got, err := ReadLimited(path, 100); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v; want %q", filepath.Base(path), got, err, want)
		}
	}
}

func TestWriteOwned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 65534, 65533
	}
	if err := WriteOwned(path, []byte("x"), 0o640, uid, gid); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	if int(stat.Uid) != uid || int(stat.Gid) != gid || info.Mode() != 0o640 {
		t.Errorf("owner %d:%d mode %v, want %d:%d -rw-r-----", stat.Uid, stat.Gid, info.Mode(), uid, gid)
	}
}

func TestReadLimitedRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("root's"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, pipe, "/dev/zero"} {
		if _, err := ReadLimited(path, 100); !errors.Is(err, ErrNotRegular) {
			t.Errorf("ReadLimited(%s) error = %v, want %v", path, err, ErrNotRegular)
		}
	}
}

// TestWriteSyncsBeforeItRenames looks at the system calls: the file is synced,
// then it gets its name, then the folder is synced. In any other order a power
// cut could leave an empty file, or none.
func TestWriteSyncsBeforeItRenames(t *testing.T) {
	const variable = "ATOMICFILE_TEST_PATH"
	if path := os.Getenv(variable); path != "" {
		if err := Write(path, []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	folder := filepath.Join(dir, "folder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	traced := exec.Command("strace", "-f", "-y", "-o", trace, "-e", "trace=fsync,/^rename", os.Args[0], "-test.run=^TestWriteSyncsBeforeItRenames$")
	traced.Env = append(os.Environ(), variable+"="+filepath.Join(folder, "status"))
	if out, err := traced.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	calls, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`(?s)fsync\(\d+<` + regexp.QuoteMeta(folder) + `/\.status\.[^>]*>.*rename\w*\(.*status".*fsync\(\d+<` + regexp.QuoteMeta(folder) + `>`)
	if !want.Match(calls) {
		t.Errorf("not synced, renamed, folder synced, in this order:\n%s", calls)
	}
}
