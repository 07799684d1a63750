// Statistics over a handful of rounds.
//
// Invariant: medians only; a mean would let one stolen second of a shared machine speak for all
// rounds.

package measure

import (
	"slices"
)

// Median is the median of v; 0 when v is empty. v is left as it was.
func Median(v []float64) float64 {
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

// MedianSample takes the median of every field on its own.
func MedianSample(samples []Sample) Sample {
	pick := func(f func(Sample) float64) float64 {
		v := make([]float64, len(samples))
		for i, s := range samples {
			v[i] = f(s)
		}
		return Median(v)
	}
	return Sample{
		Requests:          int64(pick(func(s Sample) float64 { return float64(s.Requests) })),
		Seconds:           pick(func(s Sample) float64 { return s.Seconds }),
		RequestsPerSecond: pick(RequestRate),
		BytesPerSecond:    pick(func(s Sample) float64 { return s.BytesPerSecond }),
		P50:               pick(func(s Sample) float64 { return s.P50 }),
		P90:               pick(func(s Sample) float64 { return s.P90 }),
		P9999:             pick(func(s Sample) float64 { return s.P9999 }),
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

func RequestRate(s Sample) float64 { return s.RequestsPerSecond }
