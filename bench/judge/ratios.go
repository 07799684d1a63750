// Ratios out of a report: to the raw limit, to the best peer.
//
// Invariant: a ratio compares samples of the same round, and, unless it is said to be of all
// peers, peers that reach the storage the same way.

package judge

import (
	"slices"
	"strings"

	"ringnbd/bench/measure"
)

// Ours reports whether a server is one of this project.
func Ours(server string) bool { return strings.HasPrefix(server, "ringnbd") }

// OfRaw is a server's figure as a multiple of the raw limit's.
func OfRaw(r *measure.Report, l measure.Load, server string,
	figure func(measure.Sample) float64) (x float64, ok bool) {
	result, raw := r.Result(l, server), r.Raw(l)
	if result == nil || raw == nil {
		return 0, false
	}
	return ratio(result.Samples, raw.Samples, figure)
}

// peers are the others that met a load and reach the storage as one of ours does: by O_DIRECT,
// where a write is answered when the disk has it, or through the page cache. Without storage, all
// others are.
func peers(r *measure.Report, l measure.Load, our string) []string {
	return slices.DeleteFunc(r.Servers(l), func(name string) bool {
		return Ours(name) ||
			l.OnDisk() && slices.Contains(r.Direct, name) != slices.Contains(r.Direct, our)
	})
}

// rivals are all others that met a load, however they reach the storage.
func rivals(r *measure.Report, l measure.Load) []string {
	return slices.DeleteFunc(r.Servers(l), Ours)
}

// Best finds the peer that is hardest to beat in one figure, and one of ours as a multiple of it.
// With more, larger figures are better. ok is false when no peer was measured.
func Best(r *measure.Report, l measure.Load, our string, figure func(measure.Sample) float64,
	more bool) (x float64, peer string, ok bool) {
	v, peer := hardest(r, l, our, peers(r, l, our), figure, more)
	return measure.Median(v), peer, len(v) > 0
}

// BestOfAll is Best among all peers, however they reach the storage.
func BestOfAll(r *measure.Report, l measure.Load, our string,
	figure func(measure.Sample) float64, more bool) (x float64, peer string, ok bool) {
	v, peer := hardest(r, l, our, rivals(r, l), figure, more)
	return measure.Median(v), peer, len(v) > 0
}

// hardest finds which of some peers is hardest to beat, and one of ours as a multiple of it, round
// by round; nothing when none of them was measured.
func hardest(r *measure.Report, l measure.Load, our string, peers []string,
	figure func(measure.Sample) float64,
	more bool) (v []float64, peer string) {
	mine := r.Result(l, our)
	if mine == nil {
		return nil, ""
	}
	for _, name := range peers {
		w := ratios(mine.Samples, r.Result(l, name).Samples, figure)
		if x, y := measure.Median(v), measure.Median(w); len(w) > 0 &&
			(len(v) == 0 || (more && y < x) || (!more && y > x)) {
			v, peer = w, name
		}
	}
	return v, peer
}

// ratio is the median of ratios. ok is false when no round has both.
func ratio(a, b []measure.Sample, f func(measure.Sample) float64) (r float64, ok bool) {
	v := ratios(a, b, f)
	return measure.Median(v), len(v) > 0
}

// ratios are f(a)/f(b) of each round that has both: what the machine did in a round, it did to
// both.
func ratios(a, b []measure.Sample, f func(measure.Sample) float64) (v []float64) {
	for _, x := range a {
		for _, y := range b {
			if x.Round == y.Round && f(y) > 0 {
				v = append(v, f(x)/f(y))
			}
		}
	}
	return v
}
