// All checks there are, in the order of the rules.
//
// Invariant: IDs are unique, and every rule of rules_test.go has a check here or a reason in
// unchecked.

package conform

import "slices"

// Checks gives every check: the handshake's, then the transmission's.
func Checks() []Check { return slices.Concat(handshakeChecks(), transmissionChecks()) }

// Only gives the checks that one of the patterns picks, in their order; all of them without
// patterns. The second result is the first pattern that picks none.
func Only(all []Check, patterns []string) (picked []Check, idle string) {
	if len(patterns) == 0 {
		return all, ""
	}
	for _, p := range patterns {
		if !slices.ContainsFunc(all, func(c Check) bool { return c.Matches(p) }) {
			return nil, p
		}
	}
	for i := range all {
		if slices.ContainsFunc(patterns, all[i].Matches) {
			picked = append(picked, all[i])
		}
	}
	return picked, ""
}

// unchecked says of each rule without a check why it has none.
func unchecked() map[string]string {
	all := map[string]string{}
	for _, list := range []map[string]string{uncheckedHandshake, uncheckedTransmission} {
		for id, reason := range list {
			all[id] = reason
		}
	}
	return all
}
