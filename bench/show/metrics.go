// The figures of a sample: one description for the columns of tables and for plots.
//
// Invariant: a table or plot computes nothing of a sample but by a metric.

package show

import (
	"math"
	"slices"

	"ringnbd/bench/measure"
)

// metric is a figure of a sample.
type metric struct {
	Head, Unit string // of its column
	title      string // of its plots
	of         func(measure.Sample) float64
	server     bool // the raw limit does not have it
}

var (
	requests = metric{"requests", "per second", "Requests per second", measure.RequestRate, false}
	data     = metric{"data", "MiB/s", "Bandwidth, MiB/s",
		func(s measure.Sample) float64 { return s.BytesPerSecond / (1 << 20) }, false}
	p50 = metric{"p50", "µs", "Latency, p50",
		func(s measure.Sample) float64 { return s.P50 }, false}
	p99 = metric{"p99", "µs", "Latency, p99",
		func(s measure.Sample) float64 { return s.P99 }, false}
	cpu = metric{"server CPU", "µs per request", "Server CPU, µs per request",
		measure.Sample.ServerCPU, true}
	memory = metric{"memory", "peak MiB", "Peak resident memory, MiB",
		func(s measure.Sample) float64 { return float64(s.PeakRSS) / (1 << 20) }, true}
	start = metric{"start", "ms", "From start to first greeting, ms",
		func(s measure.Sample) float64 { return 1e3 * s.StartSeconds }, true}
)

// percentiles of latency. Reports of old runs do not have all of them.
var percentiles = []metric{p50,
	{"p90", "µs", "", func(s measure.Sample) float64 { return s.P90 }, false}, p99,
	{"p99.9", "µs", "", func(s measure.Sample) float64 { return s.P999 }, false},
	{"p99.99", "µs", "", func(s measure.Sample) float64 { return s.P9999 }, false}}

// columns are those of the page's tables.
var columns = slices.Concat([]metric{requests, data}, percentiles, []metric{cpu,
	{"user", "µs per request", "", func(s measure.Sample) float64 { return s.ServerUser }, true},
	{"system", "µs per request", "",
		func(s measure.Sample) float64 { return s.ServerSystem }, true},
	{"generator", "CPU µs per request", "",
		func(s measure.Sample) float64 { return s.ClientCPU }, false},
	{"switches", "per request", "", func(s measure.Sample) float64 { return s.Switches }, true},
	memory, start,
	{"write-back", "s", "", // less than 10 ms is nothing
		func(s measure.Sample) float64 { return math.Round(100*s.WriteBack) / 100 }, true},
	{"unstarted", "requests", "",
		func(s measure.Sample) float64 { return float64(s.Backlog) }, false},
	{"steal", "% of CPU", "", func(s measure.Sample) float64 { return 100 * s.Steal }, false},
	{"others", "% of CPU", "", func(s measure.Sample) float64 { return 100 * s.Others }, false},
})

// time reports whether the metric is a latency: it is printed with its unit, on logarithmic axes.
func (m metric) time() bool { return m.Unit == "µs" }

// Short prints a value in plots.
func (m metric) Short(v float64) string {
	if m.time() {
		return shortTime(v)
	}
	return shortNumber(v)
}

// measured is a metric of one result: its median, and the lowest and the highest round.
type measured struct {
	Median, Low, High float64
	Noisy             bool // the rounds differ so much that the median says little
	Strained          bool // the offered rate was not reached, or requests were left over
}

// measured reads a metric of a result that has samples. In an open loop, a hundredth less than the
// rate is what the ends of a run blur.
func (m metric) measured(result *measure.Result) (v measured) {
	var rounds []float64
	for _, s := range result.Samples {
		rounds = append(rounds, m.of(s))
	}
	s, rate := result.Median, result.Load.Rate
	v = measured{Median: m.of(s), Low: slices.Min(rounds), High: slices.Max(rounds),
		Strained: rate > 0 &&
			(s.RequestsPerSecond < 0.99*rate || float64(s.Backlog) > 0.01*float64(s.Requests))}
	v.Noisy = v.High-v.Low > 0.5*v.Median
	return v
}

// usedColumns are the columns that are not 0 throughout some results.
func usedColumns(results []measure.Result) []metric {
	return slices.DeleteFunc(slices.Clone(columns), func(c metric) bool {
		return !slices.ContainsFunc(results, func(result measure.Result) bool {
			return slices.ContainsFunc(result.Samples, func(s measure.Sample) bool {
				return c.of(s) != 0
			})
		})
	})
}
