// How servers look in plots; the colours are in colours.css.
//
// Invariant: one server has one colour, one mark and one dash in every plot of a report; the
// colours keep a distance from each other also for readers who do not tell red from green, and 3
// to 1 from the page in either scheme (TestColours).

package show

import (
	"slices"

	"ringnbd/bench/measure"
	"ringnbd/bench/profile"
)

// look is how a server appears in a plot.
type look struct {
	Colour string  // its name in the style sheet
	Mark   string  // a path around the origin; without a mark it is the look of a bar
	Width  float64 // of the line
	Dash   string  // of the line, as SVG has it
}

// looks of the servers.
var looks = map[string]look{
	measure.RawName:   {"raw", "M4.2 0L2.1 3.6H-2.1L-4.2 0L-2.1-3.6H2.1Z", 1.6, "1.5 2.5"},
	"ringnbd":         {"ringnbd", "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z", 2.8, "none"},
	"ringnbd-cached":  {"ringnbd-cached", "M0-4.4L4.2-1.4L2.6 3.6H-2.6L-4.2-1.4Z", 1.8, "6 3"},
	"ringnbd-poll":    {"ringnbd-poll", "M0 4.4L4.2 1.4L2.6-3.6H-2.6L-4.2 1.4Z", 1.8, "8 2 2 2"},
	"nbdkit":          {"nbdkit", "M-3.3-3.3H3.3V3.3H-3.3Z", 1.5, "none"},
	"qemu-nbd":        {"qemu-nbd", "M0-4.6L4.2 2.8H-4.2Z", 1.5, "none"},
	"qemu-nbd-cached": {"qemu-nbd-cached", "M0 4.6L4.2-2.8H-4.2Z", 1.5, "6 3"},
	"nbd-server":      {"nbd-server", "M0-4.7L4.7 0L0 4.7L-4.7 0Z", 1.5, "none"},
}

// lookOf is the look of a server; the suite measures no other than those above.
func lookOf(server string) look {
	if known, ok := looks[server]; ok {
		return known
	}
	return look{"quiet", "M-4-4L4 4M-4 4L4-4", 1.5, "4 2"}
}

// stageColour names that of a stage; unknown stages are drawn as "other".
func stageColour(name string) string {
	if slices.Contains(profile.StageOrder, name) {
		return name
	}
	return profile.Other
}
