// Package uring is the wall around io_uring: the only package of ringnbd that uses unsafe, and the
// only one that imports giouring. Outside of it a ring is five verbs (Open, SQE, Enter, Reap,
// Close), shared memory is an Arena addressed by offset, and a submission is written by a Prep
// function.
//
//	ring.go         sets a ring up, queues, enters, reaps, closes
//	view.go         finds the pointers in giouring's hidden rings
//	sqe.go          has one writer of submissions per operation
//	arena.go        is memory that the kernel and Go share
//	words.go        is memory for large tables that are mostly never touched
//	register.go     registers buffers, files and the ring's descriptor; keeps workers
//	probe.go        finds out what this kernel can do
//	errors.go       says what is wrong and what to do
//	syscalls.go     has eventfds, shutdown, close, pwrite and the clock
//	fiemap.go       asks a file system for the extents of a file
//	bell.go         wakes a goroutine from a loop's thread
//	yield.go        gives the core to another thread
//	touch.go        looks at a path in a child process
//	careful_on.go   checks the thread on every Enter, in test builds;
//	careful_off.go  does not, in ordinary builds
//
// # Rules for the caller
//
// A ring belongs to one thread: lock the goroutine (runtime.LockOSThread) before Open, stay locked
// until Close. GOMAXPROCS must exceed the number of these threads, or a loop that wakes up waits
// for another goroutine to yield. No memory that the kernel uses may lie on a Go stack or heap:
// addresses come from Arena.Addr. Sockets are in blocking mode: io_uring arms its own poll, but
// answers EAGAIN on an O_NONBLOCK descriptor. Entries are submitted by Enter only. When SQE is nil,
// Enter(0, 0), and if it is still nil, Reap first. IOSQE_CQE_SKIP_SUCCESS is not used: every entry
// ends in one completion without CQE_F_MORE. Shut down in this order: end the sources (Shutdown),
// reap the last completion, Ring.Close, Arena.Close.
//
// # What of giouring is used, and what is not
//
// giouring v0.0.0-20230826085535-69588b89acb9 is a port of liburing 2.4 and no longer maintained.
// Used: the ring setup and mapping (QueueInitParams, QueueExit), struct definitions, constants,
// RegisterProbe and the raw Register. Its defects that would touch us, and the way round each:
//
//   - It does not link with Go 1.23 and newer (go:linkname of syscall.munmap): build with
//     GOFLAGS=-ldflags=-checklinkname=0; the Makefile exports it.
//   - Prepare functions leave OpcodeFlags, Addr3 and the padding of a reused entry as they were, so
//     MSG_NOSIGNAL or RWF_DSYNC leaks into the next operation: SQE returns zeroed entries and
//     sqe.go has its own writers. That also avoids PrepareSendZC and the path operations (they pass
//     the address of a slice header), PrepareTimeout and LinkTimeout (pointer to a pointer,
//     timespec on a dead stack frame), PrepareFilesUpdate, PrepareMsgRingFd and PrepareCmdSock.
//   - SubmitAndWaitTimeout hides its timespec from escape analysis in an integer: Enter has its own
//     call, and the timespec and its argument live in a page of the ring's own outside the heap.
//   - Params, Ring and the queues hide their fields, so there is no CQSIZE, no feature bits and no
//     way to the heads and tails: view.go finds the fields once, by name and type, and panics at
//     start if one is gone.
//   - PeekBatchCQE writes as many pointers as the slice holds, whatever is ready: Reap walks the
//     queue itself.
//   - RegisterFiles and its kin pass 8-byte numbers where the kernel reads 4 (the second file
//     becomes stdin) and drop the errno: register.go passes int32 by the raw Register.
//   - RegisterIOWQMaxWorkers has the same fault: LimitWorkers passes two 32-bit numbers.
//   - After its RegisterRingFd every Register uses the registered descriptor, which only Linux 6.3
//     knows, and UnregisterRingFd has its condition inverted, so QueueExit never gives the slot (16
//     per thread) back and the kernel keeps the ring until the thread exits: register.go does both
//     itself, on the real descriptor.
//   - With NO_SQARRAY it writes the identity array over the ring heads, and with NO_MMAP its sizes
//     are wrong: never set.
//   - BufRingAdd counts in 16 bits and BufRingCQAdvance has no release: provided-buffer rings are
//     not used.
//   - Setup and RingDontFork return a non-nil error on success: not called.
//
// # Kernels
//
// Linux 5.19 is the floor (COOP_TASKRUN with TASKRUN_FLAG, SUBMIT_ALL, cancel any). Newer ones
// bring SINGLE_ISSUER (6.0), DEFER_TASKRUN (6.1), BLOCK_URING_CMD_DISCARD (6.12) and NO_IOWAIT
// (6.15). Open tries flags, best first; Features says which were found. The code is for 64-bit
// little-endian machines.
//
// # Measured
//
// Two shared vCPUs (Intel Xeon, KVM), Linux 6.18, Go 1.26, best of several runs of bench_test.go:
//
//	a batch of NOPs, prepared, submitted, reaped           244 ns for 1
//	                                                      1157 ns for 32 (36 each)
//	                                                      4143 ns for 128 (32 each)
//	the same by an Enter that may block, with a timeout    360 ns for 1
//	                                                      1246 ns for 32 (39 each)
//	Enter with nothing to do: skipped; asking the kernel     5 ns; 218 ns
//	Notify (an eventfd); Now                               340 ns; 53 ns
//
// Found on the way, on Linux 6.18:
//   - A closed ring's memory stays charged to RLIMIT_MEMLOCK, and its files stay open and flock'ed,
//     for about 30 ms, until a kernel worker has torn the ring down; also when the process has
//     died. Close therefore unregisters both first and waits, and Open and RegisterBuffers try
//     again for a second before they report ENOMEM.
//   - Registering one more huge page of an arena (RegisterBuffer), which takes it from the machine,
//     took 0.03 to 3 ms on a busy machine with strace attached, 0.25 ms in the middle.
//   - The rings themselves count against RLIMIT_MEMLOCK (Config.Memory): 164 KiB for 512 entries
//     and 8192 completions.
package uring
