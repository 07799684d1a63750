// Tests of the colours of colours.css, by the formulas of WCAG 2 (contrast), CIELAB (distance)
// and Machado, Oliveira and Fernandes 2009 (how they look to those who lack the cones for red or
// for green).

package show

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"ringnbd/bench/profile"
)

// linear is a colour's light: red, green, blue, 0..1.
func linear(t *testing.T, tone string) [3]float64 {
	t.Helper()
	v, err := strconv.ParseUint(tone[1:], 16, 32)
	if err != nil || len(tone) != 7 {
		t.Fatalf("%s is not a colour", tone)
	}
	var c [3]float64
	for i := range c {
		x := float64(v>>(16-8*i)&0xFF) / 255
		if c[i] = x / 12.92; x > 0.04045 {
			c[i] = math.Pow((x+0.055)/1.055, 2.4)
		}
	}
	return c
}

func times(m [3][3]float64, c [3]float64) (out [3]float64) {
	for i := range m {
		for k := range c {
			out[i] += m[i][k] * c[k]
		}
		out[i] = min(max(out[i], 0), 1)
	}
	return out
}

var (
	toXYZ = [3][3]float64{{0.4124, 0.3576, 0.1805}, {0.2126, 0.7152, 0.0722},
		{0.0193, 0.1192, 0.9505}}
	sights = map[string][3][3]float64{
		"all cones": {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
		"no red": {{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216},
			{-0.003882, -0.048116, 1.051998}},
		"no green": {{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413},
			{-0.011820, 0.042940, 0.968881}},
	}
)

func luminance(c [3]float64) float64 {
	return toXYZ[1][0]*c[0] + toXYZ[1][1]*c[1] + toXYZ[1][2]*c[2]
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	x, y := luminance(linear(t, a)), luminance(linear(t, b))
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func lab(c [3]float64) [3]float64 {
	xyz := times(toXYZ, c)
	f := func(v float64) float64 {
		if v > 0.008856 {
			return math.Cbrt(v)
		}
		return 7.787*v + 16.0/116
	}
	x, y, z := f(xyz[0]/0.95047), f(xyz[1]), f(xyz[2]/1.08883)
	return [3]float64{116*y - 16, 500 * (x - y), 200 * (y - z)}
}

// ink is a colour in both schemes.
type ink struct{ name, light, dark string }

// inks reads the style sheet: groups of colours, and their names.
func inks(t *testing.T) (groups map[string][]ink) {
	t.Helper()
	light, dark, ok := strings.Cut(colours, "@media")
	if !ok {
		t.Fatal("the style sheet has no dark scheme")
	}
	groups = map[string][]ink{}
	tones := map[string]string{}
	for _, m := range regexp.MustCompile(`--([\w-]+): (#\w+);`).FindAllStringSubmatch(dark, -1) {
		tones[m[1]] = m[2]
	}
	group := ""
	for _, m := range regexp.MustCompile(`/\* (\w+) \*/|--([\w-]+): (#\w+);`).FindAllStringSubmatch(
		light, -1) {
		if m[1] != "" {
			group = m[1]
			continue
		}
		groups[group] = append(groups[group], ink{m[2], m[3], tones[m[2]]})
	}
	if len(tones) < 25 || len(groups["servers"]) < 8 || len(groups["stages"]) < 8 {
		t.Fatalf("%d colours: %v", len(tones), groups)
	}
	return groups
}

func TestColoursCanBeToldApart(t *testing.T) {
	// 2.3 is just noticeable side by side; lines also differ in mark and dash, bars carry names
	const minApart = 15
	for name, group := range inks(t) {
		if name == "page" {
			continue
		}
		for sight, matrix := range sights {
			for i, a := range group {
				for _, b := range group[:i] {
					for scheme, pair := range map[string][2]string{"light": {a.light, b.light},
						"dark": {a.dark, b.dark}} {
						x, y := lab(times(matrix, linear(t, pair[0]))),
							lab(times(matrix, linear(t, pair[1])))
						if d := math.Hypot(math.Hypot(x[0]-y[0], x[1]-y[1]),
							x[2]-y[2]); d < minApart {
							t.Errorf("%s scheme, %s: %s and %s are %.1f apart", scheme, sight,
								a.name,
								b.name, d)
						}
					}
				}
			}
		}
	}
}

func TestEveryServerAndStageHasAColour(t *testing.T) {
	names := map[string]bool{}
	for _, group := range inks(t) {
		for _, k := range group {
			names[k.name] = true
		}
	}
	for _, stage := range profile.StageOrder {
		if !names[stageColour(stage)] || stageColour(stage) != stage {
			t.Errorf("the stage %s has no colour of its own", stage)
		}
	}
	for server, l := range looks {
		if !names[l.Colour] {
			t.Errorf("%s has no colour", server)
		}
	}
	if l := lookOf("unheard of"); !names[l.Colour] || l.Mark == "" {
		t.Errorf("a server that is not known looks like %+v", l)
	}
}

func TestColoursStandOutFromThePage(t *testing.T) {
	all := inks(t)
	card := all["page"][1]
	if card.name != "card" {
		t.Fatalf("the second colour is %s", card.name)
	}
	for _, group := range all {
		for _, k := range group {
			least := 3.0 // of graphics
			switch k.name {
			case "text", "quiet", "good", "bad", "link":
				least = 4.5 // of text
			case "page", "card", "rule", "faint":
				continue // they are the page, or lines that carry no meaning
			}
			for scheme, c := range map[string]float64{"light": contrast(t, k.light, card.light),
				"dark": contrast(t, k.dark, card.dark)} {
				if c < least {
					t.Errorf("%s has a contrast of %.1f in the %s scheme", k.name, c, scheme)
				}
			}
		}
	}
}
