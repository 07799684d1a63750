// Package judge says what measurements mean: ratios to the raw limit and to peers, targets met
// or missed, and which differences of two revisions are more than chance.
//
//	ratios.go           ratios within a round: to the raw limit, to the peer that is hardest to beat
//	targets.go          the targets and their verdicts
//	targets_figures.go  the figure that each target is judged by
//	comparison.go       two servers measured in pairs: intervals, sign test, verdicts
//	report.go           the report with its verdicts, in its file
//
// A ratio is the median over the rounds of the ratios within each round. The best peer is the
// one that is hardest to beat among those that reach the storage the same way: by O_DIRECT,
// where a write is answered when the disk has it, or through the page cache.
//
// The targets are judged by these, with one exception: server CPU is held against the cheapest
// of all peers, though what the kernel spends on writing back the page cache is charged to no
// server; the ratio to the cheapest on O_DIRECT is shown beside it. A verdict needs two rounds.
// When some rounds meet the bound and others do not, the target is neither met nor missed but
// close, and the lowest and the highest round are shown.
package judge
