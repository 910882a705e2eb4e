//go:build linux

package main

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"slices"
)

// A panel is one part of the chart: a bar for each peer.
type panel struct {
	work, title string
	column      column
}

// panels of the chart, from the top.
var panels = []panel{
	{"W1", "CPU seconds per million lines of a backlog (W1)", perMillion},
	{"W3-tcp", "CPU seconds per million syslog messages over TCP (W3)", perMillion},
	{"W2", "CPU, % of a core, at 1,000 lines a second (W2)", percent},
	{"W6", "records lost in an outage of 30 s (W6)", lost},
}

const (
	chartWidth = 720
	barLeft    = 220
	barMost    = 400
	barStep    = 24
)

// chart draws the medians as an SVG picture.
func (r *report) chart() []byte {
	var body bytes.Buffer
	y := 12
	for _, p := range panels {
		y = r.draw(&body, p, y)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n", chartWidth, y)
	fmt.Fprintf(&out, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", chartWidth, y)
	out.Write(body.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

// draw draws a panel at y and returns where the next one begins.
func (r *report) draw(out *bytes.Buffer, p panel, y int) int {
	type bar struct {
		peer  string
		value float64
	}
	var bars []bar
	most := 0.0
	for _, w := range works() {
		if w.name != p.work {
			continue
		}
		for _, e := range w.entries {
			if value, ok := r.median(p.work, e.name(), p.column.figure); ok {
				bars = append(bars, bar{e.name(), value})
				most = max(most, value)
			}
		}
	}
	if len(bars) == 0 {
		return y
	}
	slices.SortStableFunc(bars, func(a, b bar) int { return cmp.Compare(a.value, b.value) })
	y += 18
	fmt.Fprintf(out, `<text x="12" y="%d" font-weight="bold">%s</text>`+"\n", y, escaped(p.title))
	y += 10
	for _, b := range bars {
		width := 1
		if most > 0 {
			width = max(1, int(barMost*b.value/most))
		}
		colour := "#9aa5b1"
		switch b.peer {
		case ours, killed:
			colour = "#0b6bcb"
		case ideal:
			colour = "#d0d7de"
		}
		fmt.Fprintf(out, `<text x="%d" y="%d" text-anchor="end">%s</text>`, barLeft-8, y+14, escaped(b.peer))
		fmt.Fprintf(out, `<rect x="%d" y="%d" width="%d" height="16" fill="%s"/>`, barLeft, y+2, width, colour)
		fmt.Fprintf(out, `<text x="%d" y="%d">`+p.column.format+`</text>`+"\n", barLeft+width+6, y+14, b.value)
		y += barStep
	}
	return y + 12
}

func escaped(text string) string {
	var out bytes.Buffer
	// A buffer takes everything.
	_ = xml.EscapeText(&out, []byte(text))
	return out.String()
}
