//go:build linux

package main

import (
	"fmt"
	"strings"
)

// A target is what our agent must reach in a work.
type target struct {
	work   string
	what   string
	goal   float64
	atMost bool // the goal is the most that is allowed, else the least
	unit   string
	value  func(r *report) (float64, bool)
}

// A maker of the value of a target from one figure.
type valuer = func(r *report) (float64, bool)

func medianOf(work string, c column) valuer {
	return func(r *report) (float64, bool) { return r.median(work, ours, c.figure) }
}

func worstOf(work, peer string, c column) valuer {
	return func(r *report) (float64, bool) { return r.worst(work, peer, c.figure) }
}

func ratioTo(work, theirs string, c column) valuer {
	return func(r *report) (float64, bool) { return r.ratio(work, ours, theirs, c.figure) }
}

// Figures that only targets use.
var (
	wirePerMillion = column{figure: func(r result) float64 { return mb(r.Wire) / float64(r.Records) * 1e6 }}
	writtenPerByte = column{figure: func(r result) float64 { return float64(r.Wrote) / float64(r.Lines) }}
	storedPerByte  = column{figure: func(r result) float64 {
		return float64(r.Store) / (float64(r.Lines) * (outageTo - outageFrom).Seconds() / outageEnd.Seconds())
	}}
	twiceInBatches  = column{figure: func(r result) float64 { return float64(r.Dup) * float64(r.Requests) / float64(r.Records) }}
	everyProcess    = ours + ", every process"
	killed          = ours + ", two kills"
	otelEveryProces = otelMemory + ", every process"
)

// targets lists what our agent must reach, in the order of the works.
func targets() []target {
	most := func(work, what string, goal float64, unit string, value valuer) target {
		return target{work, what, goal, true, unit, value}
	}
	least := func(work, what string, goal float64, unit string, value valuer) target {
		return target{work, what, goal, false, unit, value}
	}
	list := []target{
		most("W1", "CPU, of ideal's", 1.35, "×", ratioTo("W1", ideal, perMillion)),
		most("W1", "CPU, of otelcol's with a store", 0.10, "×", ratioTo("W1", otelDisk, perMillion)),
		most("W1", "CPU, of otelcol's in memory", 0.30, "×", ratioTo("W1", otelMemory, perMillion)),
		most("W1", "CPU, of rsyslog's in memory", 0.35, "×", ratioTo("W1", rsyslogMemory, perMillion)),
		least("W1", "records/s, of otelcol's with a store", 10, "×", ratioTo("W1", otelDisk, rate)),
		most("W1", "peak memory", 40, "MiB", medianOf("W1", peak)),
		most("W1", "sent per million records", 46, "MB", medianOf("W1", wirePerMillion)),
		most("W1", "written, of the log", 0.30, "×", medianOf("W1", writtenPerByte)),
		most("W1-kill", "lost, worst round", 0, "records", worstOf("W1-kill", ours, lost)),
		most("W1-kill", "twice, worst round", 1, "batches", worstOf("W1-kill", ours, twiceInBatches)),
		most("W2", "CPU, of otelcol's in memory", 0.25, "×", ratioTo("W2", otelMemory, percent)),
		most("W2", "CPU, of a core", 0.6, "%", medianOf("W2", percent)),
		most("W2", "latency, median", 300, "ms", medianOf("W2", p50)),
		most("W2", "latency, 99 of 100", 1050, "ms", medianOf("W2", p99)),
		most("W2", "memory (PSS)", 16, "MiB", medianOf("W2", pss)),
		most("W3-tcp", "CPU, of rsyslog's in memory", 0.45, "×", ratioTo("W3-tcp", rsyslogMemory, perMillion)),
		most("W3-tcp", "CPU, of otelcol's with a store", 0.05, "×", ratioTo("W3-tcp", otelDisk, perMillion)),
		most("W3-tcp-5424", "CPU, of rsyslog's in memory", 0.45, "×", ratioTo("W3-tcp-5424", rsyslogMemory, perMillion)),
		most("W3-udp", "lost, worst round", 0, "records", worstOf("W3-udp", ours, lost)),
		most("W3-udp", "CPU, of rsyslog's in memory", 0.5, "×", ratioTo("W3-udp", rsyslogMemory, perMillion)),
		most("W4", "CPU per sample, of otelcol's", 0.12, "×", ratioTo("W4", otelMemory, perSample)),
		most("W4", "the same with every process", 0.15, "×", func(r *report) (float64, bool) {
			return r.ratio("W4", everyProcess, otelEveryProces, perSample.figure)
		}),
		most("W5", "CPU, of a core", 0.03, "%", medianOf("W5", percent)),
		most("W5", "context switches", 5, "/s", medianOf("W5", switches)),
		most("W5", "memory (PSS)", 14, "MiB", medianOf("W5", pss)),
		most("W5", "start to first record", 0.3, "s", medianOf("W5-start", start)),
		most("W5", "binary, stripped", 12, "MB", func(r *report) (float64, bool) { return mb(r.Binary), true }),
		most("W6", "lost, worst round", 0, "records", worstOf("W6", ours, lost)),
		most("W6", "recovery, worst round", 2, "s", worstOf("W6", ours, recovery)),
		most("W6", "store, of the lines in the outage", 0.25, "×", medianOf("W6", storedPerByte)),
		most("W6", "lost with two kills, worst round", 0, "records", worstOf("W6", killed, lost)),
		most("W6", "twice with two kills, worst round", 2, "batches", worstOf("W6", killed, twiceInBatches)),
		most("W6", "recovery with two kills, worst round", 2, "s", worstOf("W6", killed, recovery)),
	}
	return append(list, spoolTargets()...)
}

// verdicts writes the table of targets.
func (r *report) verdicts(out *strings.Builder) {
	out.WriteString("| work | what | target | measured | verdict |\n|---|---|---:|---:|---|\n")
	for _, t := range targets() {
		value, measured := t.value(r)
		bound, verdict := "≥", "missed"
		if t.atMost {
			bound = "≤"
		}
		if t.atMost == (value <= t.goal) || value == t.goal {
			verdict = "reached"
		}
		shown := fmt.Sprintf("%.3g %s", value, t.unit)
		if !measured {
			shown, verdict = "", "not measured"
		}
		fmt.Fprintf(out, "| %s | %s | %s %g %s | %s | %s |\n", t.work, t.what, bound, t.goal, t.unit, shown, verdict)
	}
}
