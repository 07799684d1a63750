// The numbers of the kernel's interface, from include/uapi/linux and not from the engine's ring
// package: a number that both took from the same place could be wrong in both.
//
// Invariant: no number here is computed from, or imported with, the engine's own.

package sim

import "syscall"

// Opcodes (include/uapi/linux/io_uring.h, enum io_uring_op).
const (
	opNop        = 0
	opFsync      = 3
	opReadFixed  = 4
	opWriteFixed = 5
	opPollAdd    = 6
	opSendMsg    = 9
	opCancel     = 14
	opFallocate  = 17
	opRead       = 22
	opWrite      = 23
	opFadvise    = 24
	opMadvise    = 25
	opRecv       = 27
	opUringCmd   = 46
)

// opNames has the names of the opcodes.
var opNames = map[uint8]string{
	opNop: "NOP", opFsync: "FSYNC", opReadFixed: "READ_FIXED", opWriteFixed: "WRITE_FIXED",
	opPollAdd: "POLL_ADD", opSendMsg: "SENDMSG",
	opCancel: "ASYNC_CANCEL", opFallocate: "FALLOCATE", opRead: "READ", opWrite: "WRITE",
	opFadvise: "FADVISE", opMadvise: "MADVISE", opRecv: "RECV", opUringCmd: "URING_CMD",
}

// Flags, by the header that defines them.
const (
	sqeFixedFile = 1 << 0 // linux/io_uring.h
	sqeAsync     = 1 << 4

	cqeSockNonEmpty = 1 << 2 // linux/io_uring.h: more to read on the socket

	recvsendPollFirst = 1 << 0 // linux/io_uring.h, in ioprio

	fsyncDatasync = 1 << 0 // linux/io_uring.h

	rwfDsync  = 2 // linux/fs.h
	rwfNowait = 8

	msgNoSignal = 0x4000 // linux/socket.h
	msgWaitAll  = 0x100
	msgMore     = 0x8000

	pollIn    = 0x1 // asm-generic/poll.h
	pollOut   = 0x4
	pollErr   = 0x8
	pollHup   = 0x10
	pollRdHup = 0x2000

	fallocKeepSize  = 0x01 // linux/falloc.h
	fallocPunchHole = 0x02
	fallocZeroRange = 0x10

	cmdDiscard = 0x12 << 8 // linux/blkdev.h: BLOCK_URING_CMD_DISCARD = _IO(0x12, 0), Linux 6.12

	madvWillNeed      = 3 // asm-generic/mman-common.h
	madvDontNeed      = 4
	madvFree          = 8
	madvHugepage      = 14
	madvCold          = 20
	madvPageout       = 21
	madvPopulateRead  = 22
	madvPopulateWrite = 23

	fadvWillNeed = 3 // linux/fadvise.h

	iovMax     = 1024 // linux/uio.h: UIO_MAXIOV
	iovSize    = 16
	msghdrSize = 56

	fixedShift = 30 // a registered buffer is at most 1 GiB
)

// Results of operations are negative errno values.
const (
	eINTR       = -int32(syscall.EINTR)
	eIO         = -int32(syscall.EIO)
	eAGAIN      = -int32(syscall.EAGAIN)
	eBUSY       = -int32(syscall.EBUSY)
	eNOMEM      = -int32(syscall.ENOMEM)
	eNOSPC      = -int32(syscall.ENOSPC)
	eNOENT      = -int32(syscall.ENOENT)
	ePIPE       = -int32(syscall.EPIPE)
	eOPNOTSUPP  = -int32(syscall.EOPNOTSUPP)
	eNOBUFS     = -int32(syscall.ENOBUFS)
	eCONNRESET  = -int32(syscall.ECONNRESET)
	eTIMEDOUT   = -int32(syscall.ETIMEDOUT)
	eALREADY    = -int32(syscall.EALREADY)
	eCANCELED   = -int32(syscall.ECANCELED)
	eDQUOT      = -int32(syscall.EDQUOT)
	eHOSTUNREAC = -int32(syscall.EHOSTUNREACH)
)
