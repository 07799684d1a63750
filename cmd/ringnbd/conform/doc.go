/*
Package conform is the conformance suite of ringnbd conform: it holds any NBD server to the rules of
the protocol. It has one check, or several, for each rule that can be seen on the wire, and a raw
client that can send what no library sends.

# Rules

The source of the rules is doc/proto.md of https://github.com/NetworkBlockDevice/nbd. A rule has an
ID: the letters of its group and a number, such as RQ-04, "an unknown command is EINVAL". The groups
follow the parts of that document (H the handshake, G the options INFO and GO, CR the command READ;
rules_test.go lists all groups and IDs); the last two, DS and K, collect what overloads a server and
what trips real clients. A check has the ID of its rule, and a letter after it if the rule takes
several checks: RQ-13a, RQ-13b. IDs are in the results, in TABLE.md and in what users pass to
--only, so a rule keeps its ID. A rule without a check has a reason in unchecked.go, which
--list --verbose prints.

# What counts as a failure

A violated MUST fails. So does whatever ends the connection or the server where the protocol lets
neither end, whatever the level of the check. A violated SHOULD differs, unless the check says why
it fails all the same; what the protocol leaves open (MAY, QUALITY) differs if a careful server
would do otherwise. A check of level MAY or QUALITY fails only if it comes across a violated MUST,
which the text of the failure then names, or if the server dies or hangs. A check that does not
apply to the server is skipped, with the reason: a need that is not met, or nothing to see.

# Writing a check

	{"CR-05", should, []need{needBlocks},
		"a READ that is not aligned to the minimum block size is EINVAL",
		"what goes wrong otherwise",
		func(t *trial) {
			c := t.open(modeGo)
			c.refused(newRead(1, 512), einval)
		}},

It is an entry in the table of its group's file, check_GROUP.go: ID, level, needs, title, why, and
the function. The function ends by failf (a MUST is violated), by skip, or by returning. What the
protocol allows and a careful server does not do is noted by differ; the check goes on, and the note
stays in the result even if a skip follows. want fails unless its condition holds, prefer differs.

A check has trial.left() time, opens as many connections as it likes and need not close them. Every
read of conn fails by itself, with what was expected, when the server closes, stalls or sends
something else. A check of an error ends with the proof that the stream is still in step:
conn.stillUp in transmission, conn.stillHaggling among options; refused and the like contain it.
After each check the suite proves that the server accepts a new connection.

# How the checks are checked

The tests have servers in memory which are right in everything, and wrong in one thing on demand;
mutation_handshake_test.go and mutation_transmission_test.go say which checks must fail for which
flaw. The real servers show the rest: their sources explain what they fail (explained.go), or the
check is wrong.

# Map

The suite:

	check.go         Check, Level, Verdict, Result, need: what a check is and what comes out of it
	need.go          the needs by name
	catalog.go       all checks, and those that --only picks
	unchecked.go     why a rule has no check
	suite.go         Run: servers started, profile taken, each check by itself, then a proof of life
	spawn.go         a server of our own, from a command with {port} or {socket}, {img}, {dir}
	keeper.go        the process group of such a server, which ends with us
	processes.go     the descriptors and the memory that the server's processes have
	profile.go       the profile of a server: what it offers, and what may be done with it
	learn.go         the questions that fill in the profile, before the first check
	data.go          the suite's own data in an export: expected, fill, scratch
	report.go        the results as a table, as JSON, as JUnit XML; the list of checks
	compare.go       several servers side by side: TABLE.md
	explained.go     why other servers fail or differ, from their sources
	table/           the program that runs the suite on four servers: make conform

The client that checks drive:

	trial.go         a run of one check: its verdict, its deadline, its connections
	conn.go          a connection: bytes, silence, closing, the greeting
	option.go        options and their replies
	transmission.go  from options to transmission, in each mode
	request.go       requests, in compact and extended form
	reply.go         replies, judged as they are read: simple, structured, extended
	extents.go       the rules of a block status
	modes.go         a check in every mode; sizes and commands that the server takes
	refusal.go       requests that should be refused, and the errors for them

The checks, by group of rules:

	check_transport.go   T, O           segments, strings, a half-closed connection
	check_greeting.go    H              the banner, client flags, the shape of options
	check_exportname.go  E, A, LI, P, TL  EXPORT_NAME, ABORT, LIST, PEEK_EXPORT, STARTTLS
	check_info.go        G              INFO, GO
	check_context.go     SR, MC, X      structured replies, meta contexts, extended headers
	check_request.go     RQ             how requests are parsed
	check_reply.go       RP             the form of replies
	check_read.go        CR             READ
	check_write.go       CW, CF         WRITE, FLUSH
	check_zero.go        CT, CZ, CC     TRIM, WRITE_ZEROES, CACHE
	check_status.go      CB             BLOCK_STATUS
	check_end.go         CD, SD, DS     disconnecting, and clients that do not take part
	check_size.go        S, TF, ER, CX  sizes, transmission flags, error values, unknown commands
	check_extended.go    XH             extended headers in transmission
	check_multi.go       MO, K, TF      several connections, traps of real clients
*/
package conform
