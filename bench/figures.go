// Ratios out of a report: to the raw limit, to the best peer. Invariant: a ratio
// compares samples of the same round, and, unless it is said to be of all peers,
// peers that reach the storage the same way.

package bench

import (
	"fmt"
	"slices"
	"strings"
)

// ours tells whether a server is this project's.
func ours(server string) bool { return strings.HasPrefix(server, "ringnbd") }

// ofRaw is a server's figure as a multiple of the raw limit's.
func (r *Report) ofRaw(l Load, server string, figure func(Sample) float64) (x float64, ok bool) {
	result, raw := r.result(l, server), r.raw(l)
	if result == nil || raw == nil {
		return 0, false
	}
	return ratio(result.Samples, raw.Samples, figure)
}

// peers are the others that met a load and reach the storage as one of ours does:
// by O_DIRECT, where a write is answered when the disk has it, or through the page
// cache. Without storage, all others are.
func (r *Report) peers(l Load, our string) []string {
	return slices.DeleteFunc(r.servers(l), func(name string) bool {
		return ours(name) ||
			l.OnDisk() && slices.Contains(r.Direct, name) != slices.Contains(r.Direct, our)
	})
}

// rivals are all others that met a load, however they reach the storage.
func (r *Report) rivals(l Load) []string {
	return slices.DeleteFunc(r.servers(l), ours)
}

// best finds the peer that is hardest to beat in one figure, and one of ours as a
// multiple of it. With more, larger figures are better. ok is false when nobody
// else was measured.
func (r *Report) best(l Load, our string, figure func(Sample) float64,
	more bool) (x float64, peer string, ok bool) {
	v, peer := r.hardest(l, our, r.peers(l, our), figure, more)
	return median(v), peer, len(v) > 0
}

// hardest finds whom of some peers it is hardest to beat, and one of ours as a
// multiple of it, round by round; nothing when none of them was measured.
func (r *Report) hardest(l Load, our string, peers []string, figure func(Sample) float64,
	more bool) (v []float64, peer string) {
	mine := r.result(l, our)
	if mine == nil {
		return nil, ""
	}
	for _, name := range peers {
		w := ratios(mine.Samples, r.result(l, name).Samples, figure)
		if x, y := median(v), median(w); len(w) > 0 &&
			(len(v) == 0 || (more && y < x) || (!more && y > x)) {
			v, peer = w, name
		}
	}
	return v, peer
}

// against prints best: "1.52 (qemu-nbd)", or nothing.
func (r *Report) against(l Load, our string, figure func(Sample) float64, more bool) string {
	x, peer, ok := r.best(l, our, figure, more)
	return toPeer(x, peer, ok)
}

// againstAll prints the server CPU of one of ours as a multiple of that of the
// cheapest of all peers, as against does.
func (r *Report) againstAll(l Load, our string) string {
	v, peer := r.hardest(l, our, r.rivals(l), Sample.ServerCPU, false)
	return toPeer(median(v), peer, len(v) > 0)
}

func toPeer(x float64, peer string, ok bool) string {
	if !ok {
		return ""
	}
	return fmt.Sprintf("%.2f (%s)", x, peer)
}
