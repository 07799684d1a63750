// The rules of the protocol by ID, which the checks and the reasons in unchecked name. The level is
// that of each check: many rules have parts of several levels.
//
// Invariant: the list is complete: a rule that is not here does not exist, and TestCatalog holds
// the checks to it.

package conform

// sections has the parts of the protocol, and the IDs of their rules.
var sections = []struct{ name, rules string }{
	{"Transport and strings", "T-01 T-02 T-03 T-04 T-05 T-06"},
	{"Newstyle handshake",
		"H-01 H-02 H-03 H-04 H-05 H-06 H-07 H-08 H-09 H-10 H-11 H-12 H-13 H-14 H-15 " +
			"H-16 H-17 H-18"},
	{"Oldstyle", "O-01 O-02 O-03 O-04"},
	{"NBD_OPT_EXPORT_NAME", "E-01 E-02 E-03 E-04 E-05 E-06 E-07 E-08 E-09 E-10"},
	{"NBD_OPT_ABORT", "A-01 A-02 A-03 A-04"},
	{"NBD_OPT_LIST", "LI-01 LI-02 LI-03 LI-04 LI-05 LI-06 LI-07 LI-08"},
	{"NBD_OPT_PEEK_EXPORT", "P-01"},
	{"NBD_OPT_STARTTLS",
		"TL-01 TL-02 TL-03 TL-04 TL-05 TL-06 TL-07 TL-08 TL-09 TL-10 TL-11 TL-12 TL-13 TL-14 " +
			"TL-15 TL-16 TL-17 TL-18"},
	{"NBD_OPT_INFO, NBD_OPT_GO",
		"G-01 G-02 G-03 G-04 G-05 G-06 G-07 G-08 G-09 G-10 G-11 G-12 G-13 G-14 G-15 G-16 G-17 " +
			"G-18 G-19 G-20"},
	{"NBD_OPT_STRUCTURED_REPLY", "SR-01 SR-02 SR-03 SR-04 SR-05"},
	{"NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT",
		"MC-01 MC-02 MC-03 MC-04 MC-05 MC-06 MC-07 MC-08 MC-09 MC-10 MC-11 MC-12 MC-13 MC-14 " +
			"MC-15 MC-16 MC-17 MC-18 MC-19"},
	{"NBD_OPT_EXTENDED_HEADERS", "X-01 X-02 X-03 X-04 X-05 X-06 X-07 X-08"},
	{"Transmission: request parsing",
		"RQ-01 RQ-02 RQ-03 RQ-04 RQ-05 RQ-06 RQ-07 RQ-08 RQ-09 RQ-10 RQ-11 RQ-12 RQ-13 RQ-14 " +
			"RQ-15"},
	{"Reply formats",
		"RP-01 RP-02 RP-03 RP-04 RP-05 RP-06 RP-07 RP-08 RP-09 RP-10 RP-11 RP-12 RP-13 RP-14 " +
			"RP-15 RP-16 RP-17"},
	{"Commands", "CB-01 CB-02 CB-03 CB-04 CB-05 CB-06 CB-07 CB-08 CB-09 CB-10 CB-11 CB-12 CC-01 " +
		"CC-02 CC-03 CD-01 CD-02 CF-01 CF-02 CF-03 CF-04 CR-01 CR-02" +
		" CR-03 CR-04 CR-05 CR-06 CR-07 CT-01 CT-02 CT-03 CT-04 CT-05 CT-06 CW-01 CW-02 CW-03 " +
		"CW-04 CW-05 CW-06 CW-07 CW-08 CW-09 CW-10 CX-01 CX-02" +
		" CZ-01 CZ-02 CZ-03 CZ-04 CZ-05 CZ-06 CZ-07 CZ-08 CZ-09"},
	{"Size constraints", "S-01 S-02 S-03 S-04 S-05 S-06 S-07 S-08 S-09 S-10 S-11 S-12 S-13"},
	{"Error values", "ER-01 ER-02 ER-03 ER-04 ER-05"},
	{"Transmission flags honesty", "TF-01 TF-02 TF-03 TF-04 TF-05 TF-06 TF-07 TF-08"},
	{"Extended headers: transmission",
		"XH-01 XH-02 XH-03 XH-04 XH-05 XH-06 XH-07 XH-08 XH-09 XH-10 XH-11 XH-12"},
	{"Ordering, durability, multi-connection", "MO-01 MO-02 MO-03 MO-04 MO-05 MO-06 MO-07 MO-08"},
	{"Shutdown and termination", "SD-01 SD-02 SD-03 SD-04"},
	{"Denial-of-service limits",
		"DS-01 DS-02 DS-03 DS-04 DS-05 DS-06 DS-07 DS-08 DS-09 DS-10 DS-11 DS-12 DS-13 DS-14 " +
			"DS-15 DS-16 DS-17 DS-18"},
	{"Interop traps of real clients", "K-01 K-02 K-03 K-04 K-05 K-06 K-07 K-08 K-09 K-10"},
}
