//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A report is everything that one run of the program found.
type report struct {
	When    time.Time
	Machine machine
	Sizes   sizes
	Rounds  int
	Took    time.Duration
	Binary  int64 // bytes of our agent's
	Modes   map[string]string
	Results []result
}

// A machine is what the figures are of.
type machine struct {
	CPU, System, Kernel, Folder string
	Cores                       int
	Memory                      int64
	Load                        string // before the first work
	Go                          string
}

func readMachine(ctx context.Context, dir string) machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	// What cannot be read stays empty: it only describes.
	info, _ := os.ReadFile("/proc/cpuinfo")
	if _, rest, found := strings.Cut(string(info), "model name"); found {
		m.CPU, _, _ = strings.Cut(strings.TrimLeft(rest, "\t :"), "\n")
	}
	memory, _ := os.ReadFile("/proc/meminfo")
	m.Memory = valueOf(memory, "MemTotal:") << 10
	release, _ := os.ReadFile("/etc/os-release")
	if _, rest, found := strings.Cut(string(release), `PRETTY_NAME="`); found {
		m.System, _, _ = strings.Cut(rest, `"`)
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(kernel))
	load, _ := os.ReadFile("/proc/loadavg")
	m.Load = strings.Join(strings.Fields(string(load))[:1], "")
	fs, _ := output(ctx, dir, "stat", "-f", "-c", "%T", dir)
	m.Folder = strings.TrimSpace(string(fs))
	return m
}

// of returns the results of a peer in a work, a work's name and a peer's.
func (r *report) of(work, peer string) []result {
	var list []result
	for _, one := range r.Results {
		if one.Work == work && one.Peer == peer && one.Missing == "" {
			list = append(list, one)
		}
	}
	return list
}

// median returns the median of one figure; ok is false without results.
func (r *report) median(work, peer string, figure func(result) float64) (value float64, ok bool) {
	var list []float64
	for _, one := range r.of(work, peer) {
		list = append(list, figure(one))
	}
	return middle(list)
}

func (r *report) worst(work, peer string, figure func(result) float64) (value float64, ok bool) {
	for _, one := range r.of(work, peer) {
		value, ok = max(value, figure(one)), true
	}
	return value, ok
}

// ratio returns the median of ours by theirs, round by round: what disturbs
// one round disturbs both.
func (r *report) ratio(work, peer, theirs string, figure func(result) float64) (value float64, ok bool) {
	var list []float64
	for _, one := range r.of(work, peer) {
		for _, other := range r.of(work, theirs) {
			if one.Round == other.Round && figure(other) > 0 {
				list = append(list, figure(one)/figure(other))
			}
		}
	}
	return middle(list)
}

func middle(list []float64) (float64, bool) {
	n := len(list)
	if n == 0 {
		return 0, false
	}
	slices.Sort(list)
	return (list[(n-1)/2] + list[n/2]) / 2, true
}

// publish writes tables and chart into dir, prints the tables, and updates the
// page docs if that is given.
func (r *report) publish(dir, docs string) error {
	text := r.text()
	fmt.Print(text)
	chart := r.chart()
	if err := os.WriteFile(filepath.Join(dir, "report.md"), []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "performance.svg"), chart, 0o644); err != nil {
		return err
	}
	if docs == "" {
		return nil
	}
	page, err := os.ReadFile(docs)
	if err != nil {
		return err
	}
	updated, err := insert(page, text)
	if err != nil {
		return fmt.Errorf("update %s: %w", docs, err)
	}
	if err := os.WriteFile(strings.TrimSuffix(docs, filepath.Ext(docs))+".svg", chart, 0o644); err != nil {
		return err
	}
	return os.WriteFile(docs, updated, 0o644)
}

// What stands around the figures in the page.
const (
	pageBegin = "<!-- figures: written by make bench -->\n"
	pageEnd   = "<!-- end of figures -->\n"
)

// insert puts text between the two marks.
func insert(page []byte, text string) ([]byte, error) {
	before, rest, found := bytes.Cut(page, []byte(pageBegin))
	_, after, ended := bytes.Cut(rest, []byte(pageEnd))
	if !found || !ended {
		return nil, fmt.Errorf("the lines %q and %q are not in it", strings.TrimSpace(pageBegin), strings.TrimSpace(pageEnd))
	}
	return slices.Concat(before, []byte(pageBegin+"\n"+text+"\n"+pageEnd), after), nil
}

// text returns the tables in Markdown.
func (r *report) text() string {
	var out strings.Builder
	m := r.Machine
	fmt.Fprintf(&out, "Measured %s on %s, %d cores, %.0f GiB, %s, Linux %s, data on %s; load %s before the start.\n"+
		"%d rounds in %s; W1 is %d lines, W3 %d messages, W2 %s, W4 and W5 windows of %s.\n",
		r.When.UTC().Format("2 January 2006, 15:04"), m.CPU, m.Cores, float64(m.Memory)/(1<<30), m.System, m.Kernel, m.Folder, m.Load,
		r.Rounds, r.Took.Round(time.Second), r.Sizes.Backlog, r.Sizes.Messages, r.Sizes.Steady, r.Sizes.Window)
	out.WriteString("\n### Targets\n\n")
	r.verdicts(&out)
	for _, w := range works() {
		r.table(&out, w)
	}
	return out.String()
}

// A column is one figure of a work's table.
type column struct {
	title  string
	format string
	figure func(result) float64
}

// Figures that several works show.
var (
	perMillion = column{"CPU s per million", "%.2f", result.perMillion}
	rate       = column{"records/s", "%.0f", result.rate}
	peak       = column{"peak MiB", "%.0f", func(r result) float64 { return mib(r.Peak) }}
	pss        = column{"PSS MiB", "%.1f", func(r result) float64 { return mib(r.PSS) }}
	wire       = column{"sent MB", "%.1f", func(r result) float64 { return mb(r.Wire) }}
	wrote      = column{"written MB", "%.1f", func(r result) float64 { return mb(r.Wrote) }}
	lost       = column{"lost", "%.0f", func(r result) float64 { return float64(r.Lost) }}
	twice      = column{"twice", "%.0f", func(r result) float64 { return float64(r.Dup) }}
	percent    = column{"CPU % of a core", "%.2f", func(r result) float64 { return r.CPUPercent }}
	switches   = column{"switches/s", "%.1f", func(r result) float64 { return r.Switches }}
	recovery   = column{"recovery s", "%.1f", func(r result) float64 { return r.Recovery }}
	p50        = column{"p50 ms", "%.0f", func(r result) float64 { return r.P50 * 1e3 }}
	p99        = column{"p99 ms", "%.0f", func(r result) float64 { return r.P99 * 1e3 }}
	requests   = column{"requests", "%.0f", func(r result) float64 { return float64(r.Requests) }}
	store      = column{"store MB", "%.1f", func(r result) float64 { return mb(r.Store) }}
	perSample  = column{"CPU ms per sample", "%.2f", func(r result) float64 { return r.PerSample * 1e3 }}
	start      = column{"start s", "%.2f", func(r result) float64 { return r.Start }}
)

var columns = map[string][]column{
	"W1":          {perMillion, rate, peak, wire, wrote, lost, twice},
	"W1-kill":     {lost, twice, perMillion, peak},
	"W2":          {percent, p50, p99, pss, switches, requests, wire, wrote, lost, twice},
	"W3-tcp":      {perMillion, rate, peak, wire, wrote, lost, twice},
	"W3-tcp-5424": {perMillion, rate, peak, wire, wrote, lost, twice},
	"W3-udp":      {perMillion, lost, peak, wire, wrote, twice},
	"W4":          {perSample, pss, switches},
	"W5":          {percent, switches, pss},
	"W5-start":    {start},
	"W6":          {lost, twice, recovery, store, wrote, peak},
	"spool":       spoolColumns,
}

// table writes the medians of a work, peer by peer.
func (r *report) table(out *strings.Builder, w *work) {
	shown := columns[w.name]
	var rows strings.Builder
	for _, e := range w.entries {
		results := r.of(w.name, e.name())
		if len(results) == 0 {
			if why := r.missing(w.name, e.name()); why != "" {
				fmt.Fprintf(&rows, "| %s | %s | 0 |%s\n", e.name(), r.mode(e), " - |"+strings.Repeat(" |", len(shown)-2)+" "+why+" |")
			}
			continue
		}
		fmt.Fprintf(&rows, "| %s | %s | %d |", e.name(), r.mode(e), len(results))
		for _, c := range shown {
			value, _ := r.median(w.name, e.name(), c.figure)
			fmt.Fprintf(&rows, " "+c.format+" |", value)
		}
		rows.WriteByte('\n')
	}
	if rows.Len() == 0 {
		return
	}
	fmt.Fprintf(out, "\n### %s: %s\n\n| agent | mode | rounds |", w.name, w.title)
	for _, c := range shown {
		fmt.Fprintf(out, " %s |", c.title)
	}
	fmt.Fprintf(out, "\n|---|---|---|%s\n%s", strings.Repeat("---:|", len(shown)), rows.String())
}

func (r *report) mode(e entry) string {
	mode := r.Modes[e.peer]
	if e.part > 1 {
		mode += fmt.Sprintf("; 1/%d of the records", e.part)
	}
	return mode
}

// missing says why a peer has no figures in a work; "" when it was not asked.
func (r *report) missing(work, peer string) string {
	for _, one := range r.Results {
		if one.Work == work && one.Peer == peer {
			why, _, _ := strings.Cut(one.Missing, "\n")
			return "not measured: " + strings.ReplaceAll(why, "|", "/")
		}
	}
	return ""
}
