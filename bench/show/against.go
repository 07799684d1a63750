// Ratios to peers in words.
//
// Invariant: a ratio is never without the name of its peer.

package show

import (
	"fmt"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
)

// against prints best: "1.52 (qemu-nbd)", or nothing.
func (r report) against(l measure.Load, our string, figure func(measure.Sample) float64,
	more bool) string {
	x, peer, ok := judge.Best(r.Report, l, our, figure, more)
	return toPeer(x, peer, ok)
}

// againstAll prints the server CPU of one of ours as a multiple of that of the cheapest of all
// peers, as against does.
func (r report) againstAll(l measure.Load, our string) string {
	v, peer := judge.Hardest(r.Report, l, our, judge.Rivals(r.Report, l), measure.Sample.ServerCPU,
		false)
	return toPeer(measure.Median(v), peer, len(v) > 0)
}

func toPeer(x float64, peer string, ok bool) string {
	if !ok {
		return ""
	}
	return fmt.Sprintf("%.2f (%s)", x, peer)
}
