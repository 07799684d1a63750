// Tests of the statistics of a comparison: known figures, symmetry, and simulated machines of
// which the truth is known.

package judge

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ringnbd/bench/measure"
)

// pairsOf makes pairs of which requests/s have these ratios, and the other metrics none.
func pairsOf(ratios ...float64) []measure.Pair {
	var pairs []measure.Pair
	for _, r := range ratios {
		pairs = append(pairs,
			measure.Pair{Base: measure.Sample{RequestsPerSecond: 1000},
				New: measure.Sample{RequestsPerSecond: 1000 * r}})
	}
	return pairs
}

func rate(pairs []measure.Pair) Ratio { return measureRatio(Metrics()[0], pairs) }

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Abs(b) }

func TestRatioOfKnownPairs(t *testing.T) {
	r := rate(pairsOf(1.05, 0.97, 1.02, 1.03, 1.04, 1.01, 1.08, 1.06, 1.21, 1.07, 1.00, 1.09))
	want := Ratio{Metric: "requests/s", Base: 1000, New: 1045, Pairs: 12,
		Median: math.Sqrt(1.04 * 1.05), Low: 1.01, High: 1.08,
		Sure: 0.96142578125, Min: 0.97, Max: 1.21, Chance: 2 * (1 + 12 + 66) / 4096.0,
		Sees: math.Sqrt(1.08/1.01) - 1, Verdict: undecided}
	got, expected := reflect.ValueOf(r), reflect.ValueOf(want)
	for i := range got.NumField() {
		name, a, b := got.Type().Field(i).Name, got.Field(i), expected.Field(i)
		if a.Kind() == reflect.Float64 && !near(a.Float(), b.Float()) ||
			a.Kind() != reflect.Float64 && !a.Equal(b) {
			t.Errorf("%s: %v, want %v", name, a, b)
		}
	}
}

// The ranks are those of the usual tables of the sign test (such as Conover's, A3), both tails
// together.
func TestIntervalsHaveTheConfidenceOfTheTables(t *testing.T) {
	for n, want := range map[int]struct {
		rank int
		sure float64
	}{
		1: {}, 2: {}, 5: {}, 6: {1, 0.96875}, 8: {1, 0.9921875}, 9: {2, 0.9609375}, 10: {2,
			0.978515625}, 12: {3, 0.96142578125},
		15: {4, 0.96484375}, 17: {5, 0.950958251953125}, 20: {6, 0.9586105346679688},
		30: {10, 0.9572260547429379},
	} {
		rank, sure := signInterval(n)
		if rank != want.rank || math.Abs(sure-want.sure) > 1e-12 {
			t.Errorf("%d pairs: rank %d with %.10f, want %d with %.10f", n, rank, sure, want.rank,
				want.sure)
		}
	}
	if rank, sure := signInterval(500); rank < 220 || rank > 235 || sure < 0.95 || sure > 0.96 {
		t.Errorf("500 pairs: rank %d with %f", rank, sure)
	}
}

func TestFewPairsHaveNoInterval(t *testing.T) {
	r := rate(pairsOf(2, 2, 2, 2))
	if r.Median != 2 || r.Sure != 0 || r.Low != 0 || r.High != 0 || r.Verdict != TooFew {
		t.Errorf("%+v", r)
	}
	c := &Comparison{Loads: []Compared{{Pairs: pairsOf(2, 2, 2, 2)}}}
	c.Judge()
	if got := c.Loads[0].Ratios[0].Verdict; got != TooFew {
		t.Errorf("verdict on four pairs: %s", got)
	}
}

func TestPairsWithoutTheMetricAreLeftOut(t *testing.T) {
	pairs := pairsOf(2, 2, 2, 2, 2, 2, 2, 2)
	pairs[3].New.RequestsPerSecond, pairs[5].Base.RequestsPerSecond = 0, 0
	if r := rate(pairs); r.Pairs != 6 || r.Median != 2 || r.Base != 1000 {
		t.Errorf("%+v", r)
	}
	if r := measureRatio(Metrics()[1], pairs); r.Pairs != 0 || r.Median != 0 ||
		r.Verdict != TooFew {
		t.Errorf("a metric that was not measured: %+v", r)
	}
}

func TestEqualFiguresSpeakForNeitherSide(t *testing.T) {
	for _, c := range []struct {
		ratios   []float64
		excludes bool
	}{
		{[]float64{1, 1, 1, 1, 1, 1, 1, 1}, false},
		{[]float64{1, 2, 2, 2, 2, 2, 2, 2}, false},        // all of 8 are needed
		{[]float64{1, 2, 2, 2, 2, 2, 2, 2, 2}, true},      // 8 of 9 suffice
		{[]float64{0.9, 1, 2, 2, 2, 2, 2, 2, 2}, false},   // 7 of 9 do not
		{[]float64{.5, .5, .5, .5, .5, .5, 1, .5}, false}, // the same below
		{[]float64{.5, .5, .5, .5, .5, .5, .5, .5}, true},
	} {
		r := rate(pairsOf(c.ratios...))
		if outside := r.Low > 1 || r.High < 1; outside != c.excludes ||
			(r.Chance <= 0.05) != c.excludes {
			t.Errorf("%v: %g..%g, p %g, want 1 excluded: %t", c.ratios, r.Low, r.High, r.Chance,
				c.excludes)
		}
	}
}

// simulate makes a comparison of loads of which new/base is truth in all metrics, on a machine with
// noise: lognormal, with a stolen second now and then, and latency that is the reciprocal of the
// rate with a little of its own.
func simulate(random *rand.Rand, loads, pairs int, noise float64,
	truth func(load int) float64) *Comparison {
	draw := func(factor float64) measure.Sample {
		f := factor * math.Exp(noise*random.NormFloat64())
		if random.IntN(20) == 0 {
			f *= 0.3 + 0.6*random.Float64()
		}
		own := func() float64 { return math.Exp(noise / 2 * random.NormFloat64()) }
		return measure.Sample{RequestsPerSecond: 1e5 * f, P50: 320 / f * own(),
			P99: 900 / f * own() * own(), ServerSystem: 5 / factor * own()}
	}
	c := &Comparison{Base: Side{Name: "base"}, New: Side{Name: "new"}}
	for i := range loads {
		l := Compared{Name: "simulated"}
		for range pairs {
			l.Pairs = append(l.Pairs, measure.Pair{Base: draw(1), New: draw(truth(i))})
		}
		c.Loads = append(c.Loads, l)
	}
	c.Judge()
	return c
}

func TestIntervalsHoldTheTruthAsOftenAsTheySay(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, pairs := range []int{6, 8, 12, 20} {
		for _, truth := range []float64{1, 1.07} {
			held, all, sure := 0, 0, 0.0
			for range 80 {
				for _, l := range simulate(random, 36, pairs, 0.03, func(int) float64 {
					return truth
				}).Loads {
					r := l.Ratios[0]
					if all++; r.Low <= truth && truth <= r.High {
						held++
					}
					sure = r.Sure
				}
			}
			if share := float64(held) / float64(all); math.Abs(share-sure) > 0.01 {
				t.Errorf("%d pairs, true ratio %g: %.4f of the intervals hold it, they say %.4f",
					pairs, truth, share, sure)
			}
		}
	}
}

func TestOneRunInTwentyAtMostSeesADifferenceThatIsNone(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	const runs = 2000
	wrong, apart := 0, 0
	for range runs {
		wrongly := 0
		for _, l := range simulate(random, 9, pairsForTest, 0.03, func(int) float64 {
			return 1
		}).Loads {
			for _, r := range l.Ratios {
				if strings.HasSuffix(r.Verdict, "?") {
					apart++
				} else if r.Verdict != undecided {
					apart, wrongly = apart+1, wrongly+1
				}
			}
		}
		if wrongly > 0 {
			wrong++
		}
	}
	if share := float64(wrong) / runs; share > 0.05 {
		t.Errorf("%.3f of the runs see a difference", share)
	}
	// 3.9 % of 36 are 1.4: without judging them together most runs would see one.
	if mean := float64(apart) / runs; mean < 1.2 || mean > 1.6 {
		t.Errorf("%.2f of 36 intervals exclude 1 in the mean", mean)
	}
}

// pairsForTest is what bench/compare takes by default.
const pairsForTest = 12

func TestALoneDifferenceIsFound(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	const runs = 500
	want := []string{"faster", "cheaper", "faster", "faster"}
	named, stands, share := 0, 0, 0.0
	for range runs {
		c := simulate(random, 9, pairsForTest, 0.01, func(load int) float64 {
			return 1 + 0.1*float64(load/8)
		})
		right, wrong := 0, 0
		for i, l := range c.Loads {
			for k, r := range l.Ratios {
				word, doubt := strings.CutSuffix(r.Verdict, "?")
				switch {
				case i == 8 && word == want[k]:
					if named++; !doubt {
						right++
					}
				case word != undecided && !doubt:
					wrong++
				}
			}
		}
		stands += right
		share += float64(wrong) / float64(max(1, right+wrong)) / runs
	}
	// One measurement in twenty is stolen from, in either direction of the ratio.
	if found := float64(named) / (4 * runs); found < 0.95 {
		t.Errorf("10 %% on a machine with 1 %% of noise is named in %.2f of the figures", found)
	}
	if found := float64(stands) / (4 * runs); found < 0.7 {
		t.Errorf("it stands in %.2f of the figures", found)
	}
	if share > 0.05 {
		t.Errorf("%.3f of the verdicts are false in the mean", share)
	}
}

func TestSwappingTheSidesTurnsEverythingRound(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	opposite := map[string]string{"faster": "slower", "slower": "faster", "cheaper": "dearer",
		"dearer": "cheaper", undecided: undecided}
	seen := map[string]bool{}
	for _, pairs := range []int{6, 8, 11, 12, 14} {
		c := simulate(random, 40, pairs, 0.03, func(load int) float64 {
			return 0.9 + 0.005*float64(load)
		})
		swapped := &Comparison{}
		for _, l := range c.Loads {
			l.Pairs = slices.Clone(l.Pairs)
			for i := range l.Pairs {
				l.Pairs[i].Base, l.Pairs[i].New = l.Pairs[i].New, l.Pairs[i].Base
			}
			swapped.Loads = append(swapped.Loads, l)
		}
		swapped.Judge()
		for i, l := range c.Loads {
			for k, r := range l.Ratios {
				s := swapped.Loads[i].Ratios[k]
				word, mark := strings.CutSuffix(r.Verdict, "?")
				want := opposite[word]
				if mark {
					want += "?"
				}
				seen[r.Verdict] = true
				if !near(r.Median, 1/s.Median) || !near(r.Low, 1/s.High) ||
					!near(r.High, 1/s.Low) || r.Chance != s.Chance || s.Verdict != want ||
					!near(r.Sees, s.Sees) {
					t.Fatalf("%d pairs:\n%+v\nswapped:\n%+v", pairs, r, s)
				}
			}
		}
	}
	if len(seen) < 6 {
		t.Errorf("only these verdicts came up: %v", seen)
	}
}

func TestChancesAreJudgedTogether(t *testing.T) {
	for _, c := range []struct {
		chances []float64
		limit   float64
	}{
		{nil, 0},
		{[]float64{0.9}, 0},
		{[]float64{0.05}, 0.05},
		{[]float64{0.05, 0.02, 0.04, 0.01, 0.03}, 0.05}, // the fifth is below 5/5 of 5 %: all stand
		{[]float64{0.02, 0.03, 0.04, 0.05, 0.9}, 0},     // none is below its share
		{[]float64{0.001, 0.5, 0.019, 0.5, 0.5}, 0.019}, // the second is below 2/5 of 5 %
		{[]float64{0.001, 0.5, 0.021, 0.5, 0.5}, 0.001},
	} {
		all := []*Ratio{{Chance: 0.0001}} // without an interval: not counted
		for _, p := range c.chances {
			all = append(all, &Ratio{Chance: p, Sure: 0.96})
		}
		if got := chanceLimit(all); got != c.limit {
			t.Errorf("%v: %g, want %g", c.chances, got, c.limit)
		}
	}
}

func TestDisturbedPairsAreFlaggedAndCounted(t *testing.T) {
	pairs := pairsOf(1.1, 1.1, 1.1, 1.1, 1.1, 0.2)
	for i, taken := range []float64{0.01, 0.03, 0.02, 0.08, 0.1, 0.3} {
		pairs[i].New.Steal = taken
	}
	pairs[3].New.Steal, pairs[3].Others = 0.02, 0.06
	pairs[4].New.Steal, pairs[4].Base.Steal, pairs[4].Others = 0, 0.3, 0.2
	c := &Comparison{Loads: []Compared{{Name: "l", Pairs: pairs}}}
	c.Judge()
	var flags []bool
	for _, p := range c.Loads[0].Pairs {
		flags = append(flags, p.Disturbed)
	}
	if want := []bool{false, false, false, false, true, true}; !slices.Equal(flags, want) {
		t.Errorf("flags %v, want %v", flags, want)
	}
	if r := c.Loads[0].Ratios[0]; r.Pairs != 6 || r.Min != 0.2 {
		t.Errorf("a flagged pair was dropped: %+v", r)
	}
}

func TestComparisonIsReadBackAsItWasWritten(t *testing.T) {
	for _, pairs := range []int{2, 6} {
		c := simulate(rand.New(rand.NewPCG(13, 14)), 2, pairs, 0.03, func(int) float64 { return 1 })
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again := new(Comparison)
		if err := json.Unmarshal(b, again); err != nil || !reflect.DeepEqual(c.Loads, again.Loads) {
			t.Errorf("%d pairs: %v: %s", pairs, err, b)
		}
	}
}
