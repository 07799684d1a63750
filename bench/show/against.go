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
	return toPeer(judge.Best(r.Report, l, our, figure, more))
}

// againstAll prints the server CPU of one of ours as a multiple of that of the cheapest of all
// peers, as against does.
func (r report) againstAll(l measure.Load, our string) string {
	return toPeer(judge.BestOfAll(r.Report, l, our, measure.Sample.ServerCPU, false))
}

func toPeer(x float64, peer string, ok bool) string {
	if !ok {
		return ""
	}
	return fmt.Sprintf("%.2f (%s)", x, peer)
}
