// The operations that use neither a stream nor a disk: eventfd reads, MADVISE, ASYNC_CANCEL. (NOP
// needs no code.)
//
// Invariant: these operations never fail by an accident of the mix.

package sim

import (
	"encoding/binary"

	"ringnbd/engine/uring"
)

// kernelPage is the size of a page in bytes.
const kernelPage = 4096

// admitEventRead takes a READ of an eventfd.
func (k *Kernel) admitEventRead(o *op, rest *uring.SQE) {
	s := &o.sqe
	o.node = k.world.node(s.Fd)
	if o.node.event == nil {
		k.world.bug("%s on descriptor %d, which is not an eventfd", o.name(), s.Fd)
	}
	if s.Len < 8 {
		k.world.bug("%s of an eventfd into %d bytes; it takes 8", o.name(), s.Len)
	}
	rest.Fd, rest.Addr, rest.Len, rest.Off = 0, 0, 0, 0
	o.into = true
	k.addMemory(o, s.Addr, uint64(s.Len), "buffer")
	o.total = 8
}

// tryEventRead completes a READ of an eventfd whose count is not zero.
func (k *Kernel) tryEventRead(o *op) (res int32, done bool) {
	e := o.node.event
	if e.count == 0 {
		return 0, false
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], e.count)
	e.count = 0
	o.receive(b[:])
	return 8, true
}

// admitMadvise takes a MADVISE.
func (k *Kernel) admitMadvise(o *op, rest *uring.SQE) {
	s := &o.sqe
	// the kernel does not look at the descriptor
	rest.Addr, rest.Len, rest.OpcodeFlags, rest.Fd = 0, 0, 0, 0
	if s.Addr%kernelPage != 0 || s.Len == 0 || s.Len%kernelPage != 0 {
		k.world.bug("%s of %d bytes at %#x: not whole pages", o.name(), s.Len, s.Addr)
	}
	switch s.OpcodeFlags {
	case madvDontNeed, madvFree, madvPageout:
		o.into = s.OpcodeFlags != madvPageout
		k.addMemory(o, s.Addr, uint64(s.Len), "advised range")
	case madvWillNeed, madvHugepage, madvCold, madvPopulateRead, madvPopulateWrite:
		k.resolve(o, s.Addr, uint64(s.Len), "advised range")
	default:
		k.world.bug("%s with advice %d", o.name(), s.OpcodeFlags)
	}
}

// tryMadvise completes a MADVISE; freed memory reads as zeroes.
func (k *Kernel) tryMadvise(o *op) int32 {
	if o.into {
		k.checkUntouched(o)
		for _, s := range o.own {
			clear(s.b)
		}
		o.sum = sum(o.own)
	}
	return 0
}

// tryCancel looks for the oldest operation with the given user_data. An operation that waits for a
// client is cancelled, with a partial result if it has one; an operation that the disk is doing
// goes on (io_uring/cancel.c: found but running is EALREADY, not found is ENOENT).
func (k *Kernel) tryCancel(o *op) int32 {
	var target *op
	for _, f := range k.flight {
		if f != o && f.sqe.UserData == o.sqe.Addr && (target == nil || f.serial < target.serial) {
			target = f
		}
	}
	if target == nil {
		return eNOENT
	}
	switch target.sqe.OpCode {
	case opRecv, opSendMsg, opPollAdd, opRead:
		if target.node.disk != nil {
			break
		}
		res := eCANCELED
		if target.moved > 0 {
			res = int32(target.moved)
		}
		k.post(target, res, 0)
		return 0
	case opFsync, opFallocate: // on the worker's list until it starts
		if target.due > k.world.clock && k.world.rng.IntN(2) == 0 {
			k.post(target, eCANCELED, 0)
			return 0
		}
	}
	return eALREADY
}
