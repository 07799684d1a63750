// Package load puts load on an NBD server, or on a file or block device itself, and reports the
// result: `ringnbd bench`.
//
// It is an independent instrument: it has a loop, batches and parsers of its own and, of the
// engine, uses only the ring, the client's negotiation and the opening of files. That is on
// purpose: a mistake that a server and its instrument shared would not be measured.
//
//	options.go   says what a run is asked to do
//	run.go       is a run from beginning to end
//	plan.go      fits the options to the target, and divides the work
//	layout.go    lays out a loop's memory
//	client.go    negotiates
//	socket.go    takes the socket from net to a loop
//	loop.go      is a thread and its turns
//	conn.go      is a connection
//	request.go   decides which request is next, begins and ends it
//	send.go      sends requests
//	receive.go   parses replies
//	disk.go      does the same requests on a file
//	mix.go       draws block sizes
//	schedule.go  decides when requests are due
//	stamp.go     stamps and judges sectors
//	table.go     remembers what blocks must hold
//	trace.go     is a trace in memory
//	iolog.go     reads traces
//	replay.go    starts the requests of a trace
//	record.go    writes traces
//	idle.go      keeps silent connections
//	holes.go     notes holes in a file
//	tally.go     is what a loop counts
//	report.go    is the result, as JSON
//	text.go      is the result, for people
//	progress.go  is the progress line
//
// # One loop
//
//	reap -> parse replies -> finish requests, start others
//	     -> one SENDMSG and one RECV per connection -> io_uring_enter
//
// A loop is one thread with one ring and its share of the connections. Negotiation is ordinary Go;
// then the descriptor goes to the loop. A connection has one RECV in flight into its stage, from
// which many replies are parsed, and one SENDMSG at most, with every request that was started in
// that turn. Payload is dropped where it lies, or verified there. With file:PATH the same requests
// are READ_FIXED, WRITE_FIXED, FSYNC and FALLOCATE on the file, and everything else is the same
// code: the physical limit in the same words. After it has started, a loop allocates nothing, takes
// no lock and writes no log (alloc_test.go).
//
// # What is measured
//
// Closed loop: every slot (connections x depth) starts its next request when its reply has been
// parsed. Latency is from the turn's start to the turn in which the reply was parsed; the clock is
// read twice a turn.
//
// Open loop (Options.Rate): requests are due at times that a schedule has fixed beforehand, evenly
// or as a Poisson process. A request that finds no free slot waits, and its latency counts from
// when it was due, so a server that stalls pays for every request that should have been made
// meanwhile: there is no coordinated omission. The number of waiting requests is reported as the
// backlog.
//
// Replay (Options.Replay): the requests of a trace in its order, on one loop, closed or, with its
// recorded times, open.
//
// A request is measured when its reply comes after the warm-up; with Options.Count, when it also
// began after it. The rate counts replies within the measuring time. Replies to requests in flight
// at its end are awaited and count for the percentiles only.
//
// # Verifying
//
// Options.Verify stamps every sector of 512 bytes with its offset, a generation, the run and a
// checksum, and remembers the generation of every block. A block is not written while another
// request of this run is on it, so the only right answer to a read is known. Blocks without an
// acknowledged write of this run are not judged: Options.Fill writes all blocks first. After
// WRITE_ZEROES a block must be zeroes. After a TRIM, or a write that failed, it is not judged until
// it has been written again, because the protocol leaves its content open. If the server promises
// that connections see each other's writes (CAN_MULTI_CONN), any connection of a loop reads what
// any other wrote; else each keeps to a part of its own.
//
// # Besides the loops
//
// Idle connections (Options.Idle) are negotiated, and checked again when the run is over. A
// recording (Options.Record) is written by a goroutine from rings that the loops fill without
// waiting for it.
//
// # How the server is addressed
//
// Simple replies only. TCP_NODELAY, and congestion control cubic, else reno: bbr, the default of
// some machines, paces even the loopback. This governs the direction to the server; the server
// chooses for the other.
package load
