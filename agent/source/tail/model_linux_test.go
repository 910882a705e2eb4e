package tail

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A model plays what programs, rotation and people do to a log, at random, and
// knows of every line what must become of it: it is delivered once, and after
// those before it in its file. Only lines that were cut or deleted before they
// were read may be missing, and what the follower had seen of those must be in
// the account of losses.
type model struct {
	*rig
	rand    *rand.Rand
	names   map[string]*inode
	lines   []modelLine
	got     map[int]int // line to its place among the rows, as of the last look
	down    bool
	blocked bool
	history []string
}

// An inode is one life of a file: from its birth or a truncation to the next.
type inode struct {
	lines  []int
	known  bool   // the follower has a place in it, or holds it open
	copied *inode // the copy that was made before a cut that nobody looked at yet
	lost   bool   // it left the name that is asked for before anybody knew it
}

type modelLine struct {
	bytes  int
	seen   bool // the follower knows that it is there
	atRisk bool // its last copy was cut or deleted before it was read
	count  bool // its loss has to be counted
}

const liveName = "app.log"

var (
	modelRuns  = flag.Int("model.runs", 600, "runs of TestModel")
	modelSteps = flag.Int("model.steps", 14, "what happens in each run of TestModel")
	modelFirst = flag.Int("model.first", 0, "first seed of TestModel")
)

// TestModel plays the same stories each time; -model.runs, -model.steps and
// -model.first ask for others.
func TestModel(t *testing.T) {
	for seed := *modelFirst; seed < *modelFirst+*modelRuns; seed++ {
		pattern := []string{liveName, liveName + "*"}[seed%2]
		t.Run(fmt.Sprintf("seed %d of %s", seed, pattern), func(t *testing.T) {
			bubble(t, func(r *rig) {
				m := &model{rig: r, rand: rand.New(rand.NewPCG(uint64(seed), 3)), names: make(map[string]*inode)}
				m.start()
				for range *modelSteps {
					m.step()
				}
				m.checkAll()
			}, pattern)
		})
	}
}

func (m *model) step() {
	type act struct {
		name   string
		weight int
		do     func()
	}
	acts := []act{
		{"write", 20, func() { m.write(1 + m.rand.IntN(30)) }},
		{"write in two parts", 5, m.writeParts},
		{"rotate by rename", 6, m.rotate},
		{"rotate by rename, writer goes on", 3, m.rotateAndGoOn},
		{"copytruncate", 5, m.modelCopyTruncate},
		{"copytruncate to a dated name", 2, m.copyDated},
		{"compress", 3, m.compress},
		{"truncate", 2, m.truncate},
		{"rewrite", 2, m.rewrite},
		{"delete", 2, func() { m.unlink(liveName) }},
		{"replace", 2, m.replace},
		{"link", 1, m.link},
		{"restart", 3, m.modelRestart},
		{"crash", 3, m.modelCrash},
		{"block", 3, func() { m.out.Block(); m.blocked = true }},
		{"unblock", 4, func() { m.out.Unblock(); m.blocked = false }},
		{"sleep 50 ms", 10, func() { m.sleep(50 * time.Millisecond) }},
		{"sleep 3 s", 10, func() { m.sleep(3 * time.Second) }},
		{"sleep 2 min", 6, func() { m.sleep(2 * time.Minute) }},
		{"check", 4, m.checkAll},
	}
	total := 0
	for _, a := range acts {
		total += a.weight
	}
	n := m.rand.IntN(total)
	for _, a := range acts {
		if n -= a.weight; n < 0 {
			m.history = append(m.history, a.name)
			a.do()
			synctest.Wait() // a seed tells the same story each time
			return
		}
	}
}

// compose makes n new lines of the file.
func (m *model) compose(i *inode, n int) string {
	text := ""
	for range n {
		line := fmt.Sprintf("%d %0*d\n", len(m.lines), 1+m.rand.IntN(60), 0)
		i.lines = append(i.lines, len(m.lines))
		m.lines = append(m.lines, modelLine{bytes: len(line), atRisk: i.lost})
		text += line
	}
	return text
}

func (m *model) live() *inode {
	if m.names[liveName] == nil {
		m.names[liveName] = &inode{}
	}
	return m.names[liveName]
}

func (m *model) write(n int) { m.add(liveName, m.compose(m.live(), n)) }

func (m *model) writeParts() {
	text := m.compose(m.live(), 1)
	m.add(liveName, text[:1])
	m.sleep(time.Duration(m.rand.IntN(2000)) * time.Millisecond)
	m.add(liveName, text[1:])
}

// shift moves the rotated files on by one; the oldest is deleted.
func (m *model) shift() {
	const keep = 4
	m.unlink(fmt.Sprint(liveName, ".", keep))
	m.unlink(fmt.Sprint(liveName, ".", keep, ".gz"))
	for i := keep - 1; i > 0; i-- {
		for _, end := range []string{"", ".gz"} {
			m.move(fmt.Sprint(liveName, ".", i, end), fmt.Sprint(liveName, ".", i+1, end))
		}
	}
}

func (m *model) move(from, to string) {
	if m.names[from] != nil {
		m.rename(from, to)
		m.names[to] = m.names[from]
		delete(m.names, from)
	}
}

// unknown notes that i is about to leave the name that is asked for. If nobody
// knew it and its next name is not asked for, it may be lost.
func (m *model) unknown(i *inode) {
	if i == nil || i.known || m.all() {
		return
	}
	m.risk(i)
	i.lost = true
}

// all reports whether the pattern matches rotated files too.
func (m *model) all() bool { return m.o.Patterns[0] != m.path(liveName) }

func (m *model) rotate() {
	m.shift()
	if i := m.names[liveName]; i != nil {
		m.unknown(i)
		if i.copied != nil {
			m.unknown(&inode{lines: i.copied.lines})
			i.copied.lost = !m.all()
		}
	}
	m.move(liveName, liveName+".1")
	m.live()
	m.add(liveName, "")
}

func (m *model) rotateAndGoOn() {
	m.rotate()
	m.sleep(time.Duration(m.rand.IntN(3000)) * time.Millisecond)
	if old := m.names[liveName+".1"]; old != nil {
		m.add(liveName+".1", m.compose(old, 5))
	}
}

func (m *model) modelCopyTruncate() {
	m.shift()
	m.copyTo(liveName + ".1")
}

func (m *model) copyDated() {
	m.copyTo(fmt.Sprintf("%s-%08d", liveName, len(m.history)))
}

func (m *model) copyTo(name string) {
	if m.names[liveName] == nil {
		return
	}
	m.copyTruncate(liveName, name)
	i := m.names[liveName]
	copied := &inode{lines: i.lines, known: i.known && m.begun(i)}
	m.names[name] = copied
	i.lines, i.known, i.copied = nil, false, copied
	m.unknown(copied)
}

// begun reports whether bytes of i are known, so that a copy can be told.
func (m *model) begun(i *inode) bool {
	m.out.Durable()
	m.look()
	return slices.ContainsFunc(i.lines, func(n int) bool {
		_, read := m.got[n]
		return read || m.lines[n].seen
	})
}

func (m *model) compress() {
	for i := 4; i > 0; i-- {
		name := fmt.Sprint(liveName, ".", i)
		if m.names[name] != nil {
			m.add(name+".gz", "\x1f\x8b\x08 not to be read")
			m.names[name+".gz"] = &inode{}
			m.unlink(name)
			return
		}
	}
}

func (m *model) truncate() {
	if i := m.names[liveName]; i != nil {
		m.risk(i)
		i.lines, i.known = nil, false
		m.check(os.Truncate(m.path(liveName), 0))
	}
}

func (m *model) rewrite() {
	i := m.live()
	m.risk(i)
	i.lines, i.known = nil, false
	m.check(os.WriteFile(m.path(liveName), []byte(m.compose(i, 1+m.rand.IntN(40))), 0o644))
}

func (m *model) replace() {
	if i := m.names[liveName]; i != nil {
		m.risk(i)
	}
	m.names[liveName] = &inode{}
	m.add("new", m.compose(m.names[liveName], 5))
	m.rename("new", liveName)
}

func (m *model) link() {
	const name = liveName + ".link"
	m.unlink(name)
	if m.names[liveName] != nil {
		m.check(os.Link(m.path(liveName), m.path(name)))
		m.names[name] = m.names[liveName]
	}
}

func (m *model) unlink(name string) {
	if i := m.names[name]; i != nil {
		m.risk(i)
		delete(m.names, name)
		m.remove(name)
	}
}

// risk notes that the lines of i are about to lose a place to be read from.
// Those that are nowhere else and were not read yet may be lost.
func (m *model) risk(i *inode) {
	m.out.Durable()
	m.look()
	names := 0
	for _, other := range m.names {
		if other == i {
			names++
		}
	}
	if names > 1 && (i.known || m.all()) && !slices.Contains([]string{"truncate", "rewrite"}, m.history[len(m.history)-1]) {
		return
	}
	for _, n := range i.lines {
		if _, read := m.got[n]; read {
			continue
		}
		m.lines[n].atRisk = true
		m.lines[n].count = m.lines[n].seen && !m.down
	}
}

func (m *model) modelRestart() {
	m.restart(func() {
		m.down = true
		m.forget()
		for range m.rand.IntN(4) {
			m.offline()
		}
		m.down = false
	})
}

// offline does what happens to files while nobody reads.
func (m *model) offline() {
	acts := []func(){
		func() { m.write(5) }, func() { m.write(20) }, m.rotate, m.rotateAndGoOn, m.modelCopyTruncate,
		m.compress, m.truncate, m.replace,
	}
	names := []string{"write", "write", "rotate", "rotate+", "copytruncate", "compress", "truncate", "replace"}
	i := m.rand.IntN(len(acts))
	m.history = append(m.history, "down: "+names[i], names[i])
	acts[i]()
}

func (m *model) modelCrash() {
	if m.rand.IntN(2) == 0 {
		m.out.Durable()
	}
	m.blocked = false
	m.crash()
	for n := range m.lines {
		m.lines[n].count = false // a loss that was not durable yet is nobody's knowledge any more
	}
	m.forget()
}

// forget: a new run has seen nothing.
func (m *model) forget() {
	for n := range m.lines {
		m.lines[n].seen = false
	}
	m.look()
	for name, i := range m.names {
		i.known = slices.ContainsFunc(i.lines, func(n int) bool { _, read := m.got[n]; return read })
		if name != liveName {
			m.unknown(i)
		}
	}
}

func (m *model) sleep(d time.Duration) {
	if m.down {
		return
	}
	time.Sleep(d)
	if d >= 3*time.Second && !m.blocked && m.names[liveName] != nil {
		m.names[liveName].known, m.names[liveName].copied = true, nil
	}
	if d < time.Minute {
		return
	}
	for name, i := range m.names {
		if (name == liveName || m.all()) && !m.blocked {
			i.known, i.lost = true, false
		}
		if !i.known {
			continue
		}
		for _, n := range i.lines {
			m.lines[n].seen = true
		}
	}
}

// look finds out which lines were delivered.
func (m *model) look() {
	m.got = make(map[int]int)
	for place, text := range m.rig.lines() {
		var n int
		if _, err := fmt.Sscan(text, &n); err != nil {
			m.Fatalf("row %d is %q: %v", place, text, err)
		}
		if before, ok := m.got[n]; ok {
			m.fail("line %d was delivered twice, as row %d and row %d", n, before, place)
		}
		m.got[n] = place
	}
}

// checkAll lets everything be read that can be, and compares.
func (m *model) checkAll() {
	m.out.Unblock()
	m.blocked = false
	m.sleep(3 * time.Minute)
	m.out.Durable()
	m.look()
	var missing, counted int64
	for n, line := range m.lines {
		if _, ok := m.got[n]; ok {
			continue
		}
		if !line.atRisk {
			m.fail("line %d was not delivered", n)
		}
		missing += int64(line.bytes)
		if line.count {
			counted += int64(line.bytes)
		}
	}
	var lost int64
	for _, l := range m.out.Losses() {
		lost += l.Bytes
	}
	if lost < counted || lost > missing {
		m.fail("%d bytes are counted as lost; %d are missing, of which %d had been seen; losses %+v", lost, missing, counted, m.out.Losses())
	}
	for name, i := range m.names {
		last := -1
		for _, n := range i.lines {
			if place, ok := m.got[n]; ok && place < last {
				m.fail("line %d of %s was delivered before one that is before it", n, name)
			} else if ok {
				last = place
			}
		}
	}
}

func (m *model) fail(format string, args ...any) {
	m.Helper()
	m.Fatalf("%s\nafter %q", fmt.Sprintf(format, args...), m.history)
}
