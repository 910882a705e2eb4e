package handler

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/handler/service"
	"github.com/openloganalytics/agent/internal/atomicfile"
	"github.com/openloganalytics/agent/internal/hostinfo"
	"github.com/openloganalytics/agent/internal/logfile"
	"github.com/openloganalytics/agent/internal/product"
)

// needMB is the disk space without which install changes nothing: the binary
// and room for the agent to begin with.
const needMB = 100

// install puts this version's binary and the folders in place. It does not
// touch a version that runs.
func (h *Handler) install(ctx context.Context, x *extension.Invocation) error {
	s, unlock, err := h.open(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if _, _, err := h.place(ctx, s, x.Log); err != nil {
		return err
	}
	s.Owner = product.Version
	if x.Env != nil {
		s.OwnerDir = x.Env.HandlerDir
	}
	if s.Installed.IsZero() {
		s.Installed = x.Now().UTC()
	}
	return h.saveState(s)
}

// place makes sure of everything that enable needs: binary, folders, user; it
// returns the user's numbers.
// The caller holds the lock.
func (h *Handler) place(ctx context.Context, s *state, log *logfile.Logger) (uid, gid int, err error) {
	fail := func(err error) (int, int, error) {
		return 0, 0, extension.WithCode(extension.ExitMissingDependency, err)
	}
	if err := h.roomFor(needMB); err != nil {
		return fail(err)
	}
	if err := h.knowMachine(s, log); err != nil {
		return 0, 0, err
	}
	if uid, gid, err = h.account(ctx); err != nil {
		return fail(fmt.Errorf("make the agent's user: %w", err))
	}
	if err := h.folders(uid, gid); err != nil {
		return fail(fmt.Errorf("make folders: %w; the folders have to be writable", err))
	}
	if err := h.placeBinary(); err != nil {
		return fail(fmt.Errorf("place the binary: %w; %s has to be writable", err, h.Layout.VersionsDir()))
	}
	return uid, gid, nil
}

// fromAnotherMachine begins the names of the folders with such state.
const fromAnotherMachine = "from-another-machine-"

// knowMachine sets the agent's state aside when it was made on another
// machine: this one was made from an image of that. Records, places in files,
// the identity and the settings belong to the other machine.
func (h *Handler) knowMachine(s *state, log *logfile.Logger) error {
	if h.onOtherMachine(s) {
		aside := filepath.Join(h.Layout.HandlerDir(), fromAnotherMachine+time.Now().UTC().Format("20060102T150405"))
		if err := h.setAside(aside); err != nil {
			return fmt.Errorf("set aside the state of another machine: %w", err)
		}
		log.Warn("this machine was made from an image: the state of the machine in the image is set aside", "folder", aside)
		*s = state{Owner: s.Owner, OwnerDir: s.OwnerDir}
	}
	if s.MachineID == "" {
		s.MachineID = h.machineID()
	}
	return nil
}

// machineID is the VM's id, empty when the machine does not tell it.
func (h *Handler) machineID() string {
	return hostinfo.ProductUUID(os.DirFS(filepath.Join("/", h.Layout.Root())))
}

// onOtherMachine reports whether the state was made on a machine with another
// id.
func (h *Handler) onOtherMachine(s *state) bool {
	id := h.machineID()
	return s.MachineID != "" && id != "" && !hostinfo.SameUUID(s.MachineID, id)
}

// leastDiskMB is what is left of the disk quota to the agent, however much is set
// aside.
const leastDiskMB = 8

// shareQuota takes what was set aside from other machines off the disk quota of
// the agent: nobody deletes it but a person.
func (h *Handler) shareQuota(settings *Settings, log *logfile.Logger) {
	folders, err := filepath.Glob(filepath.Join(h.Layout.HandlerDir(), fromAnotherMachine+"*"))
	if err != nil || len(folders) == 0 {
		return
	}
	var bytes int64
	for _, folder := range folders {
		n, err := diskUse(folder)
		if err != nil {
			log.Warn("cannot tell what a folder takes of the disk quota", "folder", folder, "error", err)
		}
		bytes += n
	}
	mb := int((bytes + 1<<20 - 1) >> 20)
	quota := &settings.Config.Limits.DiskMB
	*quota = max(*quota-mb, leastDiskMB)
	settings.Notes = append(settings.Notes, fmt.Sprintf("%d MB of diskQuotaInMB are taken by what was set aside when this VM was made from an image: %s; remove it when nobody needs it.",
		mb, strings.Join(folders, ", ")))
}

// diskUse is what the files below a folder take, in bytes, in whole blocks.
func diskUse(folder string) (bytes int64, err error) {
	const block = 4096
	err = filepath.WalkDir(folder, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			bytes += (info.Size() + block - 1) / block * block
		}
		return err
	})
	return bytes, err
}

// setAside moves what the agent has and obeys into a folder of that name.
func (h *Handler) setAside(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	for _, dir := range []string{h.Layout.AgentDir(), h.Layout.ConfigDir()} {
		if err := os.Rename(dir, filepath.Join(folder, filepath.Base(dir))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// account returns the agent's user and group, -1 when it runs as the caller.
func (h *Handler) account(ctx context.Context) (uid, gid int, err error) {
	if !h.Root {
		return -1, -1, nil
	}
	return service.EnsureUser(ctx, user, h.Layout.StateDir())
}

// folders makes every folder with its owner and mode. Nothing that root
// executes or obeys lies in a folder that the agent can write.
func (h *Handler) folders(uid, gid int) error {
	for _, f := range []struct {
		path     string
		mode     fs.FileMode
		uid, gid int
	}{
		{h.Layout.VersionsDir(), 0o755, 0, 0},
		{h.Layout.StateDir(), 0o711, 0, 0},
		{h.Layout.HandlerDir(), 0o700, 0, 0},
		{h.Layout.ConfigDir(), 0o750, 0, gid},
		{h.Layout.AgentDir(), 0o700, uid, gid},
		{h.Layout.LogDir(), 0o755, 0, 0}, // the syslog daemon passes through
		{h.Layout.AgentLogDir(), 0o750, uid, gid},
		{h.Layout.RunDir(), 0o755, uid, gid},
	} {
		if err := os.MkdirAll(f.path, f.mode); err != nil {
			return err
		}
		if err := h.own(f.path, f.mode, f.uid, f.gid); err != nil {
			return err
		}
	}
	return nil
}

// own sets owner and mode of a folder that is really a folder: no link is
// followed.
func (h *Handler) own(path string, mode fs.FileMode, uid, gid int) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // only read
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	opened, err := root.Stat(".")
	if err != nil {
		return err
	}
	if !info.IsDir() || !os.SameFile(info, opened) {
		return fmt.Errorf("%s is not a folder", path)
	}
	if h.Root {
		if err := root.Chown(".", uid, gid); err != nil {
			return err
		}
	}
	return root.Chmod(".", mode)
}

// placeBinary copies the running binary to its versioned folder, unless the
// very same is there.
func (h *Handler) placeBinary() error {
	target := h.Layout.VersionBinary(product.Version)
	if h.Self == target {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if err := h.own(filepath.Dir(target), 0o755, 0, 0); err != nil { // whatever the umask
		return err
	}
	same, err := sameContent(h.Self, target)
	if err != nil || same {
		return err
	}
	data, err := os.ReadFile(h.Self)
	if err != nil {
		return err
	}
	return atomicfile.Write(target, data, 0o755)
}

func sameContent(a, b string) (bool, error) {
	sumA, err := digest(a)
	if err != nil {
		return false, err
	}
	sumB, err := digest(b)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return sumA == sumB, err
}

func digest(path string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer func() { _ = f.Close() }() // only read
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(hash.Sum(nil)), nil
}

// use makes this version the one that the service starts. It reports whether
// another one was in use.
func (h *Handler) use(version string) (changed bool, err error) {
	link := h.Layout.CurrentDir()
	if now, err := os.Readlink(link); err == nil && now == version {
		return false, nil
	}
	beside := link + beside
	if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("switch to version %s: %w", version, err)
	}
	if err := os.Symlink(version, beside); err != nil {
		return false, fmt.Errorf("switch to version %s: %w", version, err)
	}
	if err := os.Rename(beside, link); err != nil {
		return false, fmt.Errorf("switch to version %s: %w", version, err)
	}
	return true, nil
}
