// All checks, in the order of the rules.
//
// Invariant: IDs are unique, and every rule of rules_test.go has a check or a reason in unchecked.

package conform

import "slices"

// Checks returns all checks.
func Checks() []Check { return slices.Concat(handshakeChecks(), transmissionChecks()) }

func handshakeChecks() []Check {
	return slices.Concat(transportChecks, greetingChecks, exportNameChecks, listChecks, infoChecks,
		structuredChecks, contextChecks, extendedChecks)
}

func transmissionChecks() []Check {
	return slices.Concat(requestChecks, replyChecks, readChecks, writeChecks, zeroChecks,
		statusChecks, endChecks, sizeChecks, longHeaderChecks, multiChecks)
}

// Only returns the checks that at least one of the patterns picks, in their order; without
// patterns, all. The second result is the first pattern that picks no check, "" if each picks some.
func Only(all []Check, patterns []string) (picked []Check, idle string) {
	if len(patterns) == 0 {
		return all, ""
	}
	for _, p := range patterns {
		if !slices.ContainsFunc(all, func(c Check) bool { return c.matches(p) }) {
			return nil, p
		}
	}
	for i := range all {
		if slices.ContainsFunc(patterns, all[i].matches) {
			picked = append(picked, all[i])
		}
	}
	return picked, ""
}
