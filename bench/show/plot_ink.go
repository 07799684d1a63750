// Colours. Invariant: one server has one colour, one shape and one dash in every
// plot of a report; the colours keep a distance from each other also for readers who
// do not tell red from green, and 3 to 1 from the page in either scheme
// (TestInks).

package show

import (
	"fmt"
	"html/template"
	"image/color"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot/vg"

	"ringnbd/bench/measure"
)

// ink is a colour by name: what it is on a light page, and on a dark one.
type ink struct{ name, light, dark string }

// The page's own colours. Text on page and card must have 4.5 to 1, see the browser's test.
var (
	inkPage  = ink{"page", "#F6F6F3", "#131519"}
	inkCard  = ink{"card", "#FFFFFF", "#1B1E23"}
	inkText  = ink{"text", "#1C1E21", "#E8EAED"}
	inkQuiet = ink{"quiet", "#575C64", "#A6ADB7"}
	inkRule  = ink{"rule", "#C9CCD1", "#444A53"}
	inkFaint = ink{"faint", "#E9EAEC", "#2A2E35"}
	inkGood  = ink{"good", "#0B6B3A", "#67D391"}
	inkBad   = ink{"bad", "#B3261E", "#FF8A80"}
	inkLink  = ink{"link", "#0B57B0", "#8AB8FF"}
)

// Of the servers. ringnbd has the one warm, bright colour. The distances were searched
// for by a program, over normal sight, protanopia and deuteranopia.
var (
	inkRaw     = ink{"raw", "#41474B", "#868D99"}
	inkRingnbd = ink{"ringnbd", "#D1410C", "#FF7A45"}
	inkSpares  = []ink{{"spare0", "#7A5C00", "#E3C04A"}, {"spare1", "#8A2F4F", "#F29BB8"},
		{"spare2", "#2F6F7A", "#7FD0DD"}, {"spare3", "#56606E", "#B7C0CC"}}
	serverLooks = map[string]look{
		measure.RawName: {ink: inkRaw, dash: []vg.Length{1.5, 2.5}, width: 1.6, sides: 6},
		"ringnbd":       {ink: inkRingnbd, width: 2.8, sides: 0},
		"ringnbd-cached": {ink: ink{"ringnbd-cached", "#6F3D16", "#D2B91D"},
			dash: []vg.Length{6, 3}, width: 1.8, sides: 5},
		"ringnbd-poll": {ink: ink{"ringnbd-poll", "#D668B2", "#D93550"},
			dash: []vg.Length{8, 2, 2, 2}, width: 1.8, sides: -5},
		"nbdkit":   {ink: ink{"nbdkit", "#4C72D2", "#7D9DDF"}, width: 1.5, sides: 4},
		"qemu-nbd": {ink: ink{"qemu-nbd", "#257F5A", "#48C4C9"}, width: 1.5, sides: 3},
		"qemu-nbd-cached": {ink: ink{"qemu-nbd-cached", "#779D44", "#89AC81"},
			dash: []vg.Length{6, 3}, width: 1.5, sides: -3},
		"nbd-server": {ink: ink{"nbd-server", "#653B82", "#8A5CCF"}, width: 1.5, sides: -4},
	}
)

// stageInks are of the stages of a profile, which share no plot with servers' colours.
var stageInks = map[string]ink{
	"receive": {"receive", "#472AD3", "#7A60F0"},
	"parse":   {"parse", "#3F96DF", "#2DB1F1"},
	"disk":    {"disk", "#3F966C", "#93F393"},
	"reply":   {"reply", "#A99123", "#C5C716"},
	"kernel":  {"kernel", "#843414", "#C4584A"},
	"runtime": {"runtime", "#5C2778", "#96668A"},
	"loop":    {"loop", "#10082E", "#F7F25A"},
	"polling": {"polling", "#2295A1", "#CC5209"},
	"other":   {"other", "#394043", "#D1D6D8"},
}

// look is how a server appears in a plot.
type look struct {
	ink   ink
	dash  []vg.Length
	width vg.Length
	sides int // of its marker: 0 a circle, negative upside down
}

// looks assigns looks to servers; those not known take the spares in turn.
type looks map[string]look

func newLooks(r *measure.Report) looks {
	all := looks{}
	var strangers []string
	for _, result := range r.Results {
		if known, ok := serverLooks[result.Server]; ok {
			all[result.Server] = known
		} else if !slices.Contains(strangers, result.Server) {
			strangers = append(strangers, result.Server)
		}
	}
	slices.Sort(strangers)
	for i, name := range strangers {
		all[name] = look{ink: inkSpares[i%len(inkSpares)], dash: []vg.Length{4, 2}, width: 1.5,
			sides: 4}
	}
	return all
}

// color is the ink as the plot library takes it: its light tone, which inkReference
// turns into the name.
func (k ink) color(opacity float64) color.Color {
	v, err := strconv.ParseUint(k.light[1:], 16, 32)
	if err != nil {
		panic(err) // a constant of this file
	}
	return tone{v >> 16, v >> 8 & 0xFF, v & 0xFF, opacity}
}

// tone is a color.Color that survives the library's rounding down: color.NRGBA comes
// out one too dark now and then, and would have no name.
type tone struct {
	r, g, b uint64
	opacity float64
}

func (t tone) RGBA() (r, g, b, a uint32) {
	channel := func(v uint64) uint32 { return uint32((float64(v) + 0.5) * 257 * t.opacity) }
	return channel(t.r), channel(t.g), channel(t.b), uint32(0xFFFF * t.opacity)
}

// allInks lists every colour of the page.
func allInks() []ink {
	all := append([]ink{inkPage, inkCard, inkText, inkQuiet, inkRule, inkFaint, inkGood, inkBad,
		inkLink}, inkSpares...)
	for _, l := range serverLooks {
		all = append(all, l.ink)
	}
	for _, k := range stageInks {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b ink) int { return strings.Compare(a.name, b.name) })
	return all
}

// inkNames finds an ink's name by its light tone.
var inkNames = func() map[string]string {
	m := map[string]string{}
	for _, k := range allInks() {
		m[k.light] = k.name
	}
	return m
}()

// inkReference is the style sheet's word for a colour that the plot library wrote.
func inkReference(light string) string {
	name, ok := inkNames[light]
	if !ok {
		panic("a plot has the colour " + light + ", which is no ink")
	}
	return "var(--ink-" + name + ")"
}

// inkSheet declares all colours for both schemes. Paper is light.
func inkSheet() template.CSS {
	var light, dark strings.Builder
	for _, k := range allInks() {
		fmt.Fprintf(&light, "--ink-%s:%s;", k.name, k.light)
		fmt.Fprintf(&dark, "--ink-%s:%s;", k.name, k.dark)
	}
	return template.CSS(fmt.Sprintf(":root{color-scheme:light dark;%s}\n@media screen and "+
		"(prefers-color-scheme:dark){:root{%s}}\n", light.String(), dark.String()))
}
