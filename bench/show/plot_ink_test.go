// Tests of the colours, by the formulas of WCAG 2 (contrast), CIELAB (distance) and
// Machado, Oliveira and Fernandes 2009 (how they look to those who lack the cones for
// red or for green).

package show

import (
	"math"
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
		t.Fatalf("%s is no colour", tone)
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

// tones are the colours that meet in one plot, by scheme.
func tones(group []ink) map[string][]string {
	m := map[string][]string{}
	for _, k := range group {
		m["light"] = append(m["light"], k.light)
		m["dark"] = append(m["dark"], k.dark)
	}
	return m
}

func TestInksCanBeToldApart(t *testing.T) {
	var servers, stages []ink
	for _, l := range serverLooks {
		servers = append(servers, l.ink)
	}
	for _, k := range stageInks {
		stages = append(stages, k)
	}
	// 2.3 is just noticeable side by side; lines also differ in marker and dash, bars carry names
	const least = 15
	for _, group := range [][]ink{servers, stages} {
		for scheme, all := range tones(group) {
			for sight, matrix := range sights {
				for i := range all {
					for k := range i {
						a, b := lab(times(matrix, linear(t, all[i]))),
							lab(times(matrix, linear(t, all[k])))
						if d := math.Hypot(math.Hypot(a[0]-b[0], a[1]-b[1]), a[2]-b[2]); d < least {
							t.Errorf("%s scheme, %s: %s and %s are %.1f apart", scheme, sight,
								all[i], all[k], d)
						}
					}
				}
			}
		}
	}
}

func TestEveryStageHasAnInk(t *testing.T) {
	for _, stage := range profile.StageOrder {
		if _, ok := stageInks[stage]; !ok {
			t.Errorf("the stage %s would be drawn as another one", stage)
		}
	}
	if len(stageInks) != len(profile.StageOrder) {
		t.Errorf("%d inks for %d stages", len(stageInks), len(profile.StageOrder))
	}
}

func TestInksStandOutFromThePage(t *testing.T) {
	for _, k := range allInks() {
		least := 3.0 // of graphics
		switch k {
		case inkText, inkQuiet, inkGood, inkBad, inkLink:
			least = 4.5 // of text
		case inkPage, inkCard, inkRule, inkFaint:
			continue // they are the page, or lines that nobody needs
		}
		if c := contrast(t, k.light, inkCard.light); c < least {
			t.Errorf("%s has a contrast of %.1f in the light scheme", k.name, c)
		}
		if c := contrast(t, k.dark, inkCard.dark); c < least {
			t.Errorf("%s has a contrast of %.1f in the dark scheme", k.name, c)
		}
	}
}

// A plot's colours become names by their light tones: two inks of one tone would be
// one ink, and a tone that the library rounds off would be none.
func TestInksSurviveThePlotLibrary(t *testing.T) {
	if len(inkNames) != len(allInks()) {
		t.Errorf("%d inks have %d light tones", len(allInks()), len(inkNames))
	}
	for _, k := range allInks() {
		for _, opacity := range []float64{1, 0.55, 0.5} {
			if got := string(barSwatch(k, opacity)); !strings.Contains(got,
				"fill:var(--ink-"+k.name+")") {
				t.Errorf("%s at %g is drawn as %s", k.name, opacity, got)
			}
		}
	}
}
