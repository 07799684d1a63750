// Package engine serves block requests from sockets that have been negotiated already: one event
// loop per core, each with its own ring, its own memory and its own connections.
//
// # Where to look
//
//   - Where is a request admitted? admit.go: needs says how much memory it takes, takeTag takes the
//     tag and the memory at once, or lets the connection wait. ledger.go says how much a connection
//     may hold, queue.go which connection is next, feed.go tries those that wait again.
//   - Where is its order decided? guard.go: a write waits for every earlier write to the same
//     blocks of its device. Requests that do not overlap have no order.
//   - Who owns its memory? The tag (tag.go): it has a lease of the pool (lease.go) from takeTag to
//     release, whatever happens to the connection. layout.go divides the memory of a loop.
//   - What happens when its client goes? conn.go: fail shuts the socket down and withdraws what
//     waits, requests on the disk run to their end without a reply, and depart gives the row back
//     when neither the kernel nor a tag needs it.
//   - Where is a new device added? device.go: a Kind, and the facts that the data path needs; its
//     way through begin and run in tag.go (memory.go is the smallest example), its reads and writes
//     in disk.go, its ranges in range.go, its replies in reply.go. engine/backing opens it.
//     table.go has the devices of a server, and which export has which.
//
// # The life of a request
//
//		socket bytes -> stage -> proto.Request -> tag + lease -> guard -> wave of segments
//		   -> ready list -> one SENDMSG -> tag and lease are given back
//
//	 1. Adoption. engine/gate has negotiated; Engine.Adopt picks the loop with the fewest
//	    connections and posts the descriptor (mail.go). The loop gives it a row (conn.go: adopt).
//	 2. Listening (receive.go: listen). A single RECV takes in as many requests as have arrived,
//	    into a stage: 2 KiB that every connection has of its own, or, while it sends more than that
//	    holds, 256 KiB that it borrows (stage.go).
//	 3. Recording (loop.go: record). A completion updates its row and marks the connection.
//	    When the whole batch has been recorded, every marked connection is settled once (loop.go:
//	    settle): take requests in, send replies, listen again, depart. Batching of replies follows
//	    from that order.
//	 4. Admission (receive.go: parse; admit.go: admit). proto.Check holds all the rules; a request
//	    that it refuses is answered without touching the disk. A request that it accepts takes a
//	    tag and all the memory it will ever need, or waits in line without holding anything
//	    (admit.go: takeTag; queue.go; feed.go). Payloads are copied from the stage into the lease;
//	    when 128 KiB or more are still to come, or no large stage is left, they are received
//	    straight into the lease.
//	 5. Ordering (guard.go). A write of any kind claims its blocks. It runs when no earlier write,
//	    on any connection of any loop, overlaps them. Of a request in parts (parts.go) each part
//	    claims its own.
//	 6. The disk (disk.go). A wave is one READ_FIXED or WRITE_FIXED per 1 MiB piece (READ or
//	    WRITE, where memory is not registered: locked.go). A write that does not begin and end on
//	    blocks first reads the two blocks at its edges and completes them (stepEdges, merge). FUA
//	    is RWF_DSYNC on the write. FLUSH (flush.go) is one fdatasync for all flushes that wait.
//	    TRIM and WRITE_ZEROES (range.go) go slice by slice. CACHE (readahead.go), memory devices
//	    (memory.go) and short writes into the page cache (pagecache.go) have ways of their own.
//	 7. Completion (disk.go: segmentDone; tag.go: stepDone, answer). The last segment of the last
//	    step answers: the claim is given up, which may let other requests run, and the tag joins
//	    the ready list of its connection. Order of completion is order of reply.
//	 8. Replying (reply.go; chunk.go and holes.go for structured replies). Headers and payloads of
//	    all ready replies become one SENDMSG. Its completion gives tags and leases back (release),
//	    and feeds the connections that wait for them.
//
// A turn has a budget (budget.go), in bytes that are read, written, copied or looked at, because
// the cost of a request is not the size of its reply. Work beyond the budget is left to the next
// turn, and short requests of other connections come first.
//
// BLOCK_STATUS goes another way (lookup.go). io_uring has no operation for it, so the request and
// the memory for its answer are handed to a worker outside of the loop (lookup_workers.go), which
// writes the chunks and hands the request back. A Context knows the status: engine/backing has the
// one that the spec defines; a dirty bitmap or an allocation depth would be others.
//
// # Whose memory
//
// The kernel sees addresses of two arenas only. The control arena has a pair of pages for each
// connection (message header, iovecs, reply headers, its own stage) and the large stages. The pool
// has two regions: small, for requests up to a piece and some more, and large, for longer requests,
// so that neither kind starves the other. It is registered with the ring by buffers of 2 MiB, each
// when it is first used (locked.go). A loop with too little memory for a long request serves it
// part by part (parts.go). layout.go divides Config.Memory between them before anything runs;
// nothing grows. Rows point at each other by index, and hold no pointers.
//
// Backpressure has no code of its own: without a tag or a lease a connection is not read, and its
// socket fills up. What a connection may hold begins small and grows with the replies that it takes
// (admit.go: earn), to a third of the small region and half of the large region, so that clients
// that take nothing hold little. A connection that holds memory and does not move, while others
// starve for it, is closed (stall.go). While no connection starves, none is closed for being slow,
// except for a TCP client that acknowledges nothing, or takes nothing of what is ready for it, in
// five minutes (engine/gate, userTimeout).
//
// # Whose share
//
// Storage that hangs, and clients that take nothing, keep for long what they have, so they may
// never have all of it. The ledger (ledger.go) bounds tags and memory by what is left: a connection
// may have half of that, all connections of an export together as much (where there are several
// exports), and all newcomers together a quarter of the whole; a reserve is for small requests of
// connections that hold little. A request that waits in the guard, for FUA or for a worker holds on
// the account of its export. A connection that has to wait stands in the line of its export, and
// lines take turns (queue.go, feed.go), so that no connection waits for the disk of another export.
// In a line the order is that of arrival. But a request for many megabytes at its head does not
// hold up requests after it that want less than the head will leave (queue.go: mayOvertake), and a
// long READ gives its memory back piece by piece as it is taken (reply.go: giveSent).
//
// The kernel's workers (io-wq), which run operations that cannot be done at once, are shared as
// well, and handed out by the loop (workers.go): an operation that was tried with RWF_NOWAIT and
// refused goes to a worker of the device's quota, or is parked. FUSE, network file systems and
// devices that answer nothing are never tried, because a trial could put the loop to sleep.
//
// # Words
//
//	tag         a request in flight, and its row in the table of the loop
//	lease       memory of the pool, a chain of pieces, held by one tag
//	region      a class of memory of the pool: small, or large
//	claim       the blocks of a write in the guard, from begin to answer
//	guard       the table of claims that orders overlapping writes
//	stripe      the part of a device, 64 KiB or more, by which the guard finds claims
//	stage       the memory that a socket is received into
//	wave        the disk operations of one step of a request; each is a segment
//	piece       1 MiB of a lease; a part is what a small loop serves at once of a long request;
//	            a slice is what TRIM and WRITE_ZEROES do at once
//	turn        one io_uring_enter, and all work that follows from what completed
//	settle      what a turn does once for each connection that a completion concerned
//	line        the connections of one export that wait for memory or a tag
//	stake       the right of the first connection of a line to memory that is freed
//	newcomer    a connection that has taken no reply yet
//	squeezed    a connection that holds all it may, because little is left
//	parked      a segment that waits until the quota of its device has a worker
//	door        an address where engine/gate listens and negotiates, newstyle or oldstyle
//
// # Threads
//
// A loop is one goroutine locked to one thread, which created the ring
// (IORING_SETUP_SINGLE_ISSUER). No other thread reads or writes its tables. It never touches a
// channel or a mutex; io_uring_enter is the only call that blocks. The control plane speaks to it
// by mail. A loop has workers (64 at most) for lookups, which would block it (lookup_workers.go); a
// worker touches a request only while it has it.
//
// Loops share three things. The table of exports, which never changes. A few words of each Device:
// whether a flush has failed, and which loop is flushing. And the guard, a table under one spin
// word per shard: the exception to "no locks on the path of a request". The word is held for some
// tens of nanoseconds (longer for claims of more than 2 MiB), never across a system call, and a
// waiter gives up the core when its holder was preempted. What else was considered: owning ranges
// by loop and passing messages costs a wake-up (1 µs and more) for half of all writes on two loops,
// where the word costs an uncontended compare-and-swap; lock-free tables of claims need a scan of
// every other loop's claims, or lose the exact order of arrival, which failover needs (a write that
// is sent again must not be overtaken by its first copy).
//
// # Errors
//
// An error of ours: must panics, with the loop's last completions (trace.go). An error of the
// device: an errno in the reply; the connection stays. An error of the link: the connection is
// closed, and the reason counted (count.go). A connection is closed in three moves: it is marked;
// its socket is shut down, so that the kernel lets go of it; and when neither the kernel nor a tag
// needs its row, the row is given back (conn.go: depart).
//
// What people should know of (a disk that failed, a session that ended) the loop does not log: it
// fills a slot of a ring, or hands back the row that came with the connection, and rings a bell
// (incident.go). A goroutine of the control plane passes it on to Config.Reports (reports.go).
//
// # The end
//
// Drain (shutdown.go, stall.go) serves for a second more, and closes silent connections. Then
// nothing is taken in, not even a payload that has begun; requests that were taken in are answered,
// and the client finds the end of the stream after the last reply. A client that goes on sending
// has half a second until its socket is closed. Devices that were written to are flushed by a crew
// of threads (crew.go), which gives up those whose storage hangs.
//
// # The files
//
//	engine.go          Engine, and what the control plane calls
//	table.go           exports, and the devices that hold their bytes
//	device.go          a device: a descriptor or a mapping, and its facts
//	kernel.go          the seam to io_uring, and to the simulated kernel
//	layout.go          the memory of a loop, divided before anything runs
//	locked.go          memory registered with io_uring
//
//	loop.go            a loop and its turn: record, settle
//	token.go           which row a completion belongs to
//	budget.go          how much a turn does
//	poll.go            looking for work before sleeping
//	mail.go            letters from the control plane and other loops
//	list.go            lists of rows, linked by index
//
//	conn.go            a connection: from adoption to close
//	stage.go           what sockets are received into
//	receive.go         bytes from the socket become requests
//	reply.go           replies become one SENDMSG
//	chunk.go           structured replies
//	holes.go           zeroes that are not sent
//	stall.go           what time alone changes: eviction, the phases of a shutdown
//	patience.go        time in which the process did not run
//
//	admit.go           admission: a tag and memory, or a place in line
//	ledger.go          how much each connection and export may hold
//	queue.go           which connections wait, and which is next
//	feed.go            what is freed is offered to those that wait
//	lease.go           the pool of memory
//
//	tag.go             a request: its steps, from begin to release
//	parts.go           long requests, part by part
//	guard.go           the order of overlapping writes
//	disk.go            waves: reads and writes
//	pagecache.go       short writes into the page cache
//	memory.go          devices that are memory
//	range.go           TRIM and WRITE_ZEROES
//	readahead.go       CACHE
//	flush.go           FLUSH, shared
//	workers.go         the kernel's workers, by quota
//	lookup.go          BLOCK_STATUS
//	lookup_workers.go  goroutines that look block status up
//
//	count.go           counters
//	incident.go        what a loop reports beside its counters
//	reports.go         and the goroutine that passes it on
//	shutdown.go        Drain, the last flushes, Close
//	crew.go            jobs that may hang, each on a thread
//	must.go            broken invariants stop the process
//	trace.go           the last completions, for the panic
//	check_on.go, check_tags_on.go, check_off.go
//	                   under the tag invariants: lists, counts and leases agree after every turn
//
// # Departures from the first drawing
//
// Holes in structured replies to READ were to come from the file (SEEK_HOLE). They are found in the
// data instead, see holes.go: the result of a lookup before the read could be false by the time of
// the reply, and a lookup costs a system call and a lock of the file.
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
//     A turn that finds one completion costs less than the requests that wait for it lose.
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
//     because nothing is allocated.
//
// Considered and not built: shares by address or user (all machines of a host have one address, and
// a client that wants many addresses can have many); four times what is left as an export's share
// (the second of two disks that hang leaves a twenty-fifth, where half and half leave a quarter); a
// higher bound of workers without trials (64 writes to a frozen file system would need 64 workers,
// or keep those of all other devices).
//
// Not tried, for want of a network card or of more cores: SENDMSG_ZC (the loopback copies all the
// same), NAPI busy polling, placement by NUMA node.
package engine
