// The checks of the transmission phase, in the order of the rules. Invariant: one file for each
// group of rules; this one only joins them.

package conform

import "slices"

func transmissionChecks() []Check {
	return slices.Concat(requestChecks, replyChecks, readChecks, writeChecks, zeroChecks,
		statusChecks, endChecks, sizeChecks, longHeaderChecks, multiChecks)
}
