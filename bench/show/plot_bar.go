// Plots with bars: loads under each other, in each a bar per server with its name
// at the left and its number at the right. Invariant: every server that took part in a
// load has its row, also when nothing could be measured.

package show

import (
	"fmt"
	"html/template"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// barChart is what to draw.
type barChart struct {
	id, title string
	unit      string // what is below the axis
	format    func(float64) string
	groups    []barGroup
	legend    []legendEntry
	notes     []string
}

// barGroup is one load.
type barGroup struct {
	label string
	limit float64 // what the raw limit reached; 0 when there is none
	rows  []barRow
}

// barRow is one server.
type barRow struct {
	name      string
	parts     []barPart
	low, high float64 // spread over the rounds
	failed    string  // why there is no bar
}

// barPart is a piece of a bar.
type barPart struct {
	value   float64
	ink     ink
	opacity float64
}

func (r barRow) total() float64 {
	var sum float64
	for _, p := range r.parts {
		sum += p.value
	}
	return sum
}

// Heights in rows of bars.
const (
	rowHeight   = 16.5 // points
	barThick    = 11.0 // points
	groupHeader = 1.35 // rows
)

// draw makes the plot.
func (b barChart) draw() drawing {
	p := newPlot()
	p.HideY()
	p.X.Label.Text = b.unit
	p.X.Min, p.X.Max = 0, b.widest()
	p.X.Tick.Marker = linearTicks(4, b.format)
	p.Y.Min, p.Y.Max = 0, b.rows()
	grid := plotter.NewGrid()
	grid.Horizontal.Color = nil
	grid.Vertical = draw.LineStyle{Color: inkFaint.color(1), Width: 0.8}
	p.Add(grid, b)
	p.X.LineStyle.Width, p.X.Tick.LineStyle.Width, p.X.Tick.Length = 0, 0, 0
	svg, c := canvas(b.rows()*rowHeight + 36)
	p.Draw(draw.Crop(c, vg.Points(b.nameWidth()), -vg.Points(b.numberWidth()), 2, -2))
	return drawing{ID: b.id, Title: b.title, Notes: b.notes, Legend: b.legend,
		SVG: inline(svg, b.id, b.title, b.words())}
}

// rows is the height of everything, in rows.
func (b barChart) rows() float64 {
	var n float64
	for _, g := range b.groups {
		n += g.header() + float64(len(g.rows))
	}
	return n
}

func (g barGroup) header() float64 {
	if g.label == "" {
		return 0
	}
	return groupHeader
}

// widest is the end of the axis.
func (b barChart) widest() float64 {
	var v float64
	for _, g := range b.groups {
		v = max(v, g.limit)
		for _, r := range g.rows {
			v = max(v, r.total(), r.high)
		}
	}
	if v == 0 {
		return 1
	}
	return v * 1.02
}

// nameWidth is the room for the names at the left.
func (b barChart) nameWidth() float64 {
	var w float64
	for _, g := range b.groups {
		for _, r := range g.rows {
			w = max(w, widthOf(r.name, true, textSize))
		}
	}
	return w + 8
}

// numberWidth is the room for the numbers at the right.
func (b barChart) numberWidth() float64 {
	var w float64
	for _, g := range b.groups {
		for _, r := range g.rows {
			w = max(w, widthOf(b.format(r.total()), true, textSize))
		}
	}
	return w + 8
}

// words is the chart for those who cannot see it: every number in it.
func (b barChart) words() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s.", b.unit)
	for _, g := range b.groups {
		fmt.Fprintf(&s, " %s:", g.label)
		for i, r := range g.rows {
			if i > 0 {
				s.WriteByte(',')
			}
			if r.failed != "" {
				fmt.Fprintf(&s, " %s %s", r.name, r.failed)
				continue
			}
			fmt.Fprintf(&s, " %s %s", r.name, b.format(r.total()))
		}
		if g.limit > 0 {
			fmt.Fprintf(&s, ", raw limit %s", b.format(g.limit))
		}
		s.WriteByte('.')
	}
	return s.String()
}

// Plot draws all groups from the top down.
func (b barChart) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	at := p.Y.Max
	for _, g := range b.groups {
		if g.label != "" {
			at -= g.header()
			b.drawHeader(c, g, y(at+0.25*g.header()))
		}
		top := y(at)
		for _, r := range g.rows {
			at--
			b.drawRow(c, r, x, y(at+0.5))
		}
		if g.limit > 0 {
			line := draw.LineStyle{Color: inkRaw.color(1), Width: 1.6, Dashes: []vg.Length{3, 2}}
			c.StrokeLine2(line, x(g.limit), top, x(g.limit), y(at))
		}
	}
}

// drawHeader writes the load's name at the left edge, and the limit at the right.
func (b barChart) drawHeader(c draw.Canvas, g barGroup, y vg.Length) {
	style := textStyle(inkText, true, draw.XLeft, draw.YBottom)
	c.FillText(style, vg.Point{X: 0, Y: y}, g.label)
	if g.limit <= 0 {
		return
	}
	style = textStyle(inkQuiet, false, draw.XRight, draw.YBottom)
	c.FillText(style, vg.Point{X: plotWidth - 1, Y: y}, "raw limit "+b.format(g.limit))
}

func (b barChart) drawRow(c draw.Canvas, r barRow, x func(float64) vg.Length, y vg.Length) {
	strong := r.name == "ringnbd"
	half := vg.Length(barThick / 2)
	name := textStyle(inkText, strong, draw.XRight, draw.YCenter)
	c.FillText(name, vg.Point{X: x(0) - 5, Y: y}, r.name)
	if r.failed != "" {
		c.FillText(textStyle(inkBad, true, draw.XLeft, draw.YCenter), vg.Point{X: x(0) + 3, Y: y},
			r.failed)
		return
	}
	var from float64
	for _, part := range r.parts {
		box := []vg.Point{{X: x(from), Y: y - half}, {X: x(from + part.value), Y: y - half},
			{X: x(from + part.value), Y: y + half}, {X: x(from), Y: y + half}}
		c.FillPolygon(part.ink.color(part.opacity), box)
		from += part.value
	}
	if r.high > r.low {
		drawSpread(c, x(r.low), x(r.high), y)
	}
	number := textStyle(inkText, strong, draw.XRight, draw.YCenter)
	c.FillText(number, vg.Point{X: plotWidth - 1, Y: y}, b.format(from))
}

// drawSpread reaches from the lowest to the highest round, with a rim that keeps it
// apart from a bar of any colour.
func drawSpread(c draw.Canvas, low, high, y vg.Length) {
	for _, line := range []draw.LineStyle{{Color: inkCard.color(1), Width: 2.6},
		{Color: inkText.color(1), Width: 1}} {
		rim := line.Width / 4
		c.StrokeLine2(line, low-rim, y, high+rim, y)
		c.StrokeLine2(line, low, y-2.5-rim, low, y+2.5+rim)
		c.StrokeLine2(line, high, y-2.5-rim, high, y+2.5+rim)
	}
}

// lineSwatch and barSwatch are samples for legends.
func lineSwatch(l look) template.HTML {
	svg := vgsvg.New(34, 12)
	c := draw.New(svg)
	c.StrokeLine2(draw.LineStyle{Color: l.ink.color(1), Width: l.width, Dashes: l.dash}, 1, 6, 33,
		6)
	drawMarker(c, l, vg.Point{X: 17, Y: 6}, false)
	return rewrite(svg, swatchAttributes, "")
}

func barSwatch(k ink, opacity float64) template.HTML {
	svg := vgsvg.New(14, 12)
	c := draw.New(svg)
	c.FillPolygon(k.color(opacity),
		[]vg.Point{{X: 1, Y: 1}, {X: 13, Y: 1}, {X: 13, Y: 11}, {X: 1, Y: 11}})
	return rewrite(svg, swatchAttributes, "")
}

func limitSwatch() template.HTML {
	svg := vgsvg.New(14, 12)
	c := draw.New(svg)
	c.StrokeLine2(draw.LineStyle{Color: inkRaw.color(1), Width: 1.6, Dashes: []vg.Length{3, 2}}, 7,
		0, 7, 12)
	return rewrite(svg, swatchAttributes, "")
}

func spreadSwatch() template.HTML {
	svg := vgsvg.New(22, 12)
	c := draw.New(svg)
	drawSpread(c, 2, 20, 6)
	return rewrite(svg, swatchAttributes, "")
}

const swatchAttributes = `class="swatch" aria-hidden="true"`

// finite tells whether a number can be drawn.
func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
