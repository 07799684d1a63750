// Package engine serves block requests from sockets that have been negotiated already: one event
// loop per core, each with its own ring, its own memory and its own connections.
//
// # The life of a request
//
//		socket bytes -> stage -> proto.Request -> tag + lease -> guard -> wave of segments
//		   -> ready list -> one SENDMSG -> tag and lease are given back
//
//	 1. Adoption. engine/gate has negotiated; Engine.Adopt picks the loop with the fewest
//	    connections and posts the descriptor (mail.go). The loop gives it a row (conn.go: adopt).
//	 2. Listening (receive.go: listen). A single RECV takes in as many requests as have come, into
//	    a stage: 2 KiB that every connection has of its own, or, while it sends more than that
//	    holds, 256 KiB that it borrows (stage.go).
//	 3. Recording (loop.go: record). A completion only updates its row and marks the connection.
//	    When the whole batch has been recorded, every marked connection is settled once (loop.go:
//	    settle): take requests in, send replies, listen again, depart. Batching of replies follows
//	    from that order.
//	 4. Taking in (receive.go: parse; admit.go: admit). proto.Check holds all the rules; what it
//	    refuses is answered without touching the disk. What it accepts takes a tag and all the
//	    memory it will ever need, or waits in line without holding anything (admit.go: takeTag;
//	    queue.go; feed.go). Payloads are copied from the stage into the lease; when 128 KiB or more
//	    are still to come, or no large stage is left, they are received straight into it.
//	 5. Ordering (guard.go). A write of any kind claims its blocks. It runs when no earlier write,
//	    on any connection of any loop, overlaps them. Of a request in parts (parts.go) each part
//	    does.
//	 6. The disk (disk.go). A wave is one READ_FIXED or WRITE_FIXED per 1 MiB piece (READ or
//	    WRITE, where memory is not registered: locked.go). A write that does not begin and end on
//	    blocks first reads the two blocks at its edges and completes them (stepEdges, merge). FUA
//	    is RWF_DSYNC on the write. FLUSH (flush.go) is one fdatasync for all that wait. TRIM and
//	    WRITE_ZEROES (range.go) go slice by slice.
//	 7. Completion (disk.go: segmentDone; tag.go: stepDone, answer). The last segment of the
//	    last step answers: the claim is given up, which may set others running, and the tag joins
//	    its connection's ready list. Order of completion is order of reply.
//	 8. Replying (reply.go; chunk.go and holes.go for structured replies). Headers and payloads of
//	    everything ready become one SENDMSG. Its completion gives tags and leases back (release),
//	    and those that starved for them are fed.
//
// A turn has a budget (budget.go), in bytes that are read, written, copied or looked at, for what a
// request costs is not what it sends: what is beyond it is left to the next turn, short requests of
// others come first.
//
// BLOCK_STATUS goes another way (lookup.go): there is no io_uring operation for it, so the request
// and the memory for its answer are handed to a worker outside of the loop (lookup_workers.go),
// which writes the chunks and hands it back. What the status is, a Context knows: engine/backing
// has the one that the spec defines, and a dirty bitmap or an allocation depth would be others.
//
// # Whose memory
//
// The kernel sees addresses of two arenas only. The control arena has a page pair per connection
// (message header, iovecs, reply headers, its own stage) and the large stages; the pool has one
// region for requests up to a piece and a bit and one for longer ones, so that neither kind starves
// the other, and is registered with the ring, part by part as it is first used (locked.go). A loop
// with too little memory for that serves long requests part by part (parts.go). layout.go divides
// Config.Memory between them before anything runs; nothing grows. Rows point at each other by
// index, and hold no pointers.
//
// Backpressure has no code of its own: without a tag or a lease a connection is not read, and its
// socket fills up. What a connection may hold begins small and grows with the replies it takes
// (admit.go: earn), to a third of the short region and half of the long one, so that those who
// take nothing hold little. One that holds something and does not move, while others starve for it,
// is closed (stall.go); while nobody starves, nobody is closed for being slow, but for a TCP client
// that acknowledges nothing, or takes nothing of what is ready for it, in five minutes
// (engine/gate, userTimeout).
//
// # Whose share
//
// Storage that hangs and clients that take nothing keep what they have for long, so they may never
// have all. The ledger (ledger.go) bounds tags and memory by what is left: a connection may have
// half as much, all connections of an export together as much (where there are several exports),
// all newcomers, who have taken no reply yet, a quarter of the whole; a reserve is for small
// requests of those who hold little. A request that waits in the guard, for FUA or for a worker
// holds on its export's account. Who must wait stands in its export's line, and lines take turns
// (queue.go, feed.go), so that nobody stands behind another's disk. In a line the order is that of
// arrival. But one that waits for many megabytes does not hold up those behind it who want less
// than what it will leave (beside), and a long READ gives its memory back piece by piece as it is
// taken (reply.go: giveSent).
//
// The kernel's workers (io-wq), which do what cannot be done at once, are shared as well, and
// handed out by the loop (workers.go): what is tried with RWF_NOWAIT and refused goes to a worker
// of the device's quota, or is parked. FUSE, network file systems and devices that answer nothing
// are never tried, for a trial could put the loop to sleep.
//
// The words: a line is the connections of one export that wait; a newcomer has taken no reply yet;
// a connection is squeezed while it holds as much as it may because little is left; a stake is the
// right of the first in a line to what comes home; a segment is parked until its device's quota has
// a worker for it.
//
// # Threads
//
// A loop is one goroutine locked to one thread, which created the ring
// (IORING_SETUP_SINGLE_ISSUER). Nothing else reads or writes its tables. It never touches a channel
// or a mutex; io_uring_enter is the only call that blocks. The control plane speaks to it by mail.
// A loop has workers (64 at most) for what would block it (lookup_workers.go), which touch a
// request only while it is theirs.
//
// Loops share three things. The exports, which never change. A few words of each Device: whether a
// flush has failed, and who is flushing. And the guard, a table under one spin word per shard: the
// exception to "no locks on the path of a request". The word is held for some tens of nanoseconds
// (longer for claims of more than 2 MiB), never across a system call, and a waiter gives up the
// core when its holder was preempted. What else was considered: owning ranges by loop and passing
// messages costs a wake-up (1 µs and more) for half of all writes on two loops, where the word
// costs an uncontended compare-and-swap; lock-free tables of claims need a scan of every other
// loop's claims, or lose the exact order of arrival, which is what failover needs (a re-sent write
// must not be overtaken by its own ghost).
//
// # Errors
//
// Ours: must panics, with the loop's last completions (trace.go). Theirs: an errno in the reply;
// the connection stays. The link's: the connection is closed, and the reason counted (count.go). A
// connection is closed in three moves: marked; its socket shut down, so that the kernel lets go of
// it; and when neither the kernel nor a tag holds on to it, its row is given back (conn.go:
// depart).
//
// What people should hear of (a disk that failed, a session that ended) the loop does not log: it
// fills a slot of a ring, or hands back the row that came with the connection, and rings a bell
// (incident.go). A goroutine of the control plane passes it on to Config.Reports (reports.go).
//
// # The end
//
// Drain (shutdown.go, stall.go) serves for a second more, closing who is silent; then nothing is
// taken in, not even a payload that has begun, what was taken in is answered, and the client finds
// the end of the stream behind the last reply. One that goes on sending has half a second until its
// socket is closed under it. Devices that were written to are flushed by a crew of threads
// (crew.go), which gives up those whose storage hangs.
//
// # Departures from the first drawing
//
// Holes in structured replies to READ were to come from the file (SEEK_HOLE). They are found in the
// data instead, see holes.go: what was looked up before the read could be false by the time of the
// reply, and looking it up costs a system call and a lock of the file.
//
// Device and Plan as interfaces are not here yet: the four kinds of device differ in one switch
// each for reads, writes and ranges, and a tree of planned devices will bring its seam with it
// (tag.step is where a plan's next wave would be asked for). Sockets are not registered files:
// measured gain within noise. An idle connection was to be armed with a poll and to hold nothing; a
// receive into 2 KiB of its own saves the poll, and the queue for buffers.
//
// # Tried and not kept
//
// In alternating pairs on two cores that the client shares, new over old, 4 KiB requests, Unix,
// Linux 6.18 (make compare does such runs):
//
//   - Waiting for 4 completions or 20 microseconds while 8 are in flight (min-wait): null 1 x 32
//     0.45 of the requests/s, 4 x 32 0.83; file 1 x 32 1.01 at 1.31 of the CPU. For 8 or 50: worse.
//     A turn that finds one completion costs less than what waits for it loses.
//   - Loops pinned to cores: 0.98 to 1.04 of the requests/s, CPU 0.95 to 1.15, either way by load.
//     The scheduler's choice stays.
//   - Profile-guided optimisation: CPU 0.98 at null 4 x 32, 1.00 elsewhere, within the error (make
//     pgo makes the profile).
//   - Huge pages for the connections' pages: CPU at 1,000 connections 0.98 of that without, within
//     the error. The pool has them.
//   - A wait that does not end with the completion of our own sends: no gain.
//   - Workers (lookup_workers.go) that look for another lookup for 60 microseconds before they
//     sleep: qemu-img map, which asks for one extent at a time, takes 41 to 105 microseconds for
//     each, where it takes 80 without, by how the scheduler happens to place the client's thread,
//     the loop's and the worker's on two cores.
//   - The collector switched off: it does not run while requests are served (GODEBUG=gctrace=1),
//     for nothing is allocated.
//
// Considered and not built: shares by address or user (all machines of a host have one address, and
// who wants many can have many); four times what is left as an export's share (the second of two
// disks that hang leaves a twenty-fifth, where half and half leave a quarter); a higher bound of
// workers without trials (64 writes to a frozen file system would need 64 of them, or keep those of
// all others).
//
// Not tried, for want of a network card or of more cores: SENDMSG_ZC (the loopback copies all the
// same), NAPI busy polling, placement by NUMA node.
package engine
