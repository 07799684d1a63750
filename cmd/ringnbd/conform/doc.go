/*
Package conform is the conformance suite of ringnbd conform: it holds any NBD server to the rules of the protocol, one check for each rule that can be seen on
the wire, by a raw client that can send what no library sends.

The source of the rules is doc/proto.md of https://github.com/NetworkBlockDevice/nbd; rules_test.go lists their IDs, and --list --verbose
what has no check, and why.

# Map

	check.go     Check, Level, Verdict, Result; Need: what a check takes for granted
	need.go      the needs by name; Facts: what the server said of itself
	catalog.go   all checks, --only, the rules without a check (hand_all.go and trans_unchecked.go say why)
	suite.go     Run: servers up, facts, each check by itself, the server proven alive after each
	spawn.go     a server of our own, from a command with {port} or {socket}, {img}, {dir}; spent.go: what it has open
	facts.go     what the suite asks before the first check
	data.go      the suite's data in the export: Expected, Fill, Scratch
	t.go         T, what a check has in its hands
	conn.go      Conn: bytes, silence, closing
	option.go    options and their replies
	session.go   from a connection to transmission in each Mode
	request.go   requests; StillUp
	reply.go     simple replies, chunks and extended replies, judged as they come
	hand_*.go    checks of the handshake
	trans_*.go   checks of the transmission
	report.go    the table, JSON, JUnit
	compare.go   several servers side by side; explained.go, trans_explained.go: why the others fail
	table/       the program that runs all four and writes TABLE.md: make conform

# How the checks are checked

The tests have a server in memory (fake_test.go) that is right in everything, and wrong in one thing on demand: mutation_test.go says which checks must fail for which
flaw. The real servers show the rest: what they fail in is explained by their sources, or the check is wrong.

# Writing a check

	{"CR-05", Should, "a READ that is not aligned to the minimum block size is EINVAL", "why it matters", []Need{NeedBlocks}, func(t *T) {
		c := t.Open(ModeGo)
		c.refused(Read(1, 512), EINVAL) // another error differs; ends with StillUp's question
	}},

A check ends by Failf (a MUST is violated), by Skip (it cannot be made here), or by returning; what the spec allows and a careful server does not do is
noted by Differ, and the check goes on; it is told even if a Skip comes behind it. Every read of Conn fails by itself, with what was expected, when the server
closes, stalls or sends something else.
A check has T.Left() time, opens as many connections as it likes and need not close them. After it the suite proves that the server accepts a new one.

A violated MUST fails; a check of level QUALITY or MAY fails only when it comes across one, which its text then names, or when the server dies or hangs. A violated SHOULD differs, unless the check says why it fails all the same; so does what is left open (MAY, QUALITY).
*/
package conform
