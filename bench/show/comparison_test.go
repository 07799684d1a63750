// Tests of a comparison as text.

package show

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
)

// simulated is a comparison of loads of which new/base is truth in all metrics.
func simulated(random *rand.Rand, loads, pairs int, noise float64,
	truth func(load int) float64) *judge.Comparison {
	draw := func(factor float64) measure.Sample {
		f := factor * math.Exp(noise*random.NormFloat64())
		return measure.Sample{RequestsPerSecond: 1e5 * f, P50: 320 / f, P99: 900 / f,
			ServerSystem: 5 / f}
	}
	c := &judge.Comparison{Base: judge.Side{Name: "base"}, New: judge.Side{Name: "new"}}
	for i := range loads {
		l := judge.Compared{Name: "simulated"}
		for range pairs {
			l.Pairs = append(l.Pairs, measure.Pair{Base: draw(1), New: draw(truth(i))})
		}
		c.Loads = append(c.Loads, l)
	}
	c.Judge()
	return c
}

// flowing is the text without its line breaks.
func flowing(c *judge.Comparison) string {
	return strings.Join(strings.Fields(ComparisonText(c)), " ")
}

func TestTextTellsWhatIsLeftOut(t *testing.T) {
	c := simulated(rand.New(rand.NewPCG(15, 16)), 1, 8, 0, func(int) float64 { return 2 })
	pairs := c.Loads[0].Pairs
	pairs[3].New.RequestsPerSecond, pairs[5].Base.RequestsPerSecond = 0, 0
	c.Judge()
	if text := flowing(c); !strings.Contains(text,
		"simulated: requests/s leaves out 2 of 8 pairs") {
		t.Errorf("left out in silence:\n%s", text)
	}
}

func TestTextTellsOfDisturbedPairs(t *testing.T) {
	c := simulated(rand.New(rand.NewPCG(17, 18)), 1, 6, 0, func(int) float64 { return 1.1 })
	pairs := c.Loads[0].Pairs
	for i, taken := range []float64{0.01, 0.03, 0.02, 0.08, 0.5, 0.3} {
		pairs[i].New.Steal = taken
	}
	c.Judge()
	text := flowing(c)
	if !strings.Contains(text,
		"simulated: of the CPU time, steal and other programs took 50 % in pair 5, 30 % in "+
			"pair 6; usual 6 %.") || strings.Contains(text, "quiet machine") {
		t.Errorf("not in the text:\n%s", text)
	}
	for i := range pairs {
		pairs[i].Others += 0.2
	}
	c.Judge()
	if text := flowing(c); !strings.Contains(text,
		"took 26 % of the CPU time (median of all pairs)") {
		t.Errorf("no warning of a busy machine in\n%s", text)
	}
}

func TestTextFitsACommitMessage(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	c := simulated(random, 9, 12, 0.2, func(load int) float64 {
		return math.Pow(2, float64(load-4))
	})
	c.Base, c.New = judge.Side{Name: "HEAD~1", Commit: "0123456789abcdef",
		Flags: []string{"--poll", "0"}, Go: "go1.25"},
		judge.Side{Name: "working tree", Commit: "0123456789", Dirty: true, Go: "go1.26"}
	c.Command, c.Loads[3].Error = "make compare BASE=HEAD~1", "the server\nsaid: no "+
		strings.Repeat("and no ", 40)
	c.Judge()
	text := ComparisonText(c)
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 72 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{"base: HEAD~1 (012345678) --poll 0\n",
		"new: working tree (012345678 and changes)\n", "simulated\nrequests/s ",
		"different compilers", "ended after 12 pairs: the server said"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "same program") {
		t.Errorf("two programs are called the same:\n%s", text)
	}
	t.Log("\n" + text)
}

func TestMarkdownIsOneTable(t *testing.T) {
	c := simulated(rand.New(rand.NewPCG(11, 12)), 3, 6, 0.03, func(int) float64 { return 1 })
	rows := 0
	for line := range strings.Lines(ComparisonMarkdown(c)) {
		if strings.HasPrefix(line, "|") {
			if rows++; strings.Count(line, "|") != 10 {
				t.Errorf("not nine columns: %s", line)
			}
		}
	}
	if rows != 2+3*len(judge.Metrics()) {
		t.Errorf("%d rows", rows)
	}
	if text := ComparisonMarkdown(c); !strings.Contains(text, "every difference is chance") {
		t.Errorf("two equal sides are not called so:\n%s", text)
	}
}

func TestFiguresAreShort(t *testing.T) {
	for v, want := range map[float64]string{0.394: "0.39", 5.094: "5.09", 9.996: "10.0",
		79.52: "79.5", 99.96: "100", 2305.4: "2305", 9999.6: "10.0k",
		83812: "83.8k", 183e3: "183k", 999.6e3: "1.00M", 1.304e6: "1.30M"} {
		if got := shortNumber(v); got != want {
			t.Errorf("%g: %s, want %s", v, got, want)
		}
	}
}
