// Why some rules have no check: they cannot be seen on the wire, or the check of another rule shows
// them.
//
// Invariant: a reason says what would show the rule, or which check shows it.

package conform

const (
	needsTLS      = "needs TLS, which this suite does not speak yet"
	needsOldstyle = "is about servers with the oldstyle handshake, which this suite does not " +
		"speak; ringnbd's own tests of serve --oldstyle show it"
	needsConfig  = "depends on how the server is configured, which the wire does not show"
	needsTimeout = "takes as long as the server's own timeout, which no client can ask for"
	needsFault   = "needs a disk that fails on demand; a server's own tests must have one"
	needsPower   = "needs a power failure, or the system calls of the server: that data has " +
		"reached stable storage cannot be seen from outside"
)

// unchecked has the reason for each rule without a check.
var unchecked = map[string]string{
	// the handshake
	"H-17": "needs a server that is asked to shut down while a client haggles over options; how " +
		"to ask depends on the server",
	"H-18": needsTimeout,
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
	// the transmission phase
	"RP-11": needsFault +
		" in the middle of a READ; every reply in every check is held to it all the same",
	"RP-12": needsFault + " in the middle of a chunk",
	"RP-13": needsFault + " in the middle of a simple reply",
	"RP-14": "is a rule of design: it shows only when a disk fails while a chunk is sent",
	"CR-07": needsFault,
	"CW-06": "needs a disk that is full",
	"CW-08": needsFault,
	"CF-04": needsPower,
	"CB-10": "needs a disk that fails on demand, or a file system that does not report holes; a " +
		"status from it is judged like any other",
	"CB-12": "is about the cost inside the server",
	"CX-01": "is about servers with the resize extension, which no server has; CX-02 is for all " +
		"others",
	"S-13": "needs the device under the server",
	"ER-04": "needs a server that shuts down with requests in flight, which is a race from " +
		"outside",
	"ER-05": "is about clients",
	"TF-07": "needs the device under the server",
	"MO-02": needsPower +
		"; MO-04 shows that FLUSH covers other connections as far as READs can tell",
	"MO-03": needsPower,
	"MO-06": "TF-08, MO-04 and MO-05 show whether CAN_MULTI_CONN is true",
	"SD-01": "would end the server under test; a server's own tests must do it",
	"SD-03": "needs TLS, which this suite does not speak yet",
	"DS-01": needsTimeout,
	"DS-02": "how many connections a server takes is its user's choice, and to use them up would " +
		"shut out the other clients",
	"DS-03": "how many options a server takes is its own choice; H-16 sends many",
	"DS-04": "H-10 and G-01 show it",
	"DS-05": "MC-17 shows it",
	"DS-09": "is about what happens inside the server before it accepts a client",
	"DS-11": "E-06, G-05, G-06 and H-14 show it",
	"DS-12": "E-05, G-01 and G-15 show it",
	"DS-13": "CB-09 shows it",
	"DS-14": "needs TLS, which this suite does not speak yet; TL-02 and TL-03 show the rest",
	"DS-15": "H-10 and H-16 show it",
	"DS-17": "is about how the server's parsers are tested",
	"K-04":  "T-05 shows it, with small segments",
	"K-10": "RQ-04 and TF-06 show it: private extensions use numbers of unknown commands and " +
		"flags",
}
