// RECV, SENDMSG and POLL_ADD, with the semantics of io_uring/net.c in Linux 6.18, which
// differential_test.go compares with the real kernel: MSG_WAITALL collects until all bytes have
// arrived or the connection ends; a partial result hides the error, which is then lost; a reset is
// reported once, afterwards reads end and sends fail with EPIPE.
//
// Invariant: a stream has at most one receive and one send in flight.

package sim

import (
	"encoding/binary"

	"ringnbd/engine/uring"
)

// admitRecv takes a RECV.
func (k *Kernel) admitRecv(o *op, rest *uring.SQE) {
	s := &o.sqe
	k.plainSocket(o, rest).polled = 0
	k.checkAlone(o)
	if s.Len == 0 {
		k.world.bug("%s of 0 bytes: its result could not be told from the end of the stream",
			o.name())
	}
	rest.OpcodeFlags &^= msgWaitAll | msgNoSignal
	rest.IoPrio &^= recvsendPollFirst
	rest.Addr, rest.Len = 0, 0
	o.into = true
	k.addMemory(o, s.Addr, uint64(s.Len), "buffer")
}

// admitSend takes a SENDMSG.
func (k *Kernel) admitSend(o *op, rest *uring.SQE) {
	s := &o.sqe
	w := k.world
	k.plainSocket(o, rest)
	k.checkAlone(o)
	if sock := o.node.sock; sock.out.ended && !sock.shut {
		w.bug("%s on descriptor %d after the end of sending", o.name(), s.Fd)
	}
	rest.OpcodeFlags &^= msgWaitAll | msgNoSignal | msgMore
	rest.IoPrio &^= recvsendPollFirst
	rest.Addr = 0
	if rest.Len == 1 { // liburing sets it, the kernel ignores it
		rest.Len = 0
	}
	// struct msghdr: name, namelen, iov, iovlen, control, controllen, flags. The kernel copies it
	// and the vector at submission.
	h := k.resolve(o, s.Addr, msghdrSize, "msghdr")
	word := func(at int) uint64 { return binary.LittleEndian.Uint64(h[at:]) }
	if word(0) != 0 || word(8) != 0 || word(32) != 0 || word(40) != 0 {
		w.bug("%s: msghdr with a name or control data: % x", o.name(), h)
	}
	iov, n := word(16), word(24)
	if n == 0 || n > iovMax {
		w.bug("%s: a vector of %d pieces; 1 to %d are possible", o.name(), n, iovMax)
	}
	v := k.resolve(o, iov, n*iovSize, "vector")
	for i := 0; i < len(v); i += iovSize {
		k.addMemory(o, binary.LittleEndian.Uint64(v[i:]), binary.LittleEndian.Uint64(v[i+8:]),
			"piece of a message")
	}
	if o.total == 0 {
		w.bug("%s of 0 bytes", o.name())
	}
}

// admitPoll takes a POLL_ADD.
func (k *Kernel) admitPoll(o *op, rest *uring.SQE) {
	k.plainSocket(o, rest)
	k.checkAlone(o)
	if o.sqe.OpcodeFlags&^(pollErr|pollHup) == 0 {
		k.world.bug("%s waits for nothing", o.name())
	}
	rest.OpcodeFlags &^= pollIn | pollOut | pollErr | pollHup | pollRdHup
}

// checkAlone checks that a stream has only one receive and one send in flight: two would
// interleave.
func (k *Kernel) checkAlone(o *op) {
	for _, other := range k.world.kernels {
		for _, f := range other.flight {
			if f.node == o.node && f.sqe.OpCode == o.sqe.OpCode {
				k.world.bug("%s on descriptor %d while %s is in flight on it", o.name(), o.sqe.Fd,
					f.name())
			}
		}
	}
}

// tryRecv moves bytes that have arrived, and reports whether the receive is complete.
func (k *Kernel) tryRecv(o *op) (res int32, flags uint32, done bool) {
	w, s := k.world, o.node.sock
	all := o.sqe.OpcodeFlags&msgWaitAll != 0
	if o.moved == 0 && !s.dead && chance(w.rng, w.mix.recvError) {
		s.client.excuse("receive error injected")
		return []int32{eCONNRESET, eTIMEDOUT, eNOBUFS, eNOMEM}[w.rng.IntN(4)], 0, true
	}
	if o.moved == 0 && chance(w.rng, w.mix.recvError) {
		return eINTR, 0, true
	}
	n := min(s.in.arrived, o.total-o.moved)
	if n > 1 && chance(w.rng, w.mix.shortRecv) {
		n = 1 + w.rng.IntN(n)
		if !all {
			w.mark(markRecvShort)
		}
	}
	if n > 0 {
		o.receive(s.in.take(n))
		o.moved += n
		if o.moved < o.total && all {
			return 0, 0, false
		}
		if s.in.arrived > 0 {
			flags = cqeSockNonEmpty
		}
		return int32(o.moved), flags, true
	}
	if s.reset == 0 && !s.in.atEnd() {
		return 0, 0, false
	}
	err := s.reset
	s.reset = 0
	if o.moved > 0 {
		w.mark(markRecvWaitAllPartial)
		return int32(o.moved), 0, true
	}
	return err, 0, true
}

// trySend moves bytes for which there is room, and reports whether the send is complete.
func (k *Kernel) trySend(o *op) (res int32, done bool) {
	w, s := k.world, o.node.sock
	if o.moved == 0 && !s.dead && chance(w.rng, w.mix.sendError) {
		s.client.excuse("send error injected")
		return []int32{eCONNRESET, eTIMEDOUT, eNOBUFS, eHOSTUNREAC}[w.rng.IntN(4)], true
	}
	if s.clientClosed && !s.dead {
		if s.pending == 0 {
			s.breakOff(eCONNRESET)
		}
		s.pending--
	}
	if s.dead || s.shut {
		w.mark(markSendToDead)
		err := s.reset
		s.reset = 0
		if err == 0 {
			err = ePIPE
		}
		if o.moved > 0 {
			return int32(o.moved), true
		}
		return err, true
	}
	n := min(o.total-o.moved, s.out.room())
	if s.clientClosed {
		n = o.total - o.moved
	}
	if n == 0 {
		w.mark(markSendBlocked)
		return 0, false
	}
	short := n > 1 && chance(w.rng, w.mix.shortSend)
	if short {
		n = 1 + w.rng.IntN(n)
	}
	if !s.clientClosed {
		s.out.send(w, o.source(o.moved, n))
	}
	o.moved += n
	if o.moved == o.total {
		return int32(o.moved), true
	}
	if o.sqe.OpcodeFlags&msgWaitAll != 0 && (!short || w.rng.IntN(2) == 0) {
		return 0, false
	}
	w.mark(markSendShort)
	return int32(o.moved), true
}

// tryPoll reports which of the requested events have happened.
func (k *Kernel) tryPoll(o *op) (res int32, done bool) {
	s := o.node.sock
	mask := uint32(0)
	if s.in.arrived > 0 || s.in.endSeen || s.dead {
		mask |= pollIn
	}
	if s.in.endSeen || s.dead {
		mask |= pollRdHup
	}
	if s.out.room() > 0 || s.dead {
		mask |= pollOut
	}
	if s.dead || s.in.endSeen && s.shut {
		mask |= pollHup
	}
	if s.reset != 0 {
		mask |= pollErr
	}
	mask &= o.sqe.OpcodeFlags | pollErr | pollHup
	if mask&pollIn != 0 {
		if s.polled++; s.polled > 20 {
			k.world.bug("descriptor %d was polled %d times and is readable, but nothing is "+
				"received: a loop that spins", o.sqe.Fd, s.polled)
		}
	}
	return int32(mask), mask != 0
}
