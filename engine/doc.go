// Package engine serves the requests of NBD clients whose handshake engine/gate has done: one event
// loop per core, each with its own io_uring, its own memory and its own connections.
//
// # Where to look
//
//   - Where is a request admitted? admit.go: receive.go's parse calls admit, which checks it and
//     calls takeTag for its tag and all its memory. takeTag takes both or neither; without them the
//     connection waits. ledger.go says how much a connection may hold, queue.go which connection
//     is next, and feed.go lets waiting connections try again.
//   - Where is its order decided? guard.go: begin in tag.go enters the guard, and a write runs when
//     no earlier write to the same blocks of its device is left. Reads do not enter it: the
//     protocol orders no read after a write that is not answered yet.
//   - Who owns its memory? The request's tag (tag.go) holds a lease of the pool (lease.go), from
//     takeTag to release, whatever happens to the connection. Before that its bytes are in the
//     stage of the connection (stage.go). layout.go divides the memory of a loop.
//   - What happens when its client goes? conn.go: fail shuts the socket down and takes the
//     connection out of its line. Its writes that wait in the guard never run, its parked segments
//     are never issued, and a payload that has not arrived in full is dropped. Operations that were
//     issued run to their end; then the request gives up its claim, and no reply is sent. depart
//     frees the connection's row when neither the kernel nor a tag needs the row.
//   - Where is a new kind of device added? (1) device.go: its Kind, the facts that the data path
//     needs, and whether it keeps data and is on disk. (2) tag.go: its case in begin and run.
//     (3) disk.go for reads and writes, range.go for TRIM and WRITE_ZEROES, flush.go for FLUSH,
//     reply.go and holes.go for where the data of a reply lies. (4) engine/backing opens it.
//     memory.go is the smallest example. table.go has the devices of a server, and which export
//     has which.
//   - How does an export come, change or go while others are served? change.go is what the control
//     plane does, changeover.go what a loop does; departure.go follows an export out.
//   - What about a client that is too slow? stall.go. A block that a write covers in part? disk.go
//     (issueEdges, merge). Memory registered with io_uring? locked.go. The end of the server?
//     shutdown.go.
//
// # Words
//
//	row         an entry in a table of the loop; rows name each other by index
//	tag         a request in flight, and its row
//	lease       memory of the pool, a chain of pieces, held by one tag
//	region      a class of memory of the pool: small, or large
//	place       the index of an export, of a device or of a registered file, while it is served
//	generation  which of those that had a place is meant
//	base        where an export begins on its device: a partition's start
//	claim       the blocks of a write in the guard, from begin to answer
//	guard       the table of claims, which orders overlapping writes
//	stripe      the part of a device, 64 KiB or more, by which the guard finds claims
//	stage       the memory that a socket is received into: a connection's own, or a large stage
//	step        one part of the work of a request: reading edges, writing, flushing
//	wave        the disk operations of one step; each is a segment
//	piece       1 MiB of a lease
//	slice       the bytes that TRIM and WRITE_ZEROES work on at a time
//	part        the bytes of a long request that a loop with little memory serves at a time
//	turn        one io_uring_enter, and all work that follows from what completed
//	settle      what a turn does once for each connection that a completion concerned
//	line        the connections of one export that wait for memory or a tag
//	stake       the right of a line's first connection to memory that is freed (queue.go)
//	newcomer    a connection that has taken no reply yet
//	squeezed    said of a connection that has the most it may have while little is left (ledger.go)
//	parked      said of a segment that waits until its device may have one more io-wq worker
//	door        an address where engine/gate listens and negotiates, newstyle or oldstyle
//
// # The life of a request
//
//	socket bytes -> stage -> proto.Request -> tag + lease -> guard (writes) -> wave of segments
//	   -> ready list -> one SENDMSG -> tag and lease are given back
//
// In order:
//
//  1. Adoption. engine/gate has negotiated; Engine.Adopt picks the loop with the fewest
//     connections and posts the descriptor (mail.go). The loop gives the connection a row
//     (conn.go: adopt).
//  2. Listening (receive.go: listen). A single RECV takes in as many requests as have arrived, into
//     a stage: 2 KiB of the connection's own; a connection that sends more at a time borrows a
//     large stage of 256 KiB until it sends less (stage.go).
//  3. Recording (loop.go: record). A completion updates its row and marks the connection.
//     When all completions of the turn are recorded, every marked connection is settled once
//     (loop.go: settle): take requests in, send replies, listen again, depart. So the replies that
//     become ready in a turn leave together.
//  4. Admission (receive.go: parse; admit.go: admit). proto.Check holds all the rules; a request
//     that it refuses is answered without touching the disk. A request that it accepts takes a
//     tag and all the memory it will ever need, or stays in the stage, and the connection waits in
//     line without holding anything (admit.go: takeTag; queue.go; feed.go). Payloads are copied
//     from the stage into the lease; when 128 KiB or more are still to come, or no large stage is
//     left, they are received straight into the lease.
//  5. Ordering (guard.go). A write of any kind claims its blocks. It runs when no earlier write,
//     on any connection of any loop, overlaps them. A long request that is served in parts
//     (parts.go) claims the blocks of one part at a time.
//  6. The disk (disk.go). A wave is one READ_FIXED or WRITE_FIXED per piece (READ or WRITE where
//     the limit on locked memory leaves the pool unregistered: locked.go). A write that does not
//     begin and end on blocks first reads the blocks at its edges and fills in what surrounds its
//     data (issueEdges, merge). FUA is RWF_DSYNC on the write. FLUSH (flush.go) is one fdatasync
//     for all flushes that wait. TRIM and WRITE_ZEROES (range.go) go slice by slice. CACHE
//     (readahead.go), memory devices (memory.go) and short writes into the page cache
//     (pagecache.go) have ways of their own.
//  7. Completion (disk.go: segmentDone; tag.go: stepDone, answer). When the last segment of the
//     last step completes, the request is answered: a write gives up its claim, which may let other
//     writes run, and the tag joins the ready list of its connection. A connection's replies leave
//     in the order in which its requests completed.
//  8. Replying (reply.go; chunk.go and holes.go for structured replies). Headers and payloads of
//     all ready replies become one SENDMSG. Its completion gives tags and leases back (release),
//     and connections that wait for a tag or memory are tried again.
//
// Each turn has a budget of bytes to read, write, copy or look at (budget.go). It counts these
// because the size of a reply does not tell what the request cost. Work beyond the budget is left
// to the next turn, and short requests of other connections come first.
//
// BLOCK_STATUS goes another way (lookup.go). io_uring has no operation for it, so the request and
// the memory for its answer are handed to a worker outside of the loop (lookup_workers.go), which
// writes the chunks and hands the request back. A Context answers for one metadata context:
// engine/backing has the one for base:allocation; a dirty bitmap or an allocation depth would be
// others.
//
// # Whose memory
//
// The kernel sees addresses of two arenas only. The control arena has a pair of pages for each
// connection (message header, iovecs, reply headers, its own stage) and the large stages. The pool
// has two regions: small, for requests of up to a piece and some more, and large, for longer
// requests, so that neither kind starves the other. The pool is registered with the ring as buffers
// of 2 MiB, each when it is first used (locked.go). A loop with too little memory for a long
// request serves it in parts (parts.go). layout.go divides Config.Memory among the loops, and a
// loop's memory among the arenas and regions, before anything runs; no arena grows later.
//
// To hold a client back, the loop stops reading its socket, which fills up: while a connection
// waits for a tag or a lease, it is not read. What a connection may hold begins small and grows
// with the replies that it takes (admit.go: earn), to a third of the small region and half of the
// large region at most, so that clients that take nothing hold little. A connection that holds
// memory and makes no progress while other connections wait for that memory is closed (stall.go).
// Slowness closes a connection in only one other case: a TCP client that for five minutes
// acknowledges nothing, or takes none of what is ready for it (engine/gate, userTimeout).
//
// # Whose share
//
// Storage that hangs, and clients that take no replies, keep tags and memory for long, so they must
// never get all of either. Beside the limit above, the ledger (ledger.go) sets limits by what is
// free, after the request:
//
//	a connection                 holds half as much as is free
//	an export's connections      hold as much as is free, where there are several exports
//	all newcomers                hold a quarter of the whole
//	an export's newcomers        hold as much as is free of that, where there are several exports
//	small requests               have a reserve, if their connection holds little
//
// What a request holds while it waits (in the guard, for FUA, for a worker) is charged to its
// export. A connection that has to wait stands in the line of its export, and lines take turns
// (queue.go, feed.go), so that no connection waits for the disk of another export. A line is served
// in order of arrival, with one exception: smaller requests may overtake a large request at its
// head, if the head never has to wait for what they hold (queue.go: mayOvertake). A long READ gives
// its memory back piece by piece as the client takes it (reply.go: giveSent).
//
// The loop also shares out the kernel's own workers (io-wq), which run operations that would block
// (workers.go). It tries each operation with RWF_NOWAIT. If the kernel refuses, the operation goes
// to a worker within its device's quota; while the quota is used up, it is parked. Operations on
// FUSE, on network file systems and on devices that do not answer go to a worker without a trial,
// because a trial could put the loop to sleep.
//
// # Plans
//
// A device can be made of other devices: an overlay over its origin (engine/layer). Its plan
// decides what is done where; the loop does it (plan.go). A request on a planned device is
// admitted, ordered and answered as any other. Only issue and issueFlush compare one byte, and give
// a segment, a slice or a flush to the plan as a row (rows.go) instead of to the kernel:
//
//	segment of a request -> row -> Plan.Step -> wave -> a row for each segment on a device below
//
// What is below may be planned again. On a leaf a row runs as a request does, and what it asks for
// comes from, or goes to, the memory of the client's request: nothing is copied. When all segments
// of a wave are back, the plan is asked again. It can have a row wait, and has rows of its own,
// with memory of their own (own.go), for what it has to do for itself: writing its map, say. All
// that became runnable in a turn is stepped before the plan is asked which of the waiting rows may
// go on, so that one write of a map serves all requests of a turn.
//
// A planned device is at home in one loop, with every device that a plan connects with it; only
// there are its connections adopted, so that a plan needs no locks. Therefore every loop has room
// for MaxConnections where a device has a home (Config.Homed), and a single planned export has one
// core. TRIM and WRITE_ZEROES come to a plan in slices of up to 32 MiB, without FUA: a flush
// follows them. CACHE on a planned device is answered and nothing is done. BLOCK_STATUS asks the
// export's contexts, as it does for others.
//
// # Threads
//
// A loop is one goroutine locked to one thread, which created the ring
// (IORING_SETUP_SINGLE_ISSUER). No other thread reads or writes the loop's tables. The loop never
// touches a channel or a mutex; io_uring_enter is the only call in which it blocks. The control
// plane (the gate, shutdown, counters) speaks to it by letters (mail.go). Lookups of block status
// would block the loop, so they run on workers, 64 at most, and a request belongs to its worker
// until the lookup is over.
//
// Loops share three things. The table of exports: a table never changes, and a letter brings a loop
// the next one. A few words of each Device: whether a flush has failed, and which loop is flushing.
// And the guard, whose shards have a spin lock each: the only locks on the path of a request. A
// spin lock is held for some tens of nanoseconds (longer for claims of more than 2 MiB), never
// across a system call, and a waiting loop gives up the core when the holder was preempted.
//
// # Exports that come and go
//
// Engine.Apply makes a new table and posts it to all loops, one letter each however much has
// changed. Each loop brings its own rows up to date, between two completions, and answers when
// nothing is left in it of what has gone:
//
//	added      a row, and the file at a spare place of the ring's registered files; then
//	           clients can be adopted
//	altered    the facts that requests are checked against, from the next request on. Where an
//	           export may do less than before (read-only, smaller), the loop answers when the
//	           requests of before are over
//	removed    the export leaves: its connections end as at the end of the server, new requests
//	           meanwhile get ESHUTDOWN. When the last loop has no connection of it, what was
//	           written is flushed if no other export has the device. Then it is taken out of the
//	           table: the loop waits until the device has nothing in flight, empties the place of
//	           its file, and waits for the kernel to say that it has let go of it. Then the
//	           descriptor may be closed, the file's lock is free, and the places may be used again
//
// Nothing waits under a lock, so a disk that hangs keeps its own export in the table and nothing
// else. An ID is a place and its generation: who comes with an ID that has gone is refused, and
// never finds another export in its place. What is in flight in the kernel names a tag, or a
// device's place with its generation, and places are not given away before all of it is back.
//
// A loop keeps rows of its own and does not look into the table, because a request then loads no
// more than before, and needs no atomic. The price is that a letter costs the loop as much as has
// changed, and that places, once taken, stay allocated. The flush of an export that leaves is one
// of the ring's, by the same queue as those of clients: so there is one fsync of a device at a
// time, and one opinion of whether one has failed. The table of devices in the guard cannot move
// while loops use it, so its size is fixed at the start, with room for 16,384 more; so is the table
// of registered files.
//
// # Errors
//
// An error of ours: must panics, with the loop's last completions (trace.go). An error of the
// device: an errno in the reply; the connection stays. An error of the link: the connection is
// closed, and the reason counted (count.go). A connection is closed in three moves: it is marked;
// its socket is shut down, so that the kernel lets go of the socket; and when neither the kernel
// nor a tag needs its row, the row is given back (conn.go: depart).
//
// What people should know of (a disk that failed, a session that ended) the loop does not log. It
// writes a disk's failure into a queue of reports that is there from the start, and what a session
// did into the Client that came with the connection, and wakes a goroutine of the control plane
// (incident.go), which passes both on to Config.Reports (reports.go).
//
// # The end
//
// Drain (shutdown.go, stall.go) serves for a second more, and closes silent connections. Then
// nothing more is taken in: a WRITE whose payload has not arrived in full is dropped, complete
// requests are answered, and the client finds the end of the stream after the last reply. A client
// that goes on sending has half a second until its socket is closed. Devices that were written to
// are flushed by a crew of threads (crew.go), which gives up devices whose storage hangs.
//
// # The files
//
//	engine.go          Engine, and what the control plane calls
//	table.go           exports, and the devices that hold their bytes
//	places.go          which places of the table are taken
//	change.go          exports are added, altered and removed: what the control plane does
//	departure.go       and how it sees off what was removed
//	changeover.go      how a loop takes on a new table
//	device.go          a device: a descriptor or a mapping, and its facts
//	kernel.go          the seam to io_uring, and to the simulated kernel
//	layout.go          the memory of a loop, divided before anything runs
//	locked.go          the pool registered with io_uring, as it is first used
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
//	stall.go           the tick: slow clients that others wait for, the phases of a shutdown
//	patience.go        time in which the process did not run
//
//	admit.go           admission: a tag and memory, or a place in line
//	ledger.go          how much each connection and export may hold
//	queue.go           which connections wait, and which is next
//	feed.go            what is freed is offered to those that wait
//	lease.go           the pool of memory
//
//	tag.go             a request: its row and steps, from begin to release
//	parts.go           long requests, part by part
//	guard.go           the order of overlapping writes
//	disk.go            waves: reads and writes, partial blocks at the edges, FUA
//	pagecache.go       short writes into the page cache
//	memory.go          devices that are memory
//	range.go           TRIM and WRITE_ZEROES
//	readahead.go       CACHE
//	flush.go           FLUSH, shared
//	workers.go         the kernel's workers, by quota
//	plan.go            planned devices: steps of plans, segments on the devices below
//	rows.go            rows, the tags of what plans are busy with
//	own.go             the coming and going of planned devices, and their own rows
//	lookup.go          BLOCK_STATUS
//	lookup_workers.go  goroutines that look block status up
//
//	count.go           counters
//	clients.go         the traffic of each client
//	incident.go        what a loop reports beside its counters: failed disks, ended sessions
//	reports.go         the goroutine that passes reports on to Config.Reports
//	shutdown.go        Drain, the last flushes, Close
//	crew.go            jobs that may hang, each on a thread
//	must.go            broken invariants stop the process
//	trace.go           the last completions, for the panic
//	check_on.go, check_tags_on.go, check_rows_on.go, check_off.go
//	                   with -tags invariants: lists, counts and leases agree after every turn
//
// # Departures from the first drawing
//
// Holes in structured replies to READ were to come from the file (SEEK_HOLE). They are found in the
// data instead, see holes.go: the result of a lookup before the read could be false by the time of
// the reply, and a lookup costs a system call and a lock of the file.
//
// There is no interface Device. The four kinds of flat device (file, block device, null, memory)
// need one switch each for reads, writes and ranges.
//
// Rows of plans were to be promised: a request would have reserved, when it is admitted, the tags
// of all rows that it can come to need. A wave has up to eight segments, so that a WRITE of 64 MiB
// over two plans would have reserved more tags than a loop has. Instead rows have a table of their
// own, each device of a tree is sure of one, and segments wait in the line of their device for more
// (rows.go says why that cannot come to a deadlock). A request that waits there holds its memory,
// which the ledger bounds. Reads and writes of a plan were to go straight to the ring, as segments
// of the row's own wave. They have a row each: the wave's segments lie on several devices, and each
// can have to wait for a worker of its device, or be followed by a flush for FUA; a row of its own
// is in one list at a time and runs through the code of requests. A hop of 4 KiB, step and both
// rows, takes 0.2 to 0.4 µs of CPU (BenchmarkHop). A plan's Leave, Lost, Cut, Join, Tell, Tick,
// Alarm and Work are not there, because an overlay needs none of them: Then and Op have room for
// more, and a plan that wants to be told something can implement an interface beside Plan, as it
// does for layer.Owner. A row below another row is not cancelled when the client goes; to the plan
// above, that would look like a failure of its device.
//
// Sockets are not registered files: measured gain within noise. An idle connection was
// to be armed with a poll and to hold nothing; a receive into 2 KiB of its own saves the poll, and
// the queue for buffers.
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
//     each, and 80 without. The result depends on how the scheduler places the threads of the
//     client, the loop and the worker on two cores.
//   - The collector switched off: it does not run while requests are served (GODEBUG=gctrace=1),
//     because nothing is allocated.
//
// Considered and not built:
//
//   - Shares by address or user: all machines of a host have one address, and a client that wants
//     many addresses can have many.
//   - An export that may hold four times what stays free, instead of as much as stays free: two
//     disks that hang would leave 1/25 to all others, where they leave a quarter now.
//   - A higher bound of io-wq workers without trials: 64 writes to a frozen file system would need
//     64 workers, or keep those of all other devices.
//   - A range of a device owned by one loop, and messages to it instead of the guard: a wake-up (1
//     µs and more) for half of all writes on two loops. The guard's lock costs an uncontended
//     compare-and-swap.
//   - Lock-free tables of claims: they need a scan of every other loop's claims, or lose the exact
//     order of arrival. Failover needs that order: when a client sends a write again, the first
//     copy, which may still be on its way, must not land after the second.
//
// Not tried, for want of a network card or of more cores: SENDMSG_ZC (the loopback copies all the
// same), NAPI busy polling, placement by NUMA node.
package engine
