// Ratios of two servers measured in pairs: what a comparison of two revisions says, and how
// surely.
//
// Invariant: swapping the two sides turns every ratio and every bound into its reciprocal and
// every verdict into its opposite.
//
// The statistic is the median of the ratios new/base of the pairs. The two measurements of a
// pair follow each other, so what the machine does to one, it likely does to the other, and a
// stolen second spoils one pair of many. The interval is made of two order statistics of the
// ratios (the interval of the sign test): it assumes nothing about their distribution but
// independence, knows no seed, and its confidence is exact and at least 95 %. A bootstrap of the
// median of a dozen values is a poorer way to the same order statistics.
//
// golang.org/x/perf/benchmath, on which benchstat rests, does not fit: its tests treat the
// samples as unpaired, and its interval for a median is lopsided at some numbers of values (8,
// 14, 16), so that a verdict could depend on which side is called new.

package judge

import (
	"math"
	"slices"
	"strings"
	"time"

	"ringnbd/bench/measure"
)

// Confidence is the least confidence of an interval, and 1 - confidence the share of false verdicts
// that a comparison allows itself.
const Confidence = 0.95

// Metric is a figure of a sample that is compared.
type Metric struct {
	Name          string
	Of            func(measure.Sample) float64
	Higher, Lower string // what a ratio above and below 1 is called
}

// Metrics are what a comparison looks at.
func Metrics() []Metric {
	return []Metric{
		{"requests/s", measure.RequestRate, "faster", "slower"},
		{"CPU µs/req", measure.Sample.ServerCPU, "dearer", "cheaper"},
		{"p50 µs", func(s measure.Sample) float64 { return s.P50 }, "slower", "faster"},
		{"p99 µs", func(s measure.Sample) float64 { return s.P99 }, "slower", "faster"},
	}
}

// Side is one of the two servers of a comparison.
type Side struct {
	Name   string   `json:"name"`   // as it was asked for
	Commit string   `json:"commit"` // hash
	Dirty  bool     `json:"dirty"`  // the tree has changes that are in no commit
	Flags  []string `json:"flags"`  // further flags of serve
	Go     string   `json:"go"`     // version that built it
	SHA256 string   `json:"sha256"` // of the binary
}

// Comparison is the outcome of a run of bench/compare.
type Comparison struct {
	Command string          `json:"command"`
	Date    time.Time       `json:"date"`
	Machine measure.Machine `json:"machine"`
	Size    int64           `json:"size"`    // bytes of the file
	Seconds float64         `json:"seconds"` // per measurement
	Base    Side            `json:"base"`
	New     Side            `json:"new"`
	Loads   []Compared      `json:"loads"`
}

// Same reports whether both sides are the same program with the same flags: then every difference
// is chance.
func (c *Comparison) Same() bool {
	return c.Base.SHA256 == c.New.SHA256 && slices.Equal(c.Base.Flags, c.New.Flags)
}

// NewComparison describes the run; the file lies in dir.
func NewComparison(base, new Side, dir string, size int64, seconds float64) *Comparison {
	return &Comparison{Date: time.Now().UTC().Truncate(time.Second),
		Machine: measure.ReadMachine(dir),
		Base:    base, New: new, Size: size, Seconds: seconds}
}

// Compared is one load on both sides.
type Compared struct {
	Name   string         `json:"name"`
	Load   measure.Load   `json:"load"`
	Pairs  []measure.Pair `json:"pairs"`
	Ratios []Ratio        `json:"ratios"`          // one for each of Metrics
	Error  string         `json:"error,omitempty"` // that ended the load before its last pair
}

// Ratio is what the pairs say about new/base of one metric.
type Ratio struct {
	Metric string  `json:"metric"`
	Base   float64 `json:"base"` // median, in the metric's unit
	New    float64 `json:"new"`
	Pairs  int     `json:"pairs"`  // that have the metric on both sides
	Median float64 `json:"median"` // of new/base; 0 without any pair
	Low    float64 `json:"low"`    // ends of the interval, and how surely the true median is in it;
	High   float64 `json:"high"`   // all three 0 with fewer pairs than any such interval needs
	Sure   float64 `json:"confidence"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	// probability of pairs at least as one-sided without a difference (sign test, two-sided)
	Chance float64 `json:"p"`
	// half the interval's width, as a share of 1: about the least difference that it would show
	Sees float64 `json:"sees"`
	// Verdict is one of the metric's two words, with "?" when chance alone makes a result like it
	// likely among that many ratios, or undecided, or TooFew.
	Verdict string `json:"verdict"`
}

// Verdicts without a difference.
const (
	undecided = "no difference"
	TooFew    = "too few pairs"
)

// measureRatio sums up the ratios of one metric; the verdict is judge's.
func measureRatio(m Metric, pairs []measure.Pair) Ratio {
	r := Ratio{Metric: m.Name, Chance: 1, Verdict: TooFew}
	var all, base, new []float64
	for _, p := range pairs {
		a, b := m.Of(p.Base), m.Of(p.New)
		if a > 0 && b > 0 {
			all, base, new = append(all, b/a), append(base, a), append(new, b)
		}
	}
	n := len(all)
	if r.Pairs = n; n == 0 {
		return r
	}
	slices.Sort(all)
	// The geometric mean of the middle two is their median on the scale of ratios.
	r.Median = math.Sqrt(all[(n-1)/2] * all[n/2])
	r.Base, r.New = measure.Median(base), measure.Median(new)
	r.Min, r.Max = all[0], all[n-1]
	rank, sure := signInterval(n)
	if rank == 0 {
		return r
	}
	r.Low, r.High, r.Sure = all[rank-1], all[n-rank], sure
	r.Sees = math.Sqrt(r.High/r.Low) - 1
	r.Chance, r.Verdict = signTest(all), undecided
	return r
}

// tail is the probability that of n coins at most k show heads.
func tail(n, k int) float64 {
	sum, term := 0.0, math.Pow(0.5, float64(n))
	for i := 0; i <= k; i++ {
		sum += term
		term *= float64(n-i) / float64(i+1)
	}
	return min(sum, 1)
}

// signInterval is the exact interval for a median of n values: from the rank-th smallest to the
// rank-th largest of them, the narrowest that holds the true median with at least the wanted
// confidence. rank is 0 when n is too small.
func signInterval(n int) (rank int, sure float64) {
	for 2*tail(n, rank) <= 1-Confidence {
		rank++
	}
	if rank == 0 {
		return 0, 0
	}
	return rank, 1 - 2*tail(n, rank-1)
}

// signTest is the two-sided chance of ratios lying so unevenly about 1. A ratio of exactly 1, which
// coarse latencies give, counts for neither side, so that the chance is at most 1 - confidence just
// when the interval excludes 1.
func signTest(ratios []float64) float64 {
	above, below := 0, 0
	for _, r := range ratios {
		if r > 1 {
			above++
		} else if r < 1 {
			below++
		}
	}
	return min(1, 2*tail(len(ratios), len(ratios)-max(above, below)))
}

// Judge computes the ratios of all loads and gives the verdicts.
//
// A table of 36 intervals of 95 % has one or two that exclude 1 by chance, so all are judged
// together, by the procedure of Benjamini and Hochberg (1995): of the verdicts that stand, 5 % are
// false in the mean, and where there is no difference at all, at most one run in twenty says
// otherwise. An interval that excludes 1 without standing among the others gets its word with a
// question mark. The figures of a load are not independent; they move together, with which the
// procedure copes (Benjamini and Yekutieli 2001).
func (c *Comparison) Judge() {
	metrics := Metrics()
	var all []*Ratio
	for i := range c.Loads {
		l := &c.Loads[i]
		flagDisturbed(l.Pairs)
		l.Ratios = make([]Ratio, len(metrics))
		for k, m := range metrics {
			l.Ratios[k] = measureRatio(m, l.Pairs)
			all = append(all, &l.Ratios[k])
		}
	}
	limit := chanceLimit(all)
	for i, r := range all {
		if r.Sure == 0 || r.Chance > 1-Confidence {
			continue
		}
		m := metrics[i%len(metrics)]
		if r.Verdict = m.Higher; r.Median < 1 {
			r.Verdict = m.Lower
		}
		if r.Chance > limit {
			r.Verdict += "?"
		}
	}
}

// chanceLimit is the largest chance that still counts as a difference among all the ratios: the
// largest k-th smallest that is at most k/m of 5 %.
func chanceLimit(all []*Ratio) float64 {
	var chances []float64
	for _, r := range all {
		if r.Sure > 0 {
			chances = append(chances, r.Chance)
		}
	}
	slices.Sort(chances)
	for k := len(chances); k > 0; k-- {
		if chances[k-1] <= (1-Confidence)*float64(k)/float64(len(chances)) {
			return chances[k-1]
		}
	}
	return 0
}

// flagDisturbed marks the pairs of which twice the usual share was taken and five points on top: a
// shared machine always does less than that.
func flagDisturbed(pairs []measure.Pair) {
	usual := UsuallyTaken(pairs)
	for i := range pairs {
		pairs[i].Disturbed = pairs[i].Taken() > 2*usual+0.05
	}
}

// UsuallyTaken is the median over the pairs.
func UsuallyTaken(pairs []measure.Pair) float64 {
	taken := make([]float64, len(pairs))
	for i, p := range pairs {
		taken[i] = p.Taken()
	}
	return measure.Median(taken)
}

// String names a side: "HEAD~1 (0f9abb3) --poll 0".
func (s Side) String() string {
	text := s.Name
	if short := s.Commit[:min(len(s.Commit), 9)]; short != "" && short != s.Name {
		text += " (" + short
		if s.Dirty {
			text += " and changes"
		}
		text += ")"
	}
	return strings.Join(append([]string{text}, s.Flags...), " ")
}
