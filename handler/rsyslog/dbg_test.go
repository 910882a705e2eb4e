package rsyslog

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openloganalytics/agent/agent/record"
	"github.com/openloganalytics/agent/agent/source"
	"github.com/openloganalytics/agent/agent/source/sourcetest"
	"github.com/openloganalytics/agent/agent/source/syslog"
)

type sink struct {
	*sourcetest.Emitter
	b     *record.Batch
	n     atomic.Int64
	emits int
}

func (s *sink) Emit(ctx context.Context, table *record.Table, fill func(*record.Batch), at ...source.Checkpoint) error {
	if s.b == nil {
		s.b = record.NewBatch(table, record.NewCompressor())
	}
	r := s.b.Rows()
	fill(s.b)
	s.n.Add(int64(s.b.Rows() - r))
	s.emits++
	if s.b.Pending() > 1<<20 {
		s.b.Cut()
	}
	return nil
}

func TestDbgThroughput(t *testing.T) {
	d := newDaemon(t)
	d.configure(Selector{Facilities: []string{"*"}, Severities: []string{"*"}})
	mf := filepath.Join(d.o.Root, mainFile)
	mb, _ := os.ReadFile(mf)
	os.WriteFile(mf, append([]byte("module(load=\"impstats\" interval=\"1\" log.syslog=\"off\" log.file=\""+d.o.Root+"/stats\")\n"), mb...), 0o600)
	defer func() {
		b, _ := exec.Command("sh", "-c", "grep -E 'log-analytics-agent' "+d.o.Root+"/stats | tail -4; wc -l "+d.o.Root+"/all.log; ls -la "+d.o.Root+"/work").CombinedOutput()
		t.Log(string(b))
	}()
	d.start()
	s, _ := syslog.New(syslog.Options{Pipe: d.o.Pipe, Hostname: "x", Selectors: []syslog.Selector{{Facilities: []string{"*"}, Severities: []string{"*"}}}})
	out := &sink{Emitter: sourcetest.New()}
	ctx, cancel := context.WithCancel(t.Context())
	go s.Run(ctx, out)
	time.Sleep(100 * time.Millisecond)
	const n = 300000
	var r0, r1 syscall.Rusage
	syscall.Getrusage(0, &r0)
	start := time.Now()
	msg := []byte("<86>Nov 24 10:00:00 sshd[12345]: Accepted publickey for azureuser from 10.0.0.4 port 50022 ssh2: RSA SHA256:abcdefghijklmnopqrstuvwxyz0123456789")
	for range n {
		d.log.Write(msg)
	}
	sentT := time.Since(start)
	for out.n.Load() < n {
		time.Sleep(10 * time.Millisecond)
		if time.Since(start) > 15*time.Second {
			break
		}
	}
	syscall.Getrusage(0, &r1)
	t.Log("sent in", sentT, "arrived", out.n.Load(), "in", time.Since(start), "emits", out.emits, "user", time.Duration(r1.Utime.Nano()-r0.Utime.Nano()), "sys", time.Duration(r1.Stime.Nano()-r0.Stime.Nano()))
	cancel()
}
