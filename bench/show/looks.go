// How servers look in plots; the colours are in colours.css.
//
// Invariant: one server has one colour, one mark and one dash in every plot of a report; the
// colours keep a distance from each other also for readers who do not tell red from green, and 3
// to 1 from the page in either scheme (TestColours).

package show

import (
	"fmt"
	"html/template"
	"slices"

	"ringnbd/bench/measure"
	"ringnbd/bench/profile"
)

// look is how a server appears in a plot.
type look struct {
	colour string  // its name in the style sheet
	mark   string  // a path around the origin
	width  float64 // of the line
	dash   string  // of the line, as SVG has it
}

// Marks.
const (
	circle   = "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z"
	square   = "M-3.3-3.3H3.3V3.3H-3.3Z"
	up       = "M0-4.6L4.2 2.8H-4.2Z"
	down     = "M0 4.6L4.2-2.8H-4.2Z"
	diamond  = "M0-4.7L4.7 0L0 4.7L-4.7 0Z"
	pentagon = "M0-4.4L4.2-1.4L2.6 3.6H-2.6L-4.2-1.4Z"
	pentaDip = "M0 4.4L4.2 1.4L2.6-3.6H-2.6L-4.2 1.4Z"
	hexagon  = "M4.2 0L2.1 3.6H-2.1L-4.2 0L-2.1-3.6H2.1Z"
)

// looks of the servers.
var looks = map[string]look{
	measure.RawName:   {"raw", hexagon, 1.6, "1.5 2.5"},
	"ringnbd":         {"ringnbd", circle, 2.8, "none"},
	"ringnbd-cached":  {"ringnbd-cached", pentagon, 1.8, "6 3"},
	"ringnbd-poll":    {"ringnbd-poll", pentaDip, 1.8, "8 2 2 2"},
	"nbdkit":          {"nbdkit", square, 1.5, "none"},
	"qemu-nbd":        {"qemu-nbd", up, 1.5, "none"},
	"qemu-nbd-cached": {"qemu-nbd-cached", down, 1.5, "6 3"},
	"nbd-server":      {"nbd-server", diamond, 1.5, "none"},
}

// spares is how many colours there are for servers not known here, which take them in turn.
const spares = 4

// look is that of a server of the report.
func (r report) look(server string) look {
	if known, ok := looks[server]; ok {
		return known
	}
	var strangers []string
	for _, result := range r.Results {
		if _, known := looks[result.Server]; !known {
			strangers = append(strangers, result.Server)
		}
	}
	slices.Sort(strangers)
	i := slices.Index(slices.Compact(strangers), server)
	return look{fmt.Sprintf("spare%d", max(i, 0)%spares), square, 1.5, "4 2"}
}

// stageColour names that of a stage; unknown stages are drawn as "other".
func stageColour(name string) string {
	if slices.Contains(profile.StageOrder, name) {
		return name
	}
	return profile.Other
}

// swatch is a sample of a server's line for legends and tables.
func (l look) swatch() template.HTML {
	return template.HTML(fmt.Sprintf(`<svg class="swatch" viewBox="-17 -6 34 12" `+
		`aria-hidden="true" style="--ink:var(--%s)"><path class="line" d="M-16 0H16" style="%s"/>`+
		`<path class="mark" d="%s"/></svg>`, l.colour, l.stroke(), l.mark))
}

func (l look) stroke() string {
	return fmt.Sprintf("stroke-width:%g;stroke-dasharray:%s", l.width, l.dash)
}
