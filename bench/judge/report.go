// What a report says as a whole, and the file that it is kept in.
//
// Invariant: the verdicts in the file follow from the samples in it; reading a file
// judges anew.

package judge

import (
	"fmt"

	"ringnbd/bench/measure"
)

// maxOthers is the share of CPU time used by other programs above which the reader is warned.
const maxOthers = 0.05

// Warning says that other programs used the machine; it is empty when they did not.
func Warning(r *measure.Report) string {
	var v []float64
	for _, result := range r.Results {
		for _, s := range result.Samples {
			v = append(v, s.Others)
		}
	}
	x := measure.Median(v)
	if x <= maxOthers {
		return ""
	}
	return fmt.Sprintf("other programs and the kernel's own threads used %.0f %% of the CPU "+
		"time (median of all measurements): on a quiet machine the figures are better and "+
		"steadier.", 100*x)
}

// Save writes the report to path as JSON, compressed if the name ends so, and with it the targets
// as they were judged; reading it back judges anew.
func Save(r *measure.Report, path string) error {
	return measure.WriteJSON(path, struct {
		*measure.Report
		Targets []Target `json:"targets"`
	}{r, Targets(r)})
}
