// Statistics over a handful of rounds. Invariant: medians only; a mean would let
// one stolen second of a shared machine speak for all rounds.

package bench

import (
	"slices"
)

// median of v; 0 when v is empty. v is left as it was.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	m := len(s) / 2
	if len(s)%2 == 1 {
		return s[m]
	}
	return (s[m-1] + s[m]) / 2
}

// medianSample takes the median of every field on its own.
func medianSample(samples []Sample) Sample {
	pick := func(f func(Sample) float64) float64 {
		v := make([]float64, len(samples))
		for i, s := range samples {
			v[i] = f(s)
		}
		return median(v)
	}
	return Sample{
		Requests:          int64(pick(func(s Sample) float64 { return float64(s.Requests) })),
		Seconds:           pick(func(s Sample) float64 { return s.Seconds }),
		RequestsPerSecond: pick(requestRate),
		BytesPerSecond:    pick(func(s Sample) float64 { return s.BytesPerSecond }),
		P50:               pick(func(s Sample) float64 { return s.P50 }),
		P99:               pick(func(s Sample) float64 { return s.P99 }),
		P999:              pick(func(s Sample) float64 { return s.P999 }),
		ServerUser:        pick(func(s Sample) float64 { return s.ServerUser }),
		ServerSystem:      pick(func(s Sample) float64 { return s.ServerSystem }),
		ClientCPU:         pick(func(s Sample) float64 { return s.ClientCPU }),
		Switches:          pick(func(s Sample) float64 { return s.Switches }),
		PeakRSS:           int64(pick(func(s Sample) float64 { return float64(s.PeakRSS) })),
		StartSeconds:      pick(func(s Sample) float64 { return s.StartSeconds }),
		Steal:             pick(func(s Sample) float64 { return s.Steal }),
		Others:            pick(func(s Sample) float64 { return s.Others }),
		WriteBack:         pick(func(s Sample) float64 { return s.WriteBack }),
		Backlog:           uint64(pick(func(s Sample) float64 { return float64(s.Backlog) })),
	}
}

func requestRate(s Sample) float64 { return s.RequestsPerSecond }

// ratio is the median of ratios. ok is false when no round has both.
func ratio(a, b []Sample, f func(Sample) float64) (r float64, ok bool) {
	v := ratios(a, b, f)
	return median(v), len(v) > 0
}

// ratios are f(a)/f(b) of each round that has both: what the machine did to a round,
// it did to both.
func ratios(a, b []Sample, f func(Sample) float64) (v []float64) {
	for _, x := range a {
		for _, y := range b {
			if x.Round == y.Round && f(y) > 0 {
				v = append(v, f(x)/f(y))
			}
		}
	}
	return v
}
