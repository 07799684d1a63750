// Plots with lines: one figure over something that grows, a line per server.
// Invariant: a point that could not be measured is not drawn, and is named in the
// notes.

package show

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// lineChart is what to draw.
type lineChart struct {
	id, title  string
	x          string // what grows, with its unit
	head       string // what the vertical axis is, with its unit
	logX, logY bool
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

// draw makes the plot.
func (l lineChart) draw() drawing {
	p := newPlot()
	p.X.Label.Text = l.x
	l.ranges(p)
	p.X.Tick.Marker = linearTicks(5, shortNumber)
	if l.logX {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, l.ticksAtPoints()
	}
	p.Y.Tick.Marker = linearTicks(5, l.format)
	if l.logY {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, logTicks(l.format)
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color = nil
	grid.Horizontal = draw.LineStyle{Color: inkFaint.color(1), Width: 0.8}
	p.Add(grid)
	p.Y.LineStyle.Width, p.Y.Tick.LineStyle.Width, p.Y.Tick.Length = 0, 0, 0
	f := drawing{ID: l.id, Title: l.title, Notes: l.notes}
	ordered := slices.Clone(l.series)
	slices.SortStableFunc(ordered, func(a, b series) int {
		return drawnLater(a.name) - drawnLater(b.name)
	})
	for _, s := range ordered {
		p.Add(s)
	}
	for _, s := range l.series {
		f.Legend = append(f.Legend,
			legendEntry{Name: s.name, Swatch: lineSwatch(s.look), Strong: s.name == "ringnbd"})
	}
	svg, c := canvas(lineHeight)
	drawWithHead(p, c, l.head)
	f.SVG = inline(svg, l.id, l.title, l.words())
	return f
}

// drawnLater puts ringnbd on top of the others.
func drawnLater(name string) int {
	if name == "ringnbd" {
		return 1
	}
	return 0
}

// ranges sets both axes: from zero when they are linear.
func (l lineChart) ranges(p *plot.Plot) {
	x, y := span{}, span{}
	for _, s := range l.series {
		for _, at := range s.points {
			x.add(at.x)
			y.add(at.low)
			y.add(at.high)
			y.add(at.y)
		}
	}
	p.X.Min, p.X.Max = 0, x.high
	if l.logX {
		p.X.Min, p.X.Max = x.low, x.high
		if x.low == x.high {
			p.X.Min, p.X.Max = x.low/2, x.high*2
		}
	}
	p.Y.Min, p.Y.Max = 0, y.high*1.05
	if l.logY {
		p.Y.Min, p.Y.Max = floorLog(y.low), ceilLog(y.high)
	}
	if p.Y.Max == 0 {
		p.Y.Max = 1
	}
}

// span is the smallest and the largest of some positive numbers.
type span struct{ low, high float64 }

func (s *span) add(v float64) {
	if v <= 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return
	}
	if s.low == 0 || v < s.low {
		s.low = v
	}
	s.high = max(s.high, v)
}

// floorLog and ceilLog round to 1, 2 or 5 times a power of ten.
func floorLog(v float64) float64 {
	if v <= 0 {
		return 1
	}
	decade := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{5, 2} {
		if v >= m*decade {
			return m * decade
		}
	}
	return decade
}

func ceilLog(v float64) float64 {
	if v <= 0 {
		return 10
	}
	decade := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{2, 5} {
		if v <= m*decade {
			return m * decade
		}
	}
	return 10 * decade
}

// words is the chart for those who cannot see it: every number in it.
func (l lineChart) words() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, over %s.", l.head, l.x)
	for _, s := range l.series {
		fmt.Fprintf(&b, " %s:", s.name)
		for i, at := range s.points {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, " %s at %s", l.format(at.y), plainNumber(at.x))
			if at.strained {
				b.WriteString(" (rate not reached)")
			}
		}
		b.WriteByte('.')
	}
	return b.String()
}

// Plot draws one line with its markers and spreads.
func (s series) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	clip := func(v float64) float64 { return min(max(v, p.Y.Min), p.Y.Max) }
	spread := draw.LineStyle{Color: s.look.ink.color(0.55), Width: 1}
	for i, at := range s.points {
		if at.high > at.low {
			c.StrokeLine2(spread, x(at.x), y(clip(at.low)), x(at.x), y(clip(at.high)))
		}
		if i == 0 {
			continue
		}
		before := s.points[i-1]
		line := draw.LineStyle{Color: s.look.ink.color(1), Width: s.look.width, Dashes: s.look.dash}
		c.StrokeLine2(line, x(before.x), y(clip(before.y)), x(at.x), y(clip(at.y)))
	}
	for _, at := range s.points {
		drawMarker(c, s.look, vg.Point{X: x(at.x), Y: y(clip(at.y))}, at.strained)
	}
}

// GlyphBoxes keeps room for the markers at the edges.
func (s series) GlyphBoxes(p *plot.Plot) []plot.GlyphBox {
	var boxes []plot.GlyphBox
	for _, at := range s.points {
		r := vg.Length(5)
		boxes = append(boxes,
			plot.GlyphBox{X: p.X.Norm(at.x), Y: min(p.Y.Norm(max(at.y, p.Y.Min)), 1),
				Rectangle: vg.Rectangle{Min: vg.Point{X: -r, Y: -r}, Max: vg.Point{X: r, Y: r}}})
	}
	return boxes
}

// drawMarker draws a server's shape; hollow and larger when the point is strained.
func drawMarker(c draw.Canvas, l look, at vg.Point, strained bool) {
	r := vg.Length(3.4)
	if l.width > 2 {
		r = 4
	}
	fill := l.ink.color(1)
	if strained {
		fill, r = inkCard.color(1), r+1
	}
	path := markerPath(l.sides, at, r)
	c.SetColor(fill)
	c.Fill(path)
	c.SetLineStyle(draw.LineStyle{Color: l.ink.color(1), Width: 1.4})
	c.Stroke(path)
}

// markerPath is a circle or a regular polygon.
func markerPath(sides int, at vg.Point, r vg.Length) vg.Path {
	var p vg.Path
	switch {
	case sides == 0:
		p.Move(vg.Point{X: at.X + r, Y: at.Y})
		p.Arc(at, r, 0, 2*math.Pi)
		p.Close()
	default:
		n, turn := sides, math.Pi/2
		switch {
		case sides == 4:
			turn = math.Pi / 4 // a square; -4 is a diamond
		case sides == -3, sides == -5:
			turn = -math.Pi / 2
		}
		if n < 0 {
			n = -n
		}
		for i := range n {
			angle := turn + 2*math.Pi*float64(i)/float64(n)
			corner := vg.Point{X: at.X + r*1.15*vg.Length(math.Cos(angle)),
				Y: at.Y + r*1.15*vg.Length(math.Sin(angle))}
			if i == 0 {
				p.Move(corner)
			} else {
				p.Line(corner)
			}
		}
		p.Close()
	}
	return p
}

// linearTicks labels about n round values.
func linearTicks(n int, format func(float64) string) plot.Ticker {
	return plot.TickerFunc(func(low, high float64) []plot.Tick {
		step := ceilLog((high - low) / float64(n))
		var ticks []plot.Tick
		for k := math.Ceil(low / step); k*step <= high*(1+1e-9); k++ {
			label := "0"
			if k != 0 {
				label = trimZeros(format(k * step))
			}
			ticks = append(ticks, plot.Tick{Value: k * step, Label: label})
		}
		return ticks
	})
}

// logTicks labels 1, 2 and 5 of every decade, only the decades when there are some, and
// not all of those when there are many.
func logTicks(format func(float64) string) plot.Ticker {
	return plot.TickerFunc(func(low, high float64) []plot.Tick {
		decades := math.Log10(high / low)
		every := math.Ceil(decades / 6) // decades from label to label
		var ticks []plot.Tick
		for decade := math.Pow(10,
			math.Floor(math.Log10(low))); decade <= high*1.001; decade *= 10 {
			exponent := math.Round(math.Log10(decade))
			for m := 1.0; m < 10; m++ {
				v := m * decade
				if v < low*0.999 || v > high*1.001 {
					continue
				}
				t := plot.Tick{Value: v}
				if m == 1 && math.Mod(exponent, every) == 0 ||
					decades <= 2.3 && (m == 2 || m == 5) {
					t.Label = trimZeros(format(v))
				}
				ticks = append(ticks, t)
			}
		}
		return ticks
	})
}

// ticksAtPoints labels the values that were measured, as far as they do not come too
// close to each other.
func (l lineChart) ticksAtPoints() plot.Ticker {
	return plot.TickerFunc(func(low, high float64) []plot.Tick {
		var values []float64
		for _, s := range l.series {
			for _, at := range s.points {
				if !slices.Contains(values, at.x) {
					values = append(values, at.x)
				}
			}
		}
		slices.Sort(values)
		var ticks []plot.Tick
		last := math.Inf(-1)
		for _, v := range values {
			t := plot.Tick{Value: v}
			if at := math.Log(v/low) / math.Log(high/low); at-last > 0.09 || high == low {
				t.Label, last = plainNumber(v), at
			}
			ticks = append(ticks, t)
		}
		return ticks
	})
}

// plainNumber is a value that was chosen, not measured: 1, 256, 20k.
func plainNumber(v float64) string { return trimZeros(shortNumber(v)) }

// trimZeros shortens a label: "2.00 ms" to "2 ms".
func trimZeros(s string) string {
	number, unit, spaced := strings.Cut(s, " ")
	suffix := strings.TrimLeft(number, "-0123456789.")
	number = strings.TrimSuffix(number, suffix)
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	if spaced {
		return number + suffix + " " + unit
	}
	return number + suffix
}
