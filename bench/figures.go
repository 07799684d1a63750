package bench

// Ratios out of a report: to the raw limit, to the best peer. Invariant: a ratio
// compares samples of the same round, and peers that reach the storage the same
// way.

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
		return ours(name) || l.OnDisk() && slices.Contains(r.Direct, name) != slices.Contains(r.Direct, our)
	})
}

// best finds the peer that is hardest to beat in one figure, and one of ours as a
// multiple of it. With more, larger figures are better. ok is false when nobody
// else was measured.
func (r *Report) best(l Load, our string, figure func(Sample) float64, more bool) (x float64, peer string, ok bool) {
	mine := r.result(l, our)
	if mine == nil {
		return 0, "", false
	}
	for _, name := range r.peers(l, our) {
		y, both := ratio(mine.Samples, r.result(l, name).Samples, figure)
		if both && (!ok || (more && y < x) || (!more && y > x)) {
			x, peer, ok = y, name, true
		}
	}
	return x, peer, ok
}

// against prints best: "1.52 (qemu-nbd)", or nothing.
func (r *Report) against(l Load, our string, figure func(Sample) float64, more bool) string {
	x, peer, ok := r.best(l, our, figure, more)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%.2f (%s)", x, peer)
}
