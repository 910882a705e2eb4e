package tail

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func isRefusal(err error) bool {
	var r refusalError
	return errors.As(err, &r)
}

func link(t *testing.T, to, path string) string {
	t.Helper()
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestF13GuardRefuses opens what a log pattern must not be used to read.
func TestF13GuardRefuses(t *testing.T) {
	dir := t.TempDir()
	secret := writeFile(t, filepath.Join(dir, "secret"), "x\n")
	foreign := link(t, "/etc/hostname", filepath.Join(dir, "foreign"))
	if os.Geteuid() == 0 { // else the link is a mere user's already
		if err := os.Lchown(foreign, 4321, 4321); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(secret, filepath.Join(dir, "another name")); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }() // the test is over
	link(t, dir, filepath.Join(dir, "way round"))
	link(t, "loop", filepath.Join(dir, "loop"))

	g := newGuard([]string{filepath.Join(dir, "state")})
	g.files = append(g.files, secret)
	for name, path := range map[string]string{
		"a secret":                      secret,
		"a hard link to a secret":       filepath.Join(dir, "another name"),
		"the password file":             "/etc/shadow",
		"a link to the password file":   link(t, "/etc/shadow", filepath.Join(dir, "shadow.log")),
		"a file of the kernel":          "/proc/self/environ",
		"a link to a device":            link(t, "/dev/zero", filepath.Join(dir, "zero.log")),
		"a folder":                      dir,
		"a socket":                      filepath.Join(dir, "socket"),
		"the agent's state":             writeFile(t, filepath.Join(dir, "state", "a.log"), "x\n"),
		"the agent's state, roundabout": filepath.Join(dir, "way round", "state", "a.log"),
		"a key of the guest agent":      writeFile(t, filepath.Join(dir, "TransportCert.prv"), "x\n"),
		"a key of the host":             writeFile(t, filepath.Join(dir, "ssh_host_rsa_key"), "x\n"),
		"a user's link to root's file":  foreign,
	} {
		f, _, _, err := g.open(path)
		if err == nil {
			_ = f.Close() // it should not be open
		}
		if !isRefusal(err) {
			t.Errorf("open %s: %v, want it refused", name, err)
		}
	}
	if _, _, _, err := g.open(filepath.Join(dir, "loop")); err == nil {
		t.Error("open followed a loop of links")
	}
}

// TestF13NamedPipe would hang if the pipe were opened in the ordinary way.
func TestF13NamedPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := newGuard(nil).open(path); !isRefusal(err) {
		t.Errorf("open a named pipe: %v, want it refused", err)
	}
	f, err := openPlain(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	st, err := statFile(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := newGuard(nil).admit(st); !isRefusal(err) {
		t.Errorf("admit a named pipe: %v, want it refused", err)
	}
}

func TestGuardAdmits(t *testing.T) {
	dir := t.TempDir()
	plain := writeFile(t, filepath.Join(dir, "logs", "app.log"), "x\n")
	if os.Geteuid() == 0 { // root's links may lead to anybody's files
		if err := os.Chown(plain, 4321, 4321); err != nil {
			t.Fatal(err)
		}
	}
	link(t, "logs", filepath.Join(dir, "folder link"))
	link(t, "../logs/./app.log", filepath.Join(dir, "logs", "relative"))
	g := newGuard([]string{filepath.Join(dir, "logs", "app")}) // not app.log
	for _, path := range []string{
		plain,
		filepath.Join(dir, "folder link", "app.log"),
		filepath.Join(dir, "logs", "relative"),
		link(t, plain, filepath.Join(dir, "absolute")),
	} {
		f, _, real, err := g.open(path)
		if err != nil {
			t.Errorf("open %s: %v", path, err)
			continue
		}
		_ = f.Close() // nothing was written
		if want, err := filepath.EvalSymlinks(plain); err != nil || real != want {
			t.Errorf("open %s led to %s, want %s (%v)", path, real, want, err)
		}
	}
}

func TestAdmitHead(t *testing.T) {
	tests := []struct {
		name, head, want string
	}{
		{"text", "2026-01-02 started\n", ""},
		{"nothing", "", ""},
		{"a private key", "-----BEGIN RSA PRIVATE KEY-----\nMIIE", "private key"},
		{"UTF-16, little end first", "\xff\xfea\x00", ""},
		{"UTF-32, little end first", "\xff\xfe\x00\x00a\x00\x00\x00", "UTF-32"},
		{"UTF-32, big end first", "\x00\x00\xfe\xff\x00\x00\x00a", "UTF-32"},
		{"a private key in UTF-16, little end first", encode("-----BEGIN PRIVATE KEY-----\n", "le", true), "private key"},
		{"a private key in UTF-16, big end first", encode("-----BEGIN PRIVATE KEY-----\n", "be", false), "private key"},
		{"gzip", "\x1f\x8b\x08", "compressed"},
		{"text that begins like bzip2's", "BZ is a name", ""},
	}
	for _, tt := range tests {
		err := admitHead([]byte(tt.head))
		if isRefusal(err) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestF13RefusedFilesAreTrouble: the patterns match what is refused, one
// sentence says so for each, and the others are read.
func TestF13RefusedFilesAreTrouble(t *testing.T) {
	bubble(t, func(r *rig) {
		link(t, "/etc/shadow", r.path("shadow.log"))
		link(t, "/dev/zero", r.path("zero.log"))
		r.add("key.log", "-----BEGIN PRIVATE KEY-----\nMIIE\n")
		r.check(os.Mkdir(r.path("folder.log"), 0o755))
		r.add("app.log", "one\n")
		r.o.Patterns = append(r.o.Patterns, r.path("folder.log"))
		r.start()
		r.want("one")
		troubles := r.out.Troubles()
		for name, part := range map[string]string{
			"shadow.log": "never read|credentials", "zero.log": "device", "key.log": "private key", "folder.log": "folder",
		} {
			text := troubles[r.path(name)]
			found := false
			for want := range strings.SplitSeq(part, "|") {
				found = found || strings.Contains(text, want)
			}
			if !found {
				t.Errorf("trouble with %s: %q, want it to say %s", name, text, part)
			}
		}
		if len(troubles) != 4 {
			t.Errorf("troubles %v, want four", troubles)
		}
	}, "*.log")
}
