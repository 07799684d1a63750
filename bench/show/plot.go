// Plots: gonum.org/v1/plot draws them as SVG, and the page that they stand in gives
// them their colours. Invariant: a plot has no background, every colour in it is a
// name that the style sheet resolves for the light or the dark scheme, and every
// text in it takes exactly the width that the layout counted with, whatever font
// the reader has.

package show

import (
	"bytes"
	"fmt"
	"html"
	"html/template"
	"math"
	"regexp"
	"strconv"
	"strings"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Sizes in points of the SVG's own space. The page scales a plot down to 0.85 on a
// narrow telephone and up to 1.3 on a desk: text stays readable at both ends.
const (
	plotWidth  = 400
	lineHeight = 240 // of a plot with lines
	textSize   = 12
	headRoom   = 22 // above the axes: what the vertical axis is, and its unit
)

// drawing is one plot with its words.
type drawing struct {
	ID     string
	Title  string
	Notes  []string
	Legend []legendEntry
	SVG    template.HTML
}

// legendEntry names one line or colour.
type legendEntry struct {
	Name   string
	Swatch template.HTML
	Strong bool
}

// plotFont is the face that everything is measured with; see fitText.
func plotFont(bold bool, size float64) font.Font {
	f := font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Points(size)}
	if bold {
		f.Weight = xfont.WeightBold
	}
	return f
}

// textStyle is how text in a plot looks.
func textStyle(k ink, bold bool, x draw.XAlignment, y draw.YAlignment) text.Style {
	return text.Style{Color: k.color(1), Font: plotFont(bold, textSize), XAlign: x, YAlign: y,
		Handler: plot.DefaultTextHandler}
}

// newPlot is an empty plot in our style: no background, few lines.
func newPlot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.LineStyle = draw.LineStyle{Color: inkRule.color(1), Width: 0.8}
		a.Tick.LineStyle = a.LineStyle
		a.Tick.Length = 3
		a.Padding = 3
	}
	p.X.Tick.Label = textStyle(inkQuiet, false, draw.XCenter, draw.YTop)
	p.Y.Tick.Label = textStyle(inkQuiet, false, draw.XRight, draw.YCenter)
	p.X.Label.TextStyle = textStyle(inkQuiet, false, draw.XCenter, draw.YBottom)
	p.X.Label.Padding = 3
	return p
}

// canvas makes an SVG of the given height.
func canvas(height float64) (*vgsvg.Canvas, draw.Canvas) {
	svg := vgsvg.New(plotWidth, vg.Points(height))
	return svg, draw.New(svg)
}

// drawWithHead draws p below one line that says what its vertical axis is.
func drawWithHead(p *plot.Plot, c draw.Canvas, head string) {
	c.FillText(textStyle(inkQuiet, false, draw.XLeft, draw.YTop), vg.Point{X: 0, Y: c.Max.Y - 2},
		head)
	p.Draw(draw.Crop(c, 0, -4, 2, -headRoom))
}

// What the SVG of the library looks like where it has to be changed.
var (
	svgHead  = regexp.MustCompile(`(?s)^<\?xml.*?<svg width="[^"]*" height="[^"]*" viewBox="([^"]*)"[^>]*>`)
	svgColor = regexp.MustCompile(`#[0-9A-F]{6}`)
	svgText  = regexp.MustCompile(`<text x="([^"]*)" y="([^"]*)" transform="scale\(1, -1\)"\s*style="([^"]*)">([^<]*)</text>`)
	svgSize  = regexp.MustCompile(`font-size:([0-9.]+)px`)
)

// inline turns a finished canvas into an element of the page. title and description
// are what somebody hears who cannot see it.
func inline(svg *vgsvg.Canvas, id, title, description string) template.HTML {
	attributes := fmt.Sprintf(`class="plot" id=%q role="img" aria-labelledby="%s-title %s-words"`,
		id, id, id)
	words := fmt.Sprintf("<title id=\"%s-title\">%s</title>\n<desc id=\"%s-words\">%s</desc>\n",
		id, html.EscapeString(title), id, html.EscapeString(description))
	return rewrite(svg, attributes, words)
}

// rewrite replaces the head, the colours and the texts of the library's SVG.
func rewrite(svg *vgsvg.Canvas, attributes, words string) template.HTML {
	var b bytes.Buffer
	if _, err := svg.WriteTo(&b); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	s := svgHead.ReplaceAllString(b.String(),
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="$1" `+escapeDollar(attributes)+">\n"+
			escapeDollar(words))
	s = svgText.ReplaceAllStringFunc(s, fitText)
	s = svgColor.ReplaceAllStringFunc(s, inkReference)
	return template.HTML(s)
}

func escapeDollar(s string) string { return strings.ReplaceAll(s, "$", "$$") }

// fitText gives a text the width that it was measured to have. The face that it was
// measured with is one that few readers have; others of its metrics (Arial, Helvetica)
// are left as they are by this, and any other is squeezed or stretched.
func fitText(element string) string {
	m := svgText.FindStringSubmatch(element)
	bold := strings.Contains(m[3], "font-weight:bold")
	size, err := strconv.ParseFloat(svgSize.FindStringSubmatch(m[3])[1], 64)
	if err != nil {
		panic(err) // the expression takes digits only
	}
	class := ""
	if bold {
		class = ` class="strong"`
	}
	fill := inkText.light
	if c := svgColor.FindString(m[3]); c != "" {
		fill = c
	}
	return fmt.Sprintf(`<text%s x="%s" y="%s" transform="scale(1, -1)" textLength="%.1f" lengthAdjust="spacingAndGlyphs" style="font-size:%gpx;fill:%s">%s</text>`,
		class, m[1], m[2], widthOf(html.UnescapeString(m[4]), bold, size), size, fill, m[4])
}

// widthOf is the width of a text in points.
func widthOf(s string, bold bool, size float64) float64 {
	face := font.DefaultCache.Lookup(plotFont(bold, size), vg.Points(size))
	return face.Width(s).Points()
}

// shortNumber prints three significant digits: 0.52, 4.7, 36, 118k, 1.42M.
func shortNumber(v float64) string {
	switch a := math.Abs(v); {
	case a >= 999.5e3:
		return threeDigits(v/1e6) + "M"
	case a >= 9999.5:
		return threeDigits(v/1e3) + "k"
	default:
		return threeDigits(v)
	}
}

func threeDigits(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// shortTime prints microseconds in the unit that suits them.
func shortTime(micros float64) string {
	switch {
	case micros >= 999.5e3:
		return threeDigits(micros/1e6) + " s"
	case micros >= 999.5:
		return threeDigits(micros/1e3) + " ms"
	default:
		return threeDigits(micros) + " µs"
	}
}
