// Package load puts load on an NBD server, or on a file or block device itself, and says what came
// of it: `ringnbd bench`.
//
// # One loop
//
//	reap -> parse replies -> finish requests, start others
//	     -> one SENDMSG and one RECV per connection -> io_uring_enter
//
// A loop is one thread with one ring and its share of the connections (loop.go). Negotiation is
// ordinary Go (client.go, socket.go); then the descriptor goes into the loop. A connection has one
// RECV in flight into its stage, out of which many replies are parsed (receive.go), and one SENDMSG
// at most, with everything that could be started in that turn (send.go). Payload is dropped where
// it lies, or verified there. With file:PATH the same requests are READ_FIXED, WRITE_FIXED, FSYNC
// and FALLOCATE on the file (disk.go), and everything else is the same code: the physical limit in
// the same words. After it has started, a loop allocates nothing, takes no lock and writes no log
// (alloc_test.go).
//
// # What is measured
//
// Closed loop: every slot (connections x depth) starts its next request when its reply has been
// parsed. Latency is from the turn's start to the turn in which the reply was parsed; the clock is
// read twice a turn.
//
// Open loop (Options.Rate): requests are due at times that a schedule fixed beforehand, evenly or
// as a Poisson process (schedule.go). A request that finds no free slot waits, and its latency
// counts from when it was due, so a server that stalls pays for every request that should have been
// made meanwhile: there is no coordinated omission. How many were waiting is reported as the
// backlog.
//
// Replay (Options.Replay): the requests of a trace (iolog.go, trace.go) in its order, on one loop,
// closed or, with its recorded times, open (replay.go).
//
// A request is measured when its reply comes after the warm-up; with Options.Count, when it also
// began after it. The rate counts replies within the measuring time. Replies to requests in flight
// at its end are awaited and count for the percentiles only.
//
// # Verifying
//
// Options.Verify stamps every sector of 512 bytes with its offset, a generation, the run and a
// checksum (stamp.go), and remembers the generation of every block (table.go). A block is not
// written while another request of ours is on it, so the one answer that a read may give is known.
// Blocks of which this run has had no write acknowledged are not judged: Options.Fill writes them
// all first. After WRITE_ZEROES a block must be zeroes. After a TRIM, or a write that failed, it is
// not judged until it has been written again, because the protocol leaves open what is in it. If
// the server promises that connections see each other's writes (CAN_MULTI_CONN), any connection of
// a loop reads what any other wrote; else each keeps to a part of its own.
//
// # Beside the loops
//
// Idle connections (Options.Idle) are negotiated, and looked at again when the run is over
// (idle.go). A recording (Options.Record) is written by a goroutine from rings that the loops fill
// without waiting for it (record.go).
//
// # What the server is told
//
// Simple replies only. TCP_NODELAY, and congestion control cubic, else reno: bbr, the default of
// some machines, paces even the loopback. This governs our direction; the server's is its own
// affair.
package load
