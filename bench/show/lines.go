// Plots with lines: one figure over something that grows, a line per server, as SVG whose
// colours are those of the style sheet.
//
// Invariant: a point that could not be measured is not drawn, and is named in the notes.

package show

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Sizes in the SVG's own space. The page scales a plot down to 0.85 on a narrow telephone and up to
// 1.3 on a desk: text stays readable at both ends.
const (
	plotWidth   = 400.0
	plotHeight  = 240.0
	headRoom    = 24.0 // above the axes: what the vertical axis is, and its unit
	footRoom    = 38.0 // below: labels, and what the horizontal axis is
	letterWidth = 6.8  // of the labels at most, on the average
)

// lineChart is what to draw.
type lineChart struct {
	id, title  string
	x, head    string // what grows, and what the vertical axis is, with its unit
	logX, logY bool
	xText      func(float64) string // of what grows
	format     func(float64) string // of the vertical axis
	series     []series
	notes      []string
}

// series is one server's line, points by rising x.
type series struct {
	name   string
	look   look
	points []point
}

// point is a median and its spread over the rounds.
type point struct {
	x, y, low, high float64
	strained        bool // the offered rate was not reached, or requests were left over
}

// axis is a range of values and where its ends are drawn.
type axis struct {
	low, high float64
	log       bool
	from, to  float64
}

// at is where a value is drawn; values outside are drawn at the ends.
func (a axis) at(v float64) float64 {
	v = min(max(v, a.low), a.high)
	share := (v - a.low) / (a.high - a.low)
	if a.log {
		share = math.Log(v/a.low) / math.Log(a.high/a.low)
	}
	return a.from + share*(a.to-a.from)
}

// axes are both: from zero when they are linear, and to round numbers upwards.
func (l lineChart) axes() (x, y axis) {
	x = axis{low: math.Inf(1), log: l.logX, to: plotWidth - 8}
	y = axis{low: math.Inf(1), log: l.logY, from: plotHeight - footRoom, to: headRoom + 4}
	for _, s := range l.series {
		for _, p := range s.points {
			x.low, x.high = min(x.low, p.x), max(x.high, p.x)
			for _, v := range []float64{p.y, p.low, p.high} {
				if v > 0 && finite(v) {
					y.low, y.high = min(y.low, v), max(y.high, v)
				}
			}
		}
	}
	if x.low == x.high {
		x.low, x.high = x.low/2, x.high*2
	}
	if !x.log {
		x.low = 0
	}
	if y.high *= 1.05; y.log {
		y.low, y.high = 1/roundUp(1/y.low), roundUp(y.high/1.05)
	} else {
		y.low = 0
	}
	if y.low >= y.high {
		y.low, y.high = y.high/2, y.high*2
	}
	return x, y
}

// roundUp rounds to 1, 2 or 5 times a power of ten.
func roundUp(v float64) float64 {
	decade := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*decade*(1+1e-9) {
			return m * decade
		}
	}
	return 10 * decade
}

// ticks are the values of a vertical axis, or of a linear one, that get a label: round ones, and on
// a logarithmic axis 1, 2 and 5 of every decade, or only decades when there are many.
func (a axis) ticks() (values []float64) {
	if !a.log {
		step := roundUp((a.high - a.low) / 5)
		for k := math.Ceil(a.low / step); k*step <= a.high; k++ {
			values = append(values, k*step)
		}
		return values
	}
	decades := math.Log10(a.high / a.low)
	steps := []float64{1, 2, 5}
	if decades > 2.3 {
		steps = steps[:1]
	}
	every := math.Pow(10, math.Ceil(decades/6))
	for decade := math.Pow(10, math.Floor(math.Log10(a.low))); decade <= a.high; decade *= every {
		for _, m := range steps {
			if v := m * decade; v >= a.low*0.999 && v <= a.high*1.001 {
				values = append(values, v)
			}
		}
	}
	return values
}

// measured are the values on the horizontal axis that were measured, as far as their labels do not
// come too close to each other.
func (l lineChart) measured(x axis) (values []float64) {
	for _, s := range l.series {
		for _, p := range s.points {
			values = append(values, p.x)
		}
	}
	slices.Sort(values)
	end := math.Inf(-1)
	return slices.DeleteFunc(slices.Compact(values), func(v float64) bool {
		half := width(l.xText(v)) / 2
		if x.at(v)-half < end+5 {
			return true
		}
		end = x.at(v) + half
		return false
	})
}

// draw makes the figure.
func (l lineChart) draw() figure {
	f := figure{ID: l.id, Title: l.title, Notes: l.notes}
	for _, s := range l.series {
		f.Legend = append(f.Legend, legendEntry{s.name, s.look.swatch(), s.name == "ringnbd"})
	}
	x, y := l.axes()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="plot" id="%[1]s-plot" viewBox="0 0 %[2]g %[3]g" role="img" `+
		`aria-labelledby="%[1]s-title %[1]s-words"><title id="%[1]s-title">%[4]s</title>`+
		`<desc id="%[1]s-words">%[5]s</desc>`, l.id, plotWidth, plotHeight,
		html.EscapeString(l.title), html.EscapeString(l.words()))
	label(&b, 0, 13, "start", l.head)
	for _, v := range y.ticks() {
		x.from = max(x.from, width(l.yText(v))+10)
	}
	for _, v := range y.ticks() {
		fmt.Fprintf(&b, `<path class="grid" d="M%.1f %.1fH%.1f"/>`, x.from, y.at(v), x.to)
		label(&b, x.from-6, y.at(v)+4, "end", l.yText(v))
	}
	for _, v := range l.measured(x) {
		label(&b, min(x.at(v), plotWidth-width(l.xText(v))/2), y.from+17, "middle", l.xText(v))
	}
	label(&b, (x.from+x.to)/2, plotHeight-4, "middle", l.x)
	for _, s := range slices.Backward(l.series) { // ringnbd is among the first, and on top
		s.draw(&b, x, y)
	}
	b.WriteString("</svg>")
	f.SVG = template.HTML(b.String())
	return f
}

func (l lineChart) yText(v float64) string {
	if v == 0 {
		return "0"
	}
	return trimZeros(l.format(v))
}

func label(b *strings.Builder, x, y float64, anchor, words string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, x, y, anchor,
		html.EscapeString(words))
}

// width is that of a label at most.
func width(label string) float64 { return letterWidth * float64(utf8.RuneCountInString(label)) }

// draw draws one line with its marks and spreads.
func (s series) draw(b *strings.Builder, x, y axis) {
	var line, marks strings.Builder
	fmt.Fprintf(b, `<g style="--ink:var(--%s)">`, s.look.colour)
	for i, p := range s.points {
		px, py := x.at(p.x), y.at(p.y)
		fmt.Fprintf(&line, "%c%.1f %.1f", "ML"[min(i, 1)], px, py)
		if p.high > p.low {
			fmt.Fprintf(b, `<path class="spread" d="M%.1f %.1fV%.1f"/>`, px, y.at(p.low),
				y.at(p.high))
		}
		class := "mark"
		if p.strained {
			class += " hollow"
		}
		fmt.Fprintf(&marks, `<path class="%s" d="%s" transform="translate(%.1f %.1f)"/>`, class,
			s.look.mark, px, py)
		if p.noisy() {
			fmt.Fprintf(&marks, `<path class="noisy" d="M%.1f %.1fl14-14"/>`, px-7, py+7)
		}
	}
	fmt.Fprintf(b, `<path class="line" d="%s" style="%s"/>%s</g>`, line.String(), s.look.stroke(),
		marks.String())
}

// noisy reports whether the rounds of a figure differ so much that its median says little.
func noisy(median, low, high float64) bool { return high-low > 0.5*median }

func (p point) noisy() bool { return noisy(p.y, p.low, p.high) }

// words is the chart for readers who cannot see it: every number in it.
func (l lineChart) words() string {
	words := l.head + ", over " + l.x + "."
	for _, s := range l.series {
		var points []string
		for _, p := range s.points {
			at := l.format(p.y) + " at " + l.xText(p.x)
			if p.strained {
				at += " (rate not reached)"
			}
			points = append(points, at)
		}
		words += " " + s.name + ": " + strings.Join(points, ", ") + "."
	}
	return words
}
