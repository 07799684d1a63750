// Package sim is a second kernel: it reads the 64-byte submissions that the engine writes, finds
// the memory they name through the engine's own arenas, and answers with the completions that Linux
// would answer with, in an order and with accidents that a seed decides. Around it are disks with a
// volatile cache, sockets with small buffers, and NBD clients that read slowly, send byte by byte,
// ask for nonsense and hang up in the middle of a payload. A checker knows what every byte of every
// disk may be at every moment.
//
// Everything happens in one goroutine and follows from the seed: a failure names it, and the same
// seed does the same again.
//
//	abi.go                    the numbers of the kernel's interface, written down a second time
//	world.go, run.go          the seed, the clock, the order in which loops, kernels, wires and clients move; the phases of a run
//	course.go                 loops as coroutines, which wait inside Enter as threads do
//	plan.go, mix.go           what a seed builds, and which accidents it is prone to
//	kernel.go, op.go          rings: submission, completion; one operation's way through the kernel
//	memory.go                 who owns which bytes while an operation is in flight
//	op_socket.go, socket.go   RECV, SENDMSG, POLL_ADD; byte streams
//	op_disk.go, disk.go       READ_FIXED to URING_CMD, FADVISE; a disk that forgets what was not flushed
//	op_plain.go               NOP, eventfd READ, MADVISE, ASYNC_CANCEL
//	context.go, lookup.go     meta contexts, and when the loops' questions about them are answered
//	client.go, load.go        the peers, and what they ask for
//	session.go, chunks.go     what a connection agreed on: other requests, and replies in chunks
//	parting.go                how they leave
//	request.go, verdict.go    one request seen from outside; which answers it may get
//	model.go                  what a disk may hold
//	trace.go, mark.go         what is printed when a run fails; what a good set of seeds must have met
//
// The simulated kernel is strict where Linux is forgiving. A submission that can never be right (a
// misaligned direct write, an address outside the arenas, a flag that the operation does not know,
// a field that must be zero, two sends in flight on one socket, memory given to two operations at
// once) is not answered with EINVAL: it ends the run, because it is a mistake of the engine and not
// an event it should survive.
//
// It is also honest about memory. From submission to completion the buffer of a receive or a read
// is the kernel's: the simulation fills it with rubbish at any time, and looks whether the engine
// wrote there. The source of a send or a write is read at completion, and must then still be what
// it was at submission. A buffer reused too early cannot hide.
package sim
