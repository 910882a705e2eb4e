package journal

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openloganalytics/agent/agent/source/sourcetest"
	"github.com/openloganalytics/agent/agent/source/syslog"
	"github.com/openloganalytics/agent/internal/logfile"
)

var everything = []syslog.Selector{{Facilities: []string{"*"}, Severities: []string{"*"}}}

// A machine has the folders of a journal.
type machine struct {
	t    *testing.T
	opts Options
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	return &machine{t: t, opts: Options{
		Volatile: filepath.Join(dir, "run"), Persistent: filepath.Join(dir, "var"), Since: "now",
		BootID: id{0xb0}.String(), Uptime: func() time.Duration { return time.Minute },
		Selectors: everything, Hostname: "vm", Log: logfile.Discard(),
	}}
}

func (m *machine) journald() *journald { return newJournald(m.t, m.opts.Persistent) }

// run starts the source and returns what stops it.
func (m *machine) run(out *sourcetest.Emitter) (stop func()) {
	m.t.Helper()
	s, err := New(m.opts)
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(m.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, out) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, sourcetest.ErrCrashed) {
			m.t.Errorf("Run = %v, want nil after its context ended", err)
		}
	}
	m.t.Cleanup(stop)
	return stop
}

func waitRows(t *testing.T, out *sourcetest.Emitter, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := out.WaitRows(ctx, n); err != nil {
		t.Fatal(err)
	}
}

// started waits until the source has taken its first look.
func started(t *testing.T, out *sourcetest.Emitter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := out.Wait(ctx, func() bool { return out.Latest(name) != nil }); err != nil {
		t.Fatal(err)
	}
	out.Durable()
}

// before returns the emitter of a machine on which the agent ran before there
// was a journal: all that comes is new.
func (m *machine) before() *sourcetest.Emitter {
	m.t.Helper()
	out := sourcetest.New()
	stop := m.run(out)
	started(m.t, out)
	stop()
	return out.Crash()
}

// texts returns the messages that were emitted.
func texts(out *sourcetest.Emitter) []string {
	var list []string
	for _, row := range out.Rows("Syslog") {
		list = append(list, fmt.Sprint(row["Message"]))
	}
	return list
}

// numbered returns the texts of journald.messages.
func numbered(first, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("message %d", first+i)
	}
	return list
}

func checkTexts(t *testing.T, out *sourcetest.Emitter, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, texts(out)); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

// golden puts a file of testdata into a folder.
func golden(t testing.TB, kind, dir string) {
	t.Helper()
	packed, err := os.Open(filepath.Join("testdata", kind+".journal.gz"))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err := errors.Join(err, packed.Close(), os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "system.journal"), plain, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// export reads testdata/entries.export: of each entry the fields, the first
// value of each.
func export(t testing.TB) []map[string]string {
	t.Helper()
	data, err := os.ReadFile("testdata/entries.export")
	if err != nil {
		t.Fatal(err)
	}
	var entries []map[string]string
	entry := map[string]string{}
	for r := bufio.NewReader(bytes.NewReader(data)); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return entries
		}
		line = strings.TrimSuffix(line, "\n")
		key, value, text := strings.Cut(line, "=")
		switch {
		case line == "":
			entries = append(entries, entry)
			entry = map[string]string{}
			continue
		case !text:
			size := make([]byte, 8)
			if _, err := io.ReadFull(r, size); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, binary.LittleEndian.Uint64(size)+1)
			if _, err := io.ReadFull(r, b); err != nil {
				t.Fatal(err)
			}
			value = string(b[:len(b)-1])
		}
		if _, there := entry[key]; !there {
			entry[key] = value
		}
	}
}

// TestRealFiles: what systemd wrote is read whole, in each of its forms.
func TestRealFiles(t *testing.T) {
	for _, kind := range []string{"regular", "compact", "plain"} {
		t.Run(kind, func(t *testing.T) {
			m := newMachine(t)
			out := m.before()
			golden(t, kind, m.opts.Persistent)
			var want []string
			for _, e := range export(t) {
				if text, ok := e["MESSAGE"]; ok {
					want = append(want, strings.ToValidUTF8(text[:min(len(text), maxMessage)], ""))
				}
			}
			m.run(out)
			waitRows(t, out, len(want))
			got := texts(out)
			for i := range got {
				if got[i] = strings.ReplaceAll(got[i], "\uFFFD", ""); got[i] != want[i] {
					t.Errorf("message %d is %.200q, want %.200q", i, got[i], want[i])
				}
			}
		})
	}
}

// TestRealRows: facility, severity, ident, process id and host are those that
// the syslog daemon would have handed on.
func TestRealRows(t *testing.T) {
	m := newMachine(t)
	out := m.before()
	golden(t, "compact", m.opts.Persistent)
	m.run(out)
	waitRows(t, out, 254)
	rows := out.Rows("Syslog")
	tests := []struct{ text, facility, severity, ident, pid string }{
		{"message 0", "kern", "emerg", "app0", "100"},
		{"message 39", "at", "debug", "app4", "100"},
		{"kernel without a facility", "kern", "warn", "kernel", ""},
		{"written to kmsg by a program", "daemon", "info", "systemd", "1"},
		{"audit with a shifted facility", "auth", "notice", "audit", ""},
		{"audit without a facility", "auth", "info", "", ""},
		{"ident and pid of the process", "daemon", "info", "program", "77"},
		{"nothing but a message", "user", "info", "", ""},
		{"nonsense in priority and facility", "user", "info", "", ""},
		{"", "user", "err", "", ""},
		{"two\nlines\tand \"quotes\" \\", "user", "err", "", ""},
		{"bytes \uFFFD\uFFFD\x00\x01 grüße", "user", "err", "", ""},
		{"first of two", "user", "err", "", ""},
	}
	for _, tt := range tests {
		found := false
		for _, row := range rows {
			if row["Message"] != tt.text {
				continue
			}
			found = true
			want := map[string]any{"Facility": tt.facility, "Severity": tt.severity, "Host": "vm1", "Message": tt.text, "HostIP": "Unknown IP", "ident": tt.ident}
			if tt.pid != "" {
				want["ProcessId"] = tt.pid
			}
			delete(row, "Timestamp")
			if at, err := time.Parse(time.RFC3339, fmt.Sprint(row["EventTime"])); err != nil || at.Unix() != 1790000000 {
				t.Errorf("%q has the time %v, want that of the entry", tt.text, row["EventTime"])
			}
			delete(row, "EventTime")
			if diff := cmp.Diff(want, row); diff != "" {
				t.Errorf("%q became (-want +got):\n%s", tt.text, diff)
			}
		}
		if !found {
			t.Errorf("no row for %q", tt.text)
		}
	}
	whole := int64(len("longer than a message may be: ") + 70000)
	losses := out.Losses()
	if len(losses) != 1 || losses[0].Reason != "truncated" || losses[0].Class != "user" || losses[0].Bytes != whole-maxMessage {
		t.Errorf("losses %+v, want the %d bytes of one message that are missing", losses, whole-maxMessage)
	}
}

// TestFollow: every entry arrives once and in its order, while journald writes,
// rotates and deletes what was read, and the agent is restarted and killed.
func TestFollow(t *testing.T) {
	for name, form := range map[string]func(*journald){
		"regular": func(*journald) {},
		"compact": func(j *journald) { j.compact = true },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			out := m.before()
			j := m.journald()
			form(j)
			stop := m.run(out)
			sent := 0
			log := func(n int) {
				j.messages("system", sent, n)
				sent += n
			}
			log(1)
			waitRows(t, out, sent)
			log(500)
			waitRows(t, out, sent)
			old := j.rotate("system")
			log(300)
			older := j.rotate("system")
			log(10)
			waitRows(t, out, sent)
			out.Durable()
			j.remove(old)
			stop()
			log(20)
			j.remove(older)
			j.rotate("system")
			log(20)
			out = out.Crash()
			stop = m.run(out)
			waitRows(t, out, sent)
			log(300)
			stop() // some of them are not durable, and are read again
			out = out.Crash()
			m.run(out)
			waitRows(t, out, sent)
			checkTexts(t, out, numbered(0, sent))
			if losses := out.Losses(); len(losses) > 0 {
				t.Errorf("losses %+v, want none", losses)
			}
		})
	}
}

// TestFilesOfUsers: entries of the system and of users come in the order in
// which journald took them, and none counts as missing because it is in another
// file.
func TestFilesOfUsers(t *testing.T) {
	m := newMachine(t)
	out := m.before()
	j := m.journald()
	for i := range 300 {
		j.messages([]string{"system", "user-1000", "user-1001"}[i%7%3], i, 1)
	}
	stop := m.run(out)
	waitRows(t, out, 300)
	out.Durable()
	stop()
	out = out.Crash()
	j.messages("user-1000", 300, 50)
	read := j.rotate("user-1000")
	j.messages("system", 350, 50)
	stop = m.run(out)
	waitRows(t, out, 400)
	out.Durable()
	stop()
	out = out.Crash()
	j.remove(read)
	j.messages("system", 400, 50)
	m.run(out)
	waitRows(t, out, 450)
	checkTexts(t, out, numbered(0, 450))
	if losses := out.Losses(); len(losses) > 0 {
		t.Errorf("losses %+v, want none", losses)
	}
}

// TestClockSetBack: when the clock was set back at a reboot, what a user's file
// has from before is not missing while it is still to be read.
func TestClockSetBack(t *testing.T) {
	m := newMachine(t)
	out := m.before()
	j := m.journald()
	j.messages("system", 0, 100)
	stop := m.run(out)
	waitRows(t, out, 100)
	out.Durable()
	stop()
	out = out.Crash()
	j.seqnums = id{0x10} // as files of users have it before systemd 254
	j.messages("user-1000", 100, 1)
	j.boot, j.mono = id{0xb1}, 0
	j.messages("system", 101, 1)
	m.run(out)
	waitRows(t, out, 102)
	if losses := out.Losses(); len(losses) > 0 {
		t.Errorf("losses %+v, want none", losses)
	}
}

// TestInodeUsedAgain: a new file is read although it has the inode of one that
// was read to its end and deleted.
func TestInodeUsedAgain(t *testing.T) {
	m := newMachine(t)
	out := m.before()
	j := m.journald()
	j.messages("system", 0, 10)
	stop := m.run(out)
	waitRows(t, out, 10)
	stop()
	out = out.Crash()
	old := j.rotate("system")
	other := newJournald(t, t.TempDir())
	other.last, other.mono, other.made = j.last, j.mono, 70
	other.messages("system", 10, 10)
	text, err := os.ReadFile(other.files["system"].path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := New(m.opts)
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.follower(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	f.scan()
	if err := f.drain(ctx, true); err != nil {
		t.Fatal(err)
	}
	if len(f.files) != 1 || !f.files[0].done {
		t.Fatalf("files %+v, want one that was read", f.files)
	}
	if err := os.WriteFile(old, text, 0o600); err != nil { // the same inode
		t.Fatal(err)
	}
	j.check(os.Rename(old, filepath.Join(m.opts.Persistent, "system.journal")))
	f.scan()
	if err := f.drain(ctx, true); err != nil {
		t.Fatal(err)
	}
	checkTexts(t, out, numbered(0, 20))
}

// TestVacuumed: entries that journald deleted before they were read are counted,
// exactly, and only once.
func TestVacuumed(t *testing.T) {
	m := newMachine(t)
	out := m.before()
	j := m.journald()
	j.messages("system", 0, 100)
	stop := m.run(out)
	waitRows(t, out, 100)
	out.Durable()
	stop()
	out = out.Crash()
	j.messages("system", 100, 50) // of the file that was read in part
	first := j.rotate("system")
	j.messages("system", 150, 200) // of one that was not seen
	second := j.rotate("system")
	j.messages("user-1000", 350, 7)
	j.messages("system", 357, 3)
	third := j.rotate("user-1000")
	j.messages("system", 360, 40)
	j.remove(first, second, third)
	stop = m.run(out)
	waitRows(t, out, 143)
	out.Durable()
	stop()
	out = out.Crash()
	j.messages("system", 400, 1)
	m.run(out)
	waitRows(t, out, 144)
	checkTexts(t, out, append(numbered(0, 100), numbered(357, 44)...))
	losses := out.Losses()
	if len(losses) != 1 || losses[0].Reason != "vacuumed" || losses[0].Records != 257 {
		t.Errorf("losses %+v, want 257 entries that were vacuumed", losses)
	}
	if l := losses[0]; !l.First.Before(l.Last) {
		t.Errorf("the loss is from %v to %v", l.First, l.Last)
	}
}

// TestVacuumedWhileBlocked: what is open can be read after it was deleted.
func TestVacuumedWhileBlocked(t *testing.T) {
	m := newMachine(t)
	out := m.before()
	j := m.journald()
	j.messages("system", 0, 10)
	m.run(out)
	waitRows(t, out, 10)
	out.Block()
	j.messages("system", 10, 1000)
	old := j.rotate("system")
	j.messages("system", 1010, 10)
	j.remove(old)
	out.Unblock()
	waitRows(t, out, 1020)
	checkTexts(t, out, numbered(0, 1020))
	if losses := out.Losses(); len(losses) > 0 {
		t.Errorf("losses %+v, want none", losses)
	}
}

// TestFirstLook: the very first start reads the last hour of this boot.
func TestFirstLook(t *testing.T) {
	m := newMachine(t)
	j := m.journald()
	j.boot = id{0xaa}
	j.messages("system", 0, 10)
	j.rotate("system")
	j.messages("system", 10, 10)
	j.boot, j.mono = id{0xb0}, 0
	j.messages("system", 20, 5)
	j.mono = uint64((30 * time.Minute).Microseconds())
	j.messages("system", 25, 5)
	m.opts.Uptime = func() time.Duration { return firstLook + time.Minute }
	out := sourcetest.New()
	stop := m.run(out)
	waitRows(t, out, 5)
	out.Durable()
	stop()
	out = out.Crash()
	j.messages("system", 30, 5)
	m.run(out)
	waitRows(t, out, 10)
	checkTexts(t, out, numbered(25, 10))
}

// TestNewSince: when the journal is chosen anew, places of before do not count.
func TestNewSince(t *testing.T) {
	m := newMachine(t)
	out := m.before()
	j := m.journald()
	j.messages("system", 0, 5)
	stop := m.run(out)
	waitRows(t, out, 5)
	out.Durable()
	stop()
	out = out.Crash()
	j.messages("system", 5, 5) // handed on by the syslog daemon, in the meantime
	j.mono += uint64((2 * time.Hour).Microseconds())
	j.messages("system", 10, 5)
	m.opts.Since = "later"
	m.opts.Uptime = func() time.Duration { return 2*time.Hour + time.Minute }
	m.run(out)
	waitRows(t, out, 10)
	checkTexts(t, out, append(numbered(0, 5), numbered(10, 5)...))
}

// TestMoveToDisk: when journald moves from /run to /var it copies its entries,
// with other numbers. They are not read twice.
func TestMoveToDisk(t *testing.T) {
	m := newMachine(t)
	out := m.before()
	volatile := newJournald(t, m.opts.Volatile)
	volatile.messages("system", 0, 20)
	stop := m.run(out)
	waitRows(t, out, 20)
	out.Durable()
	stop()
	out = out.Crash()
	volatile.messages("system", 20, 5)
	disk := m.journald()
	disk.seqnums, disk.last, disk.made = id{0x77}, 500, 100
	disk.messages("system", 0, 25) // the copies have the same times
	if err := os.RemoveAll(m.opts.Volatile); err != nil {
		t.Fatal(err)
	}
	disk.messages("system", 25, 5)
	m.run(out)
	waitRows(t, out, 30)
	checkTexts(t, out, numbered(0, 30))
	if losses := out.Losses(); len(losses) > 0 {
		t.Errorf("losses %+v, want none", losses)
	}
}

// TestNewNumbering: a journal that was begun anew is read from its beginning,
// and its low numbers are no loss.
func TestNewNumbering(t *testing.T) {
	m := newMachine(t)
	out := m.before()
	j := m.journald()
	j.messages("system", 0, 100)
	stop := m.run(out)
	waitRows(t, out, 100)
	out.Durable()
	stop()
	out = out.Crash()
	if err := os.RemoveAll(m.opts.Persistent); err != nil {
		t.Fatal(err)
	}
	j = m.journald()
	j.seqnums, j.made, j.boot = id{0x99}, 50, id{0xb1}
	j.messages("system", 100, 5)
	m.run(out)
	waitRows(t, out, 105)
	old := j.rotate("system")
	j.messages("system", 105, 3)
	waitRows(t, out, 108)
	j.remove(old)
	checkTexts(t, out, numbered(0, 108))
	if losses := out.Losses(); len(losses) > 0 {
		t.Errorf("losses %+v, want none", losses)
	}
}

// TestSelectors: what is not selected is passed over, and is not missing.
func TestSelectors(t *testing.T) {
	m := newMachine(t)
	m.opts.Selectors = []syslog.Selector{{Facilities: []string{"auth"}, Severities: []string{"err"}}}
	out := m.before()
	j := m.journald()
	j.messages("system", 0, 2500)
	j.log("system", "SYSLOG_FACILITY=4", "PRIORITY=3", "MESSAGE=wanted")
	j.log("system", "SYSLOG_FACILITY=4", "PRIORITY=4", "MESSAGE=not wanted")
	m.run(out)
	waitRows(t, out, 1)
	checkTexts(t, out, []string{"wanted"})
}

// TestFacilities: a facility that is still shifted, as journald gives it to
// audit messages, is taken for what it is; one that is none is not.
func TestFacilities(t *testing.T) {
	m := newMachine(t)
	out := m.before()
	j := m.journald()
	for facility, want := range map[string]string{"80": "authpriv", "23": "local7", "184": "local7", "192": "user", "25": "user", "-1": "user", "": "user"} {
		j.log("system", "SYSLOG_FACILITY="+facility, "MESSAGE="+want)
	}
	m.run(out)
	waitRows(t, out, 7)
	for _, row := range out.Rows("Syslog") {
		if row["Facility"] != row["Message"] {
			t.Errorf("facility %v, want %v", row["Facility"], row["Message"])
		}
	}
}

// TestLZ4 reads what older versions of systemd compressed.
func TestLZ4(t *testing.T) {
	m := newMachine(t)
	out := m.before()
	j := m.journald()
	j.lz4 = true
	want := []string{
		strings.Repeat("a", 600), "head " + strings.Repeat("b", 5000) + strings.Repeat(" words and words", 40) + strings.Repeat("c", 300) + " and an end",
		strings.Repeat("de", 50_000), "short",
	}
	for _, text := range want {
		j.log("system", "PRIORITY=3", "_CMDLINE="+strings.Repeat("x", 2000), "MESSAGE="+text)
	}
	want[2] = want[2][:maxMessage]
	m.run(out)
	waitRows(t, out, len(want))
	checkTexts(t, out, want)
	if losses := out.Losses(); len(losses) != 1 || losses[0].Reason != "truncated" || losses[0].Bytes != 100_000-maxMessage {
		t.Errorf("losses %+v, want the bytes that are missing", losses)
	}
}

// TestDamage: of a damaged file the entries that are whole are read, and the
// others are counted.
func TestDamage(t *testing.T) {
	const each = 100
	tests := []struct {
		name   string
		damage func(j *journald, f *jfile)
		lost   int64
	}{
		{"entry", func(j *journald, f *jfile) { f.write(j.t, f.offsets[40], []byte{9}) }, 1},
		{"entry elsewhere", func(j *journald, f *jfile) { f.number(j.t, f.data[""]-8, 1<<50) }, 1},
		{"message", func(j *journald, f *jfile) { f.number(j.t, f.data["MESSAGE=message 7"]+8, 3) }, 1},
		{"message without a name", func(j *journald, f *jfile) {
			f.write(j.t, f.data["MESSAGE=message 7"]+dataHead, []byte("MESSAGE:"))
		}, 1},
		{"another field", func(j *journald, f *jfile) { f.number(j.t, f.data["_HOSTNAME=vm"]+8, 0) }, 0},
		{"list in a circle", func(j *journald, f *jfile) {
			f.number(j.t, f.array+objectHeader, testHeader)
			f.number(j.t, 152, each+10)
		}, 10},
		{"list of nothing", func(j *journald, f *jfile) { f.number(j.t, 176, f.offsets[0]) }, each},
		{"cut off", func(j *journald, f *jfile) { j.check(f.f.Truncate(int64(f.offsets[60]))) }, -1},
		{"xz", func(j *journald, f *jfile) { f.write(j.t, f.data["MESSAGE=message 7"]+1, []byte{dataXZ}) }, 1},
		{"zstd", func(j *journald, f *jfile) { f.write(j.t, f.data["MESSAGE=message 7"]+1, []byte{dataZstd}) }, 1},
		{"lz4", func(j *journald, f *jfile) { f.write(j.t, f.data["MESSAGE=message 7"]+1, []byte{dataLZ4}) }, 1},
	}
	for _, tt := range tests {
		for _, aside := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, put aside %t", tt.name, aside), func(t *testing.T) {
				t.Parallel()
				m := newMachine(t)
				out := m.before()
				j := m.journald()
				j.messages("system", 0, each)
				f := j.files["system"]
				tt.damage(j, f)
				if aside {
					j.rotate("system")
					j.messages("system", each, 10)
				}
				m.run(out)
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				var lost, rows int64
				total := int64(each)
				if aside {
					total += 10
				}
				if tt.name == "list in a circle" {
					total += 10
				}
				if err := out.Wait(ctx, func() bool {
					lost, rows = 0, int64(len(out.Rows("Syslog")))
					for _, loss := range out.Losses() {
						lost += loss.Records
					}
					return lost+rows == total
				}); err != nil {
					t.Fatal(err)
				}
				if tt.lost >= 0 && lost != tt.lost || tt.lost < 0 && lost < 40 {
					t.Errorf("%d entries are lost, want %d; %+v", lost, tt.lost, out.Losses())
				}
			})
		}
	}
}

// TestGrowth: what is added to a part of the file that was read already is seen
// after the next look.
func TestGrowth(t *testing.T) {
	j := newJournald(t, t.TempDir())
	j.messages("system", 0, 5)
	r, err := newReader(j.files["system"].f, &caches{})
	if err != nil {
		t.Fatal(err)
	}
	var v fields
	for i := range uint64(50) {
		e, err := r.entry(i)
		if err == nil {
			err = r.fields(&e, &v)
		}
		if want := fmt.Sprintf("message %d", i); err != nil || string(v.value(fieldMessage)) != want {
			t.Fatalf("entry %d has %q, %v; want %q", i, v.value(fieldMessage), err, want)
		}
		j.messages("system", 5+int(i), 1)
		if err := r.refresh(); err != nil || r.entries != i+6 {
			t.Fatalf("%d entries after a look, %v; want %d", r.entries, err, i+6)
		}
	}
}

// TestNoFile says what it misses, and goes on when there is one.
func TestNoFile(t *testing.T) {
	m := newMachine(t)
	out := m.before()
	m.run(out)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	trouble := func() string { return out.Troubles()[name] }
	if err := out.Wait(ctx, func() bool { return strings.Contains(trouble(), "there are no journal files in "+m.opts.Volatile) }); err != nil {
		t.Fatal(err)
	}
	m.journald().messages("system", 0, 1)
	waitRows(t, out, 1)
	if err := out.Wait(ctx, func() bool { return trouble() == "" }); err != nil {
		t.Fatal(err)
	}
}

// TestUnknownForm: a file of a newer form is refused in words.
func TestUnknownForm(t *testing.T) {
	m := newMachine(t)
	out := m.before()
	j := m.journald()
	j.messages("system", 0, 1)
	f := j.files["system"]
	f.write(t, 12, []byte{0x80})
	m.run(out)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := out.Wait(ctx, func() bool { return strings.Contains(out.Troubles()[f.path], "0x80") }); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkRead reads entries as a source does, without emitting them.
func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	j := newJournald(b, dir)
	const count = 10000
	for i := range count {
		j.log("system", "_TRANSPORT=syslog", "PRIORITY=6", "SYSLOG_FACILITY=3", "SYSLOG_IDENTIFIER=app", fmt.Sprintf("SYSLOG_TIMESTAMP=%d", i),
			"_HOSTNAME=vm", "_PID=4711", "_UID=0", "_GID=0", "_COMM=app", "_EXE=/usr/bin/app", "_CMDLINE=/usr/bin/app --with arguments", "_CAP_EFFECTIVE=0",
			"_SYSTEMD_CGROUP=/system.slice/app.service", "_SYSTEMD_UNIT=app.service", "_SYSTEMD_SLICE=system.slice", "_BOOT_ID=b0", "_MACHINE_ID=m",
			fmt.Sprintf("_SOURCE_REALTIME_TIMESTAMP=%d", 1790000000000000+i), fmt.Sprintf("MESSAGE=message %d of a program that says what it does in some words", i))
	}
	file, err := os.Open(filepath.Join(dir, "system.journal"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = file.Close() })
	r, err := newReader(file, &caches{})
	if err != nil {
		b.Fatal(err)
	}
	var v fields
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		e, err := r.entry(i % count)
		if err == nil {
			err = r.fields(&e, &v)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzReader: whatever is in a file, reading it ends, and without a panic.
func FuzzReader(f *testing.F) {
	for _, form := range []func(*journald){func(*journald) {}, func(j *journald) { j.compact = true }, func(j *journald) { j.lz4 = true }} {
		dir := f.TempDir()
		j := newJournald(f, dir)
		form(j)
		j.messages("system", 0, 6)
		j.log("system", "PRIORITY=3", "MESSAGE="+strings.Repeat("a", 600))
		data, err := os.ReadFile(filepath.Join(dir, "system.journal"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, uint32(0), byte(0))
		f.Add(data, uint32(testHeader+2), byte(kindEntry))
		f.Add(data, uint32(152), byte(200))
	}
	f.Fuzz(func(t *testing.T, data []byte, at uint32, with byte) {
		data = bytes.Clone(data)
		if len(data) > 0 {
			data[int(at)%len(data)] = with
		}
		r, err := newReader(bytes.NewReader(data), &caches{})
		if err != nil {
			return
		}
		var v fields
		for ordinal := range min(r.entries, 1000) {
			e, err := r.entry(ordinal)
			if errors.Is(err, errNoList) {
				break
			}
			if err != nil {
				continue
			}
			_ = r.fields(&e, &v) // an error is as good as fields
			if n := v.facility(); n >= facilities || len(v.value(fieldMessage)) > maxMessage {
				t.Errorf("facility %d and a message of %d bytes", n, len(v.value(fieldMessage)))
			}
		}
		r.after(3)
	})
}

// FuzzLZ4: decompressing never gives more than was asked for, and what packLZ4
// packed comes out again.
func FuzzLZ4(f *testing.F) {
	f.Add([]byte("MESSAGE="+strings.Repeat("a", 100)+"end"), 50)
	f.Add([]byte{0xff, 0xff, 0xff}, 1000)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		n = min(max(n, 0), 1<<16)
		if got, err := appendLZ4(nil, data, n); len(got) > n || err == nil && len(got) != n {
			t.Errorf("%d bytes of %d, %v", len(got), n, err)
		}
		n = min(n, len(data))
		got, err := appendLZ4(nil, packLZ4(data)[8:], n)
		if err != nil || !bytes.Equal(got, data[:n]) {
			t.Errorf("%q packed and unpacked is %q, %v", data[:n], got, err)
		}
	})
}
