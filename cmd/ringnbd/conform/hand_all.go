// The checks of the handshake, and the rules of it that cannot be checked on the wire.
//
// Invariant: one file for each group of rules; this one only joins them.

package conform

import "slices"

func handshakeChecks() []Check {
	return slices.Concat(transportChecks, greetingChecks, exportNameChecks, listChecks, infoChecks,
		structuredChecks, contextChecks, extendedChecks)
}

const (
	needsTLS      = "TLS is not spoken by this suite yet"
	needsOldstyle = "is about servers of the oldstyle handshake, which this suite does not " +
		"speak; ringnbd's own tests of serve --oldstyle show it"
	needsConfig = "depends on how the server is configured, which the wire does not show"
)

// uncheckedHandshake says of each rule of the handshake that has no check why.
var uncheckedHandshake = map[string]string{
	"H-17": "needs a server that is asked to shut down while a client haggles; how to ask " +
		"differs by server",
	"H-18": "takes as long as the server's own timeout, which it tells nobody",
	"O-02": needsOldstyle,
	"O-03": needsOldstyle,
	"O-04": "is about documentation",
	"E-03": needsTLS, "A-04": needsTLS, "LI-05": needsTLS, "SR-05": needsTLS, "MC-16": needsTLS,
	"X-07":  needsTLS,
	"TL-04": needsTLS, "TL-05": needsTLS, "TL-06": needsTLS, "TL-07": needsTLS, "TL-08": needsTLS,
	"TL-09": needsTLS, "TL-10": needsTLS, "TL-11": needsTLS,
	"TL-12": needsTLS, "TL-13": needsTLS, "TL-14": needsTLS, "TL-15": needsTLS, "TL-16": needsTLS,
	"TL-17": needsTLS, "TL-18": needsTLS,
	"LI-06": needsConfig, "G-16": needsConfig, "G-17": needsConfig,
	"LI-07": "needs a server with ten thousand exports; a test of ringnbd's own makes one",
}
