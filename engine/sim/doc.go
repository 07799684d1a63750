// Package sim is a second kernel: it reads the 64-byte submissions that the engine writes, finds
// the memory they name through the engine's own arenas, and answers with the completions that Linux
// would answer with, in an order and with accidents that a seed decides. Around it are disks with a
// volatile cache, sockets with small buffers, and NBD clients that read slowly, send byte by byte,
// send invalid requests and hang up in the middle of a payload. A checker knows what every byte of
// every disk may be at every moment.
//
// Everything happens in one goroutine and follows from the seed: a failure names its seed, and the
// same seed repeats the run.
//
// # Map
//
// The world and its run:
//
//	world.go      the seed, the clock, descriptors
//	run.go        the phases of a run (storm, calm, farewell), and the order in which loops,
//	              kernels, wires and clients move
//	coroutine.go  loops as coroutines, which wait inside Enter as threads do
//	plan.go       what a seed builds
//	view.go       exports that share a disk
//	layered.go    exports whose device is made of two disks
//	served.go     exports as the world knows them
//	operator.go   the operator, who changes what is served
//	mix.go        which accidents a seed is prone to
//	trace.go      what is printed when a run fails
//	mark.go       what a good set of seeds must have met
//
// The kernel:
//
//	abi.go        the numbers of the kernel's interface, written down a second time
//	kernel.go     rings: submission and completion
//	files.go      registered files
//	op.go         the way of one operation through the kernel
//	worker.go     io-wq: the workers that do what cannot be done at once
//	memory.go     who owns which bytes while an operation is in flight
//	op_socket.go  RECV, SENDMSG, POLL_ADD
//	socket.go     byte streams
//	op_disk.go    READ_FIXED to URING_CMD, FADVISE
//	disk.go       a disk that forgets what was not flushed
//	op_plain.go   eventfd READ, MADVISE, ASYNC_CANCEL
//	context.go    meta contexts
//	lookup.go     when the loops' BLOCK_STATUS lookups are answered
//
// The clients and the checker:
//
//	client.go   a client: it sends requests, and reads replies
//	load.go     which requests a client sends, and how it behaves
//	session.go  what a connection agreed on, and the requests that this allows
//	chunks.go   replies in chunks
//	parting.go  how a client leaves
//	request.go  one request seen from outside; which answers it may get
//	verdict.go  whether a reply may be what it is
//	model.go    what a disk may hold
//
// # Rules
//
// The simulated kernel is strict where Linux is forgiving. A submission that can never be right (a
// misaligned direct write, an address outside the arenas, a flag that the operation does not know,
// a field that must be zero, two sends in flight on one socket, memory given to two operations at
// once) is not answered with EINVAL: it ends the run, because it is a mistake of the engine and not
// an event that the engine should survive.
//
// It is also honest about memory. From submission to completion the buffer of a receive or a read
// is the kernel's: the simulation fills it with rubbish at any time, and checks whether the engine
// wrote there. The source of a send or a write is read at completion, and must then still be what
// it was at submission. A buffer reused too early cannot hide.
package sim
