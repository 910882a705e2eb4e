package tail

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNamespace runs the test once more in a process that has mounts and users,
// and so limits, of its own. It reports whether this is that process.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const mark = "TAIL_TEST_NAMESPACE"
	if os.Getenv(mark) == t.Name() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a namespace: %v\n%s", err, out)
	}
	return false
}

// A hangingMount is a file system that this process serves, and that can stop to
// answer.
type hangingMount struct {
	t   *testing.T
	dir string
	fd  int

	mu      sync.Mutex
	files   []string // texts; file n is "n.log"
	hangs   bool
	held    [][]byte // requests that wait for an answer
	maxHeld int
}

// Operations of the kernel's protocol, include/uapi/linux/fuse.h.
const (
	fuseLookup      = 1
	fuseForget      = 2
	fuseGetattr     = 3
	fuseOpen        = 14
	fuseRead        = 15
	fuseRelease     = 18
	fuseInit        = 26
	fuseOpendir     = 27
	fuseReaddir     = 28
	fuseReleasedir  = 29
	fuseInterrupt   = 36
	fuseBatchForget = 42

	fuseRoot      = 1
	fuseFirst     = 2 // the node of file 0
	fuseDirectIO  = 1
	fuseInHeader  = 40
	fuseOutHeader = 16
)

func mountHanging(t *testing.T, dir string, files int) *hangingMount {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("this test needs /dev/fuse: %v", err)
	}
	m := &hangingMount{t: t, dir: dir, fd: fd, files: make([]string, files)}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", fd, os.Geteuid(), os.Getegid())
	if err := unix.Mount("test", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		t.Fatalf("mount: %v", err)
	}
	go m.serve()                                                      // until the last file of the mount is closed, or the process ends
	enough := time.AfterFunc(2*time.Minute, func() { m.hang(false) }) // or this process could not even end
	t.Cleanup(func() {
		enough.Stop()
		m.hang(false)
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return m
}

func (m *hangingMount) serve() {
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(m.fd, buf)
		switch {
		case err == unix.EINTR || err == unix.ENOENT || err == unix.EAGAIN:
			continue
		case err != nil:
			return // unmounted
		}
		request := slices.Clone(buf[:n])
		m.mu.Lock()
		switch op := binary.NativeEndian.Uint32(request[4:]); {
		case op == fuseForget || op == fuseBatchForget || op == fuseInterrupt: // expect no answer
		case m.hangs:
			m.held = append(m.held, request)
			m.maxHeld = max(m.maxHeld, len(m.held))
		default:
			m.answer(request)
		}
		m.mu.Unlock()
	}
}

// hang stops answering, or answers what was asked meanwhile and goes on.
func (m *hangingMount) hang(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hangs = on
	for _, request := range m.held {
		m.answer(request)
	}
	m.held = nil
}

func (m *hangingMount) add(file int, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[file] += text
}

func (m *hangingMount) answer(request []byte) {
	order := binary.NativeEndian
	node, body := order.Uint64(request[16:]), request[fuseInHeader:]
	var out []byte
	errno := unix.Errno(0)
	switch order.Uint32(request[4:]) {
	case fuseInit:
		for _, v := range []uint32{7, 31, 0, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0} {
			out = order.AppendUint32(out, v)
		}
	case fuseLookup:
		var n int
		if _, err := fmt.Sscanf(string(body), "%d.log", &n); err != nil || n >= len(m.files) {
			errno = unix.ENOENT
			break
		}
		out = order.AppendUint64(out, uint64(fuseFirst+n))
		out = append(out, make([]byte, 32)...) // forget it at once
		out = m.attributes(out, uint64(fuseFirst+n))
	case fuseGetattr:
		out = m.attributes(make([]byte, 16), node)
	case fuseOpen, fuseOpendir:
		out = order.AppendUint64(out, 0)
		out = order.AppendUint64(out, fuseDirectIO)
	case fuseRead:
		out = []byte(m.files[node-fuseFirst])
		out = out[min(len(out), int(order.Uint64(body[8:]))):]
		out = out[:min(len(out), int(order.Uint32(body[16:])))]
	case fuseReaddir:
		for n := int(order.Uint64(body[8:])); n < len(m.files); n++ {
			name := fmt.Sprintf("%d.log", n)
			out = order.AppendUint64(out, uint64(fuseFirst+n))
			out = order.AppendUint64(out, uint64(n+1))
			out = order.AppendUint32(out, uint32(len(name)))
			out = order.AppendUint32(out, unix.DT_REG)
			out = append(out, name+"\x00\x00\x00\x00\x00\x00\x00\x00"[:(8-len(name)%8)%8]...)
		}
	case fuseRelease, fuseReleasedir:
	default: // among them flush: so closing does not ask again
		errno = unix.ENOSYS
	}
	var head []byte
	head = order.AppendUint32(head, uint32(fuseOutHeader+len(out)))
	head = order.AppendUint32(head, uint32(-int32(errno)))
	head = append(head, request[8:16]...)
	_, _ = unix.Write(m.fd, append(head, out...)) // an error means that nobody waits for it any more
}

func (m *hangingMount) attributes(out []byte, node uint64) []byte {
	order := binary.NativeEndian
	size, mode := 0, uint32(unix.S_IFDIR|0o755)
	if node != fuseRoot {
		size, mode = len(m.files[node-fuseFirst]), unix.S_IFREG|0o644
	}
	for _, v := range []uint64{node, uint64(size), 0, 0, 0, 0} {
		out = order.AppendUint64(out, v)
	}
	for _, v := range []uint32{0, 0, 0, mode, 1, 0, 0, 0, 4096, 0} {
		out = order.AppendUint32(out, v)
	}
	return out
}

// hangingRig follows ten files of a file system that may hang, and app*.log
// beside it, in real time.
func hangingRig(t *testing.T) (*rig, *hangingMount) {
	t.Helper()
	dir := t.TempDir()
	mount := filepath.Join(dir, "mount")
	if err := os.Mkdir(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	m := mountHanging(t, mount, 10)
	for n := range m.files {
		m.add(n, fmt.Sprintf("mounted %d\n", n))
	}
	return newRig(t, dir, "mount/*.log", "app*.log"), m
}

// await waits in real time until n rows were emitted.
func (r *rig) await(n int) {
	r.Helper()
	r.until(func() bool { return len(r.lines()) >= n })
}

func (r *rig) until(met func() bool) {
	r.Helper()
	for end := time.Now().Add(time.Minute); !met(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.Fatalf("waited in vain; rows %q, troubles %v", r.lines(), r.out.Troubles())
		}
	}
}

func (r *rig) wantSorted(lines ...string) {
	r.Helper()
	got := slices.Sorted(slices.Values(r.lines()))
	slices.Sort(lines)
	if !slices.Equal(got, lines) {
		r.Errorf("lines %q, want %q", got, lines)
	}
}

// TestF34HangingFileSystemStallsNoOther serves the file system by itself. What
// waits for it is bounded, and is read when it answers.
func TestF34HangingFileSystemStallsNoOther(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for name, early := range map[string]bool{"while running": false, "at the start": true} {
		t.Run(name, func(t *testing.T) {
			r, m := hangingRig(t)
			var want []string
			for n := range m.files {
				want = append(want, fmt.Sprintf("mounted %d", n))
			}
			step := func(file string) {
				line := fmt.Sprint("line ", len(want))
				want = append(want, line)
				r.add(file, line+"\n")
			}
			step("app.log")
			hung := func() bool {
				return strings.Contains(r.out.Troubles()[m.dir], "asked for "+m.dir)
			}
			m.hang(early)
			r.start()
			if early {
				r.until(hung)
				r.await(1)
			} else {
				r.await(len(want))
				m.hang(true)
				for n := range m.files {
					m.add(n, fmt.Sprintf("later %d\n", n))
					want = append(want, fmt.Sprintf("later %d", n))
				}
				r.until(hung)
				r.until(func() bool { return strings.Contains(fmt.Sprint(r.out.Troubles()), "as all others on it are") })
			}
			before := len(r.lines())
			for i := range 5 {
				step("app.log")
				step(fmt.Sprintf("app%d.log", i))
				r.await(before + 2*(i+1))
			}
			m.hang(false)
			r.await(len(want))
			r.until(func() bool { return len(r.out.Troubles()) == 0 })
			r.stop()
			r.wantSorted(want...)
			r.wantNoLoss()
			if most := maxHungEach + 2; m.maxHeld > most { // and a scan, and a look under way
				t.Errorf("%d requests waited for the file system, want at most %d", m.maxHeld, most)
			}
		})
	}
}

// TestF34FileSystemHangsWhileTheSpoolIsFull: files beside it are held open all
// the same, and a stop does not wait for it.
func TestF34FileSystemHangsWhileTheSpoolIsFull(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	r, m := hangingRig(t)
	r.start()
	r.await(len(m.files))
	r.out.Block()
	r.add("app.log", "app\n")
	m.hang(true)
	r.until(func() bool { return r.out.Troubles()[m.dir] != "" })
	r.add("app2.log", "short\n")
	r.until(func() bool { return openBelow(t, r.path("app2.log")) > 0 })
	r.remove("app2.log")
	r.out.Unblock()
	r.await(len(m.files) + 2)
	r.stop() // returns
	if !slices.Contains(r.lines(), "short") {
		t.Errorf("lines %q, want that of the file that was deleted", r.lines())
	}
	m.hang(false)
}
