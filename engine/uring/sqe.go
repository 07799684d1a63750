// The writers of submissions. Every function takes an entry fresh from Ring.SQE, which is all zero,
// and sets only the fields that its operation has: a reserved field with a stale bit is EINVAL or,
// worse, a silent RWF_DSYNC.
//
// Invariant: only addresses inside an Arena go into an entry, never one of a Go object.

package uring

import (
	"github.com/pawelgaczynski/giouring"
	"golang.org/x/sys/unix"
)

// Operations, as they stand in SQE.OpCode. The simulated kernel has its own numbers, on purpose.
const (
	opNop        = giouring.OpNop
	opFsync      = giouring.OpFsync
	opReadFixed  = giouring.OpReadFixed
	opWriteFixed = giouring.OpWriteFixed
	opPoll       = giouring.OpPollAdd
	opSendMsg    = giouring.OpSendmsg
	opCancel     = giouring.OpAsyncCancel
	opFallocate  = giouring.OpFallocate
	opRead       = giouring.OpRead
	opWrite      = giouring.OpWrite
	opMadvise    = giouring.OpMadvise
	opFadvise    = giouring.OpFadvise
	opRecv       = giouring.OpRecv
	opCommand    = giouring.OpUringCmd
)

// fixedFile, in SQE.Flags, makes SQE.Fd an index into the registered files.
const fixedFile = giouring.SqeFixedFile

// Async, in SQE.Flags, gives the request to one of the kernel's workers at once, without a trial on
// the submitting thread.
const Async = giouring.SqeAsync

// completionMore, in CQE.Flags, says that the request goes on and will complete again (multishot).
const completionMore = giouring.CQEFMore

// commandDiscard, in SQE.Off of an opCommand, is BLOCK_URING_CMD_DISCARD, _IO(0x12, 0), Linux 6.12.
const commandDiscard = 0x1200

// Flags for the arguments below. Flags that only one caller needs are not repeated here: it takes
// them from x/sys/unix.
const (
	MsgWaitAll  = uint32(unix.MSG_WAITALL)
	MsgNoSignal = uint32(unix.MSG_NOSIGNAL)

	PollIn = uint32(unix.POLLIN)

	PollRdHup = uint32(unix.POLLRDHUP)

	// the data is on stable storage when the write completes: NBD's FUA
	WriteDsync = uint32(unix.RWF_DSYNC)

	fsyncDatasync = giouring.FsyncDatasync

	FallocateKeepSize  = uint32(unix.FALLOC_FL_KEEP_SIZE)
	FallocatePunchHole = uint32(unix.FALLOC_FL_PUNCH_HOLE)
	FallocateZeroRange = uint32(unix.FALLOC_FL_ZERO_RANGE)

	AdviceDontNeed = uint32(unix.MADV_DONTNEED)
	AdviceWillNeed = uint32(unix.MADV_WILLNEED) // posix_fadvise has the same number
)

// PrepNop completes at once with 0. KeepWorkers and tests use it.
func PrepNop(s *SQE, data uint64) {
	s.OpCode = opNop
	s.UserData = data
}

// PrepRecv receives up to n bytes from a socket into addr. flags are MSG_*; with MsgWaitAll the
// result is short only at the end of the stream or on an error. The descriptor must not be
// O_NONBLOCK, or an empty socket completes with EAGAIN.
func PrepRecv(s *SQE, data uint64, fd int32, addr uint64, n uint32, flags uint32) {
	s.OpCode = opRecv
	s.Fd = fd
	s.Addr = addr
	s.Len = n
	s.OpcodeFlags = flags
	s.UserData = data
}

// PrepSendMsg sends what the msghdr at that kernel address describes. The result may be short even
// with MsgWaitAll, and two sends in flight on one stream interleave: one at a time. The msghdr and
// its iovecs must stay until the completion.
func PrepSendMsg(s *SQE, data uint64, fd int32, msghdr uint64, flags uint32) {
	s.OpCode = opSendMsg
	s.Fd = fd
	s.Addr = msghdr
	s.Len = 1
	s.OpcodeFlags = flags
	s.UserData = data
}

// PrepPoll waits once for events (POLL*); the result is the events that occurred. POLLERR and
// POLLHUP always count. Tests use it.
func PrepPoll(s *SQE, data uint64, fd int32, events uint32) {
	s.OpCode = opPoll
	s.Fd = fd
	s.OpcodeFlags = events
	s.UserData = data
}

// PrepRead reads n bytes at off of a descriptor; an eventfd or a pipe ignores off.
func PrepRead(s *SQE, data uint64, fd int32, addr uint64, n uint32, off uint64) {
	s.OpCode = opRead
	s.Fd = fd
	s.Off = off
	s.Addr = addr
	s.Len = n
	s.UserData = data
}

// PrepReadFixed reads n bytes at off of a registered file into a registered buffer; addr to addr+n
// must lie inside that buffer. The result is short at the end of the file. rwflags are RWF_*.
func PrepReadFixed(s *SQE, data uint64, file uint32, buffer uint16, addr uint64, n uint32,
	off uint64, rwflags uint32) {
	fixed(s, opReadFixed, data, file, buffer, addr, n, off, rwflags)
}

// PrepWriteFixed writes n bytes from a registered buffer; WriteDsync in rwflags makes it durable
// before it completes.
func PrepWriteFixed(s *SQE, data uint64, file uint32, buffer uint16, addr uint64, n uint32,
	off uint64, rwflags uint32) {
	fixed(s, opWriteFixed, data, file, buffer, addr, n, off, rwflags)
}

// PrepReadFile is PrepReadFixed into memory that is not registered: the kernel looks its pages up
// and pins them for this one operation.
func PrepReadFile(s *SQE, data uint64, file uint32, addr uint64, n uint32, off uint64,
	rwflags uint32) {
	fixed(s, opRead, data, file, 0, addr, n, off, rwflags)
}

// PrepWriteFile is PrepWriteFixed from memory that is not registered.
func PrepWriteFile(s *SQE, data uint64, file uint32, addr uint64, n uint32, off uint64,
	rwflags uint32) {
	fixed(s, opWrite, data, file, 0, addr, n, off, rwflags)
}

func fixed(s *SQE, op uint8, data uint64, file uint32, buffer uint16, addr uint64, n uint32,
	off uint64, rwflags uint32) {
	s.OpCode = op
	s.Flags = fixedFile
	s.Fd = int32(file)
	s.Off = off
	s.Addr = addr
	s.Len = n
	s.OpcodeFlags = rwflags
	s.UserData = data
	s.BufIG = buffer
}

// PrepFsync makes what was written to a registered file durable; datasync leaves out metadata that
// reads do not need. It covers writes that have completed, not those that are in flight. It always
// runs on a kernel worker (100 % punted).
func PrepFsync(s *SQE, data uint64, file uint32, datasync bool) {
	s.OpCode = opFsync
	s.Flags = fixedFile
	s.Fd = int32(file)
	if datasync {
		s.OpcodeFlags = fsyncDatasync
	}
	s.UserData = data
}

// PrepFallocate is fallocate(2) on a registered file: mode is FALLOC_FL_*, off and n are in bytes.
// It always runs on a kernel worker, and a long range keeps that worker busy: slice it.
func PrepFallocate(s *SQE, data uint64, file uint32, mode uint32, off, n uint64) {
	s.OpCode = opFallocate
	s.Flags = fixedFile
	s.Fd = int32(file)
	s.Off = off
	s.Addr = n
	s.Len = mode
	s.UserData = data
}

// PrepDiscard discards n bytes at off of a registered block device, both multiples of its logical
// block. Linux 6.12; see Features.Discard. A device without discard completes with EOPNOTSUPP.
func PrepDiscard(s *SQE, data uint64, file uint32, off, n uint64) {
	s.OpCode = opCommand
	s.Flags = fixedFile
	s.Fd = int32(file)
	s.Off = commandDiscard
	s.Addr = off
	s.Addr3 = n
	s.UserData = data
}

// PrepFadvise is posix_fadvise(2) on n bytes at off of a registered file.
func PrepFadvise(s *SQE, data uint64, file uint32, off uint64, n uint32, advice uint32) {
	s.OpCode = opFadvise
	s.Flags = fixedFile
	s.Fd = int32(file)
	s.Off = off
	s.Len = n
	s.OpcodeFlags = advice
	s.UserData = data
}

// PrepMadvise is madvise(2) on n bytes of arena memory; it always runs on a kernel worker.
func PrepMadvise(s *SQE, data uint64, addr uint64, n uint32, advice uint32) {
	s.OpCode = opMadvise
	s.Fd = -1
	s.Addr = addr
	s.Len = n
	s.OpcodeFlags = advice
	s.UserData = data
}

// PrepCancel cancels the request with that user_data. It completes with 0, ENOENT (no such request)
// or EALREADY (it runs and will complete by itself); a cancelled request completes with ECANCELED,
// so there are always two completions.
func PrepCancel(s *SQE, data uint64, target uint64) {
	s.OpCode = opCancel
	s.Fd = -1
	s.Addr = target
	s.UserData = data
}

// prepCancelAll cancels everything on the ring: IORING_ASYNC_CANCEL_ANY, Linux 5.19.
func prepCancelAll(s *SQE, data uint64) {
	s.OpCode = opCancel
	s.Fd = -1
	s.OpcodeFlags = giouring.AsyncCancelAny | giouring.AsyncCancelAll
	s.UserData = data
}
