// Plots with lines: one figure over what grows, a line per server. They are SVG, whose colours are
// those of the style sheet; this file computes the positions.
//
// Invariant: a point that could not be measured is not drawn, and is named in the notes.

package show

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"ringnbd/bench/measure"
)

// Sizes in the space of the SVG; page.html.tmpl places the labels. The page scales a plot down
// to 0.85 on a narrow telephone and up to 1.3 on a desk: text stays readable at both ends.
const (
	plotWidth  = 400
	plotLeft   = 58 // of it are the labels of the vertical axis
	plotTop    = 10
	plotBottom = 186
)

// lines is what to draw.
type lines struct {
	Grows  string
	Metric metric
	Axis   axis
	Dots   []dot // on the horizontal axis, at equal distances
	Series []series
}

// dot is what each line of a plot has a point for: a metric of a load.
type dot struct {
	Label  string
	X      string // its position
	load   measure.Load
	metric metric
}

// series is one server's line.
type series struct {
	key
	Points []point
}

// point is a median and its spread over the rounds.
type point struct {
	measured
	dot
}

// pixel prints a position.
func pixel(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

// lineFigure draws a line for each server that met some of the loads, the raw limit first.
func (r report) lineFigure(title, grows string, dots []dot) []figure {
	names := []string{measure.RawName}
	var loads []measure.Load
	for i, d := range dots {
		names = append(names, r.Servers(d.load)...)
		loads = append(loads, d.load)
		band := (plotWidth - plotLeft) / float64(len(dots))
		dots[i].X = pixel(plotLeft + (float64(i)+0.5)*band)
	}
	common, _ := distinguish(loads)
	l := &lines{Grows: grows, Metric: dots[0].metric, Dots: dots}
	f := figure{Title: title + ": " + common, Lines: l}
	var values []float64
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			continue
		}
		s, failed := r.series(name, dots)
		if len(failed) > 0 {
			f.Notes = append(f.Notes, name+" failed at "+strings.Join(failed, ", ")+".")
		}
		if len(s.Points) > 0 {
			l.Series, f.Legend = append(l.Series, s), append(f.Legend, s.key)
		}
		for _, p := range s.Points {
			values = append(values, p.Median, p.Low, p.High)
		}
	}
	if len(l.Series) == 0 {
		return nil
	}
	l.Axis = newAxis(values, l.Metric.time())
	return []figure{f}
}

// series is the line of one server, and the labels at which it failed.
func (r report) series(name string, dots []dot) (s series, failed []string) {
	s.key = key{name, lookOf(name)}
	if r.cached(dots[0].load, name) {
		s.Name += " (page cache)"
	}
	for _, d := range dots {
		result := r.Result(d.load, name)
		if name == measure.RawName && !d.metric.server {
			result = r.Raw(d.load)
		}
		if result == nil {
			continue
		}
		if len(result.Samples) == 0 {
			failed = append(failed, d.Label)
		} else if v := d.metric.measured(result); v.Median > 0 && finite(v.Median) {
			s.Points = append(s.Points, point{v, d})
		}
	}
	return s, failed
}

// axis is the vertical axis: its ends are round, from zero or logarithmic.
type axis struct {
	low, high float64
	log       bool
}

// newAxis is an axis for some values, of which one can be drawn at least.
func newAxis(values []float64, log bool) axis {
	values = slices.DeleteFunc(values, func(v float64) bool { return !finite(v) || v <= 0 })
	a := axis{0, slices.Max(values) * 1.05, log}
	if log {
		a.low, a.high = 1/roundUp(1/slices.Min(values)), roundUp(slices.Max(values))
	}
	if a.low >= a.high {
		a.low, a.high = a.high/2, a.high*2
	}
	return a
}

// At is where a value is drawn; values outside are drawn at the ends.
func (a axis) At(v float64) string {
	v = min(max(v, a.low), a.high)
	share := v / a.high
	if a.log {
		share = math.Log(v/a.low) / math.Log(a.high/a.low)
	}
	return pixel(plotBottom + share*(plotTop-plotBottom))
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

// Ticks are the values that get a label: round ones, on a logarithmic axis 1, 2 and 5 of every
// decade, or fewer when there are many decades.
func (a axis) Ticks() (values []float64) {
	first, next := a.low, func(v float64) float64 { return v + roundUp(a.high/8) }
	if decades := math.Log10(a.high / a.low); a.log && decades > 2.3 {
		first = math.Pow(10, math.Ceil(math.Log10(a.low)-1e-9))
		next = func(v float64) float64 { return v * math.Pow(10, math.Ceil(decades/6)) }
	} else if a.log {
		next = func(v float64) float64 { return roundUp(1.5 * v) }
	}
	for v := first; v <= a.high*1.001; v = next(v) {
		values = append(values, v)
	}
	return values
}
