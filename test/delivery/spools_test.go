//go:build linux

package delivery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/agent/spool"
	"github.com/openloganalytics/agent/test/emulator"
)

// newerSpool puts a spool of a newer version in the agent's way.
func (m *machine) newerSpool(bytes int) {
	m.Helper()
	b := append([]byte("LASEGM\r\n"), make([]byte, bytes)...)
	binary.LittleEndian.PutUint32(b[8:], spool.Format+1)
	binary.LittleEndian.PutUint32(b[48:], crc32.Checksum(b[:48], crc32.MakeTable(crc32.Castagnoli)))
	err := os.MkdirAll(m.layout.SpoolDir(), 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(m.layout.SpoolDir(), "segment-0000000000000001"), b, 0o600)
	}
	if err != nil {
		m.Fatal(err)
	}
}

// An older version works beside a newer one's spool, and says so. When that is
// gone, what waits in the spool beside is delivered, and the spool goes.
func TestSpoolBesideANewerVersions(t *testing.T) {
	t.Parallel()
	m := prepare(t, 1)
	m.newerSpool(40 << 20)
	m.start(m.service, "")
	m.write(10)
	m.wantLines(m.ids[0], 0)
	away := m.order(emulator.Fault{Kind: emulator.FaultStatus, Status: 503, Endpoint: "ods", Marker: "number=1010 "})
	m.write(1000)
	m.struck(away, 1) // so the last line is in the spool
	beside := m.layout.SpoolDir() + fmt.Sprint("-", spool.Format)
	m.eventually(func() error {
		h, err := agent.ReadHealth(m.layout.HealthFile())
		if err == nil && (h.Spool.Budget > 24<<20 || h.Spool.Beside < 40<<20 || h.Spool.Note == "") {
			err = fmt.Errorf("the spool is %+v", h.Spool)
		}
		return err
	})
	if waiting := m.conserved().Workspaces[0].Waiting; waiting == 0 {
		t.Fatal("nothing waits")
	}
	// The lines themselves are gone: only the spool has them.
	if err := errors.Join(os.RemoveAll(m.layout.SpoolDir()), os.Remove(m.logFile())); err != nil {
		t.Fatal(err)
	}
	m.start(m.service, "")
	m.service.ClearFaults(away.ID)
	m.wantLines(m.ids[0], 0)
	m.write(10)
	m.wantLines(m.ids[0], 0)
	m.eventually(func() error {
		if _, err := os.Lstat(beside); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is still there (%w)", beside, err)
		}
		return nil
	})
	if h := m.conserved(); h.Spool.Budget != 64<<20 || h.Spool.Beside != 0 || h.Spool.Note != "" {
		t.Errorf("after all is delivered the spool is %+v", h.Spool)
	}
}
