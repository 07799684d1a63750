// The figures that targets are judged by.
//
// Invariant: each is computed round by round, from samples of the same round.

package judge

import (
	"fmt"
	"math"
	"slices"

	"ringnbd/bench/measure"
)

// busyEnough is the share of all cores beyond which CPU time is the bound: the kernel's own work
// for the disk and the network is not in the figures.
const busyEnough = 0.9

// ofLimit is ringnbd's requests per second as a share of the raw limit's. Where server and
// generator together use up the machine's cores, the raw limit, which needs neither a server nor a
// network, cannot be reached.
func ofLimit(r *measure.Report, l measure.Load) (figured, bool) {
	ours, raw := r.Result(l, "ringnbd"), r.Raw(l)
	if ours == nil || raw == nil {
		return figured{}, false
	}
	f := figured{rounds: ratios(ours.Samples, raw.Samples, measure.RequestRate), format: "%.2f"}
	m := ours.Median
	busy := (m.ServerCPU() + m.ClientCPU) * m.RequestsPerSecond / 1e6
	if cores := float64(r.Machine.Cores); busy >= busyEnough*cores {
		f.excused = true
		f.rest = fmt.Sprintf(", CPU is the bound: %.1f of %.0f cores", busy, cores)
	}
	return f, true
}

// ofBest is a figure of one of ours as a multiple of the best peer's on the same storage path.
func ofBest(our string, figure func(measure.Sample) float64, more bool) func(*measure.Report,
	measure.Load) (figured, bool) {
	return func(r *measure.Report, l measure.Load) (figured, bool) {
		v, peer := hardest(r, l, our, peers(r, l, our), figure, more)
		return figured{rounds: v, format: "%.2f", rest: " × " + peer}, len(v) > 0
	}
}

// ofFastest is ringnbd's requests per second as a multiple of the fastest O_DIRECT peer's, and
// tells what the raw limit's own would be: no server gets beyond it.
func ofFastest(r *measure.Report, l measure.Load) (figured, bool) {
	f, ok := ofBest("ringnbd", measure.RequestRate, true)(r, l)
	if !ok {
		return f, false
	}
	_, peer, _ := Best(r, l, "ringnbd", measure.RequestRate, true)
	if raw := r.Raw(l); raw != nil {
		if limit, both := ratio(raw.Samples, r.Result(l, peer).Samples, measure.RequestRate); both {
			f.rest += fmt.Sprintf(", raw %.2f", limit)
		}
	}
	return f, true
}

// ofAll is ringnbd's requests per second as a multiple of those of the fastest of all peers.
func ofAll(r *measure.Report, l measure.Load) (figured, bool) {
	v, peer := hardest(r, l, "ringnbd", rivals(r, l), measure.RequestRate, true)
	return figured{rounds: v, format: "%.2f", rest: " × " + peer}, len(v) > 0
}

// ofCheapest is ringnbd's server CPU per request as a multiple of that of the cheapest of all
// peers, and adds that to the cheapest peer on the same storage path.
func ofCheapest(r *measure.Report, l measure.Load) (figured, bool) {
	v, peer := hardest(r, l, "ringnbd", rivals(r, l), measure.Sample.ServerCPU, false)
	f := figured{rounds: v, format: "%.2f", rest: " × " + peer}
	if slices.Contains(r.Direct, peer) {
		f.rest += " on O_DIRECT"
	} else if x, direct, ok := Best(r, l, "ringnbd", measure.Sample.ServerCPU, false); ok {
		f.rest += fmt.Sprintf(" on the page cache, %.2f × %s on O_DIRECT", x, direct)
	}
	return f, len(v) > 0
}

// ofNbdkit compares the requests per second of CPU time with those of nbdkit.
func ofNbdkit(r *measure.Report, l measure.Load) (figured, bool) {
	ours, peer := r.Result(l, "ringnbd"), r.Result(l, "nbdkit")
	if ours == nil || peer == nil {
		return figured{}, false
	}
	return figured{rounds: ratios(ours.Samples, peer.Samples, measure.Sample.RequestsPerCPUSecond),
		format: "%.1f"}, true
}

// plain is a figure of ringnbd without a comparison.
func plain(figure func(measure.Sample) float64, unit string) func(*measure.Report,
	measure.Load) (figured, bool) {
	return func(r *measure.Report, l measure.Load) (figured, bool) {
		ours := r.Result(l, "ringnbd")
		if ours == nil {
			return figured{}, false
		}
		f := figured{format: "%.2f", rest: unit}
		for _, s := range ours.Samples {
			f.rounds = append(f.rounds, figure(s))
		}
		return f, true
	}
}

// ofCarried is ringnbd's bandwidth as a share of the raw limit's; or, when the machine's loopback
// carries less than that in one stream, of the loopback's. That was measured once, so those shares
// are not of the same round.
func ofCarried(r *measure.Report, l measure.Load) (figured, bool) {
	bandwidth := func(s measure.Sample) float64 { return s.BytesPerSecond }
	ours, raw := r.Result(l, "ringnbd"), r.Raw(l)
	if ours == nil || raw == nil {
		return figured{}, false
	}
	carried := r.Machine.Loopback[l.Transport]
	if carried <= 0 || carried >= raw.Median.BytesPerSecond {
		return figured{rounds: ratios(ours.Samples, raw.Samples, bandwidth), format: "%.2f",
			rest: " of raw"}, true
	}
	f := figured{format: "%.2f",
		rest: fmt.Sprintf(" of the loopback's %.1f GB/s, measured once", carried/1e9)}
	for _, s := range ours.Samples {
		f.rounds = append(f.rounds, bandwidth(s)/carried)
	}
	return f, true
}

// addedLatency is what ringnbd adds to the raw limit's median latency, as a multiple of what the
// best peer adds.
func addedLatency(r *measure.Report, l measure.Load) (figured, bool) {
	raw, mine := r.Raw(l), r.Result(l, "ringnbd")
	if raw == nil || mine == nil {
		return figured{}, false
	}
	best := figured{format: "%.2f"}
	for _, name := range rivals(r, l) {
		v := addedRatios(mine.Samples, r.Result(l, name).Samples, raw.Samples)
		if len(v) > 0 &&
			(len(best.rounds) == 0 || measure.Median(v) > measure.Median(best.rounds)) {
			ours, peer, limit := mine.Median.P50, r.Result(l, name).Median.P50, raw.Median.P50
			best.rounds, best.rest = v, fmt.Sprintf(" × %s: %+.0f and %+.0f µs on %.0f", name,
				ours-limit, peer-limit, limit)
		}
	}
	return best, len(best.rounds) > 0
}

// addedRatios are, of each round, what a adds to the median latency of raw, divided by what b adds:
// nothing where a adds nothing, else infinite where b does not.
func addedRatios(a, b, raw []measure.Sample) (v []float64) {
	for _, limit := range raw {
		for _, s := range a {
			for _, t := range b {
				if s.Round != limit.Round || t.Round != limit.Round {
					continue
				}
				x, y := s.P50-limit.P50, t.P50-limit.P50
				switch {
				case x <= 0:
					v = append(v, 0)
				case y <= 0:
					v = append(v, math.Inf(1))
				default:
					v = append(v, x/y)
				}
			}
		}
	}
	return v
}

// addedCost is what an overlay adds to the CPU time of a request on the file alone, as a multiple
// of what qemu-nbd's qcow2 image with a backing file adds.
func addedCost(r *measure.Report, l measure.Load) (figured, bool) {
	plain := l
	plain.Backend = measure.File
	var added [2]float64
	var rounds [2]map[int]float64
	for i, server := range []string{"ringnbd", "qemu-nbd"} {
		over, under := r.Result(l, server), r.Result(plain, server)
		if over == nil || under == nil {
			return figured{}, false
		}
		added[i] = over.Median.ServerCPU() - under.Median.ServerCPU()
		rounds[i] = map[int]float64{}
		for _, s := range over.Samples {
			for _, t := range under.Samples {
				if s.Round == t.Round {
					rounds[i][s.Round] = s.ServerCPU() - t.ServerCPU()
				}
			}
		}
	}
	f := figured{format: "%.2f", rest: fmt.Sprintf(" × qemu-nbd: %+.1f and %+.1f µs", added[0],
		added[1])}
	for round, ours := range rounds[0] {
		theirs, both := rounds[1][round]
		switch {
		case !both:
		case ours <= 0:
			f.rounds = append(f.rounds, 0)
		case theirs <= 0:
			f.rounds = append(f.rounds, math.Inf(1))
		default:
			f.rounds = append(f.rounds, ours/theirs)
		}
	}
	return f, len(f.rounds) > 0
}

// polled compares ringnbd's median latency with and without busy polling, and adds what becomes of
// the slowest requests, and the price.
func polled(r *measure.Report, l measure.Load) (figured, bool) {
	poll, plain := r.Result(l, "ringnbd-poll"), r.Result(l, "ringnbd")
	if poll == nil || plain == nil {
		return figured{}, false
	}
	a, b := poll.Median, plain.Median
	return figured{rounds: ratios(poll.Samples, plain.Samples, func(s measure.Sample) float64 {
		return s.P50
	}), format: "%.2f",
		rest: fmt.Sprintf(": p50 %s instead of %s, p99 %s instead of %s µs, CPU %.1f instead of "+
			"%.1f µs",
			measure.Micros(a.P50), measure.Micros(b.P50), measure.Micros(a.P99),
			measure.Micros(b.P99), a.ServerCPU(),
			b.ServerCPU())}, true
}

// grown compares a figure of a load with that of another, which vary makes of it.
func grown(figure func(measure.Sample) float64, vary func(*measure.Load)) func(*measure.Report,
	measure.Load) (figured, bool) {
	return func(r *measure.Report, l measure.Load) (figured, bool) {
		other := l
		vary(&other)
		many, one := r.Result(l, "ringnbd"), r.Result(other, "ringnbd")
		if many == nil || one == nil {
			return figured{}, false
		}
		return figured{rounds: ratios(many.Samples, one.Samples, figure), format: "%.2f",
				rest: fmt.Sprintf(": %.2f after %.2f µs", figure(many.Median), figure(one.Median))},
			true
	}
}

// idleMemory is in KiB per idle connection.
func idleMemory(r *measure.Report, l measure.Load) (figured, bool) {
	none := l
	none.Idle = 0
	many, one := r.Result(l, "ringnbd"), r.Result(none, "ringnbd")
	if many == nil || one == nil {
		return figured{}, false
	}
	f := figured{format: "%.1f", rest: " KiB"}
	for _, s := range many.Samples {
		for _, t := range one.Samples {
			if s.Round == t.Round {
				f.rounds = append(f.rounds,
					max(0, float64(s.PeakRSS-t.PeakRSS)/1024/float64(l.Idle)))
			}
		}
	}
	return f, true
}
