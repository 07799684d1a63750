// READ_FIXED, WRITE_FIXED, READ and WRITE of registered files, FSYNC, FALLOCATE, FADVISE and the
// discard command of block devices, on a disk. The checks at submission are those of O_DIRECT and
// of the block layer; a misaligned transfer works on some file systems and fails on others, so it
// ends the run here.
//
// Invariant: an operation that was admitted is aligned and lies inside its export; it fails only by
// an accident, or because the plan says that its disk cannot do it.

package sim

import "ringnbd/engine/uring"

// admitTransfer takes a READ, READ_FIXED, WRITE or WRITE_FIXED.
func (k *Kernel) admitTransfer(o *op, rest *uring.SQE) {
	s, w := &o.sqe, k.world
	d := k.fixedFile(o, rest)
	o.into = s.OpCode == opReadFixed || s.OpCode == opRead
	if !o.into {
		rest.OpcodeFlags &^= rwfDsync
	}
	rest.OpcodeFlags &^= rwfNowait
	rest.Flags &^= sqeAsync
	k.admitWay(o, d)
	rest.Addr, rest.Len, rest.Off, rest.BufIG = 0, 0, 0, 0
	k.checkRange(o, s.Off, uint64(s.Len))
	if !o.into {
		k.checkWritable(o)
	}
	if b := uint64(d.plan.Block); s.Off%b != 0 || uint64(s.Len)%b != 0 || s.Addr%b != 0 {
		w.bug("%s is not aligned to the disk's %d-byte blocks: offset %d, length %d, address %#x",
			o.name(), b, s.Off, s.Len, s.Addr)
	}
	k.addMemory(o, s.Addr, uint64(s.Len), "buffer")
	if s.OpCode == opReadFixed || s.OpCode == opWriteFixed {
		k.checkRegistered(o)
	} else if s.BufIG != 0 {
		w.bug("%s names registered buffer %d", o.name(), s.BufIG)
	} else {
		w.mark(markPlainBuffer)
	}
	o.due = w.clock + w.delay(w.mix.diskDelayNanos)
	if o.refused = k.wouldBlock(o); o.refused {
		o.due = w.clock
	}
}

// checkRegistered checks that a fixed transfer lies inside the buffer that it names, and that this
// buffer is registered.
func (k *Kernel) checkRegistered(o *op) {
	s, w := &o.sqe, k.world
	if k.fixed == nil {
		w.bug("%s although no buffers are registered", o.name())
	}
	off, ok := k.fixed.Find(s.Addr)
	if last := off + uint64(s.Len) - 1; !ok || off>>k.shift != uint64(s.BufIG) ||
		last>>k.shift != uint64(s.BufIG) {
		w.bug("%s: registered buffer %d does not cover %d bytes at %#x (arena offset %#x, in "+
			"the registered arena: %t)", o.name(), s.BufIG, s.Len, s.Addr, off, ok)
	}
	if !k.registered[s.BufIG] {
		w.bug("%s: buffer %d is not registered", o.name(), s.BufIG)
	}
}

// admitFsync takes an FSYNC.
func (k *Kernel) admitFsync(o *op, rest *uring.SQE) {
	d := k.fixedFile(o, rest)
	rest.OpcodeFlags &^= fsyncDatasync
	o.epoch, o.worker = d.epoch, true
	o.due = k.world.clock + k.world.delay(k.world.mix.slowDelayNanos)
}

// admitFallocate takes a FALLOCATE.
func (k *Kernel) admitFallocate(o *op, rest *uring.SQE) {
	s, w := &o.sqe, k.world
	d := k.fixedFile(o, rest)
	rest.Off, rest.Addr, rest.Len = 0, 0, 0 // offset, length, mode
	if s.Len != fallocPunchHole|fallocKeepSize && s.Len != fallocZeroRange|fallocKeepSize {
		w.bug("%s with mode %#x", o.name(), s.Len)
	}
	o.worker = true
	k.checkRange(o, s.Off, s.Addr)
	k.checkWritable(o)
	if b := uint64(d.plan.Block); d.plan.Backing == Block && (s.Off%b != 0 || s.Addr%b != 0) {
		w.bug("%s is not aligned to the device's %d-byte blocks: offset %d, length %d", o.name(), b,
			s.Off, s.Addr)
	}
	o.due = w.clock + w.delay(w.mix.slowDelayNanos)
}

// admitDiscard takes a URING_CMD.
func (k *Kernel) admitDiscard(o *op, rest *uring.SQE) {
	s, w := &o.sqe, k.world
	d := k.fixedFile(o, rest)
	rest.Addr, rest.Addr3 = 0, 0 // offset, length
	if s.Off != cmdDiscard {
		w.bug("%s with command %#x; only discard (%#x) is known", o.name(), s.Off, cmdDiscard)
	}
	rest.Off = 0
	if d.plan.Backing != Block {
		w.bug("%s on a regular file", o.name())
	}
	k.checkRange(o, s.Addr, s.Addr3)
	k.checkWritable(o)
	if b := uint64(d.plan.Block); s.Addr%b != 0 || s.Addr3%b != 0 {
		w.bug("%s is not aligned to the device's %d-byte blocks: offset %d, length %d", o.name(), b,
			s.Addr, s.Addr3)
	}
	o.due = w.clock + w.delay(w.mix.slowDelayNanos)
}

// admitFadvise takes a request to read ahead. With O_DIRECT there is no page cache to read into:
// the engine must not ask for it.
func (k *Kernel) admitFadvise(o *op, rest *uring.SQE) {
	s, w := &o.sqe, k.world
	d := k.fixedFile(o, rest)
	rest.Off, rest.Len, rest.OpcodeFlags = 0, 0, 0 // offset, length, advice
	if s.OpcodeFlags != fadvWillNeed {
		w.bug("%s with advice %d", o.name(), s.OpcodeFlags)
	}
	if d.plan.Block != 1 {
		w.bug("%s on a disk that is not read through the page cache", o.name())
	}
	k.checkRange(o, s.Off, uint64(s.Len))
	w.mark(markAdvised)
	o.worker = true
	o.due = w.clock + w.delay(w.mix.slowDelayNanos)
}

// checkRange checks that a range lies inside the export: the engine has checked every request
// against its size.
func (k *Kernel) checkRange(o *op, off, n uint64) {
	if size := o.node.disk.reach(); n == 0 || off > size || n > size-off {
		k.world.bug("%s of %d bytes at %d, on a disk of %d bytes", o.name(), n, off, size)
	}
}

// checkWritable checks that the export may be changed.
func (k *Kernel) checkWritable(o *op) {
	if o.node.disk.plan.ReadOnly() || !o.node.disk.writable() {
		k.world.bug("%s on a read-only export", o.name())
	}
}

// wholeBlocks rounds a shortened transfer down to whole blocks of the device; a buffered file may
// stop anywhere.
func (d *disk) wholeBlocks(n int) int { return n - n%int(d.plan.Block) }

// tryDiskRead completes a read.
func (k *Kernel) tryDiskRead(o *op) int32 {
	w, d := k.world, o.node.disk
	lo, hi := o.sqe.Off, o.sqe.Off+uint64(o.total)
	if o.refused {
		return k.refusedResult(d)
	}
	if chance(w.rng, w.mix.diskAgain) {
		w.mark(markDiskAgain)
		return d.recordFault(o, lo, hi, []int32{eAGAIN, eINTR}[w.rng.IntN(2)])
	}
	if chance(w.rng, w.mix.readError) {
		w.mark(markDiskError)
		return d.recordFault(o, lo, hi, eIO)
	}
	n := o.total
	if chance(w.rng, w.mix.shortRead) {
		n = max(int(d.plan.Block), d.wholeBlocks(1+w.rng.IntN(n)))
		if end := (lo + uint64(n)) / sectorSize * sectorSize; d.plan.Block == 1 && end > lo {
			// the engine reads the rest later: a sector read in two halves could have changed in
			// between
			n = int(end - lo)
		} else if d.plan.Block == 1 {
			n = o.total
		}
	}
	if left := int(max(d.length, lo) - lo); n > left {
		n = left
		w.mark(markTruncatedFile)
	}
	if n < o.total {
		w.mark(markReadShort)
	}
	o.receive(d.cache[lo : lo+uint64(n)])
	return int32(n)
}

// tryDiskWrite completes a write, or changes some of its blocks before.
func (k *Kernel) tryDiskWrite(o *op) (res int32, done bool) {
	w, d := k.world, o.node.disk
	lo, hi := o.sqe.Off, o.sqe.Off+uint64(o.total)
	k.checkUntouched(o)
	if o.refused {
		return k.refusedResult(d), true
	}
	if chance(w.rng, w.mix.early) {
		d.putSome(lo, o.source(0, o.total), w.rng.IntN)
		// later than now, or it would look as if it could not go on
		o.due = w.clock + 1 + w.delay(w.mix.diskDelayNanos)
		return 0, false
	}
	switch {
	case chance(w.rng, w.mix.diskAgain):
		w.mark(markDiskAgain)
		return d.recordFault(o, lo, hi, []int32{eAGAIN, eINTR}[w.rng.IntN(2)]), true
	case chance(w.rng, w.mix.writeError):
		w.mark(markDiskError)
		d.putSome(lo, o.source(0, o.total), w.rng.IntN)
		k.failSync(o)
		return d.recordFault(o, lo, hi, []int32{eIO, eIO, eTIMEDOUT}[w.rng.IntN(3)]), true
	case chance(w.rng, w.mix.writeFull):
		w.mark(markNoSpace)
		k.failSync(o)
		return d.recordFault(o, lo, hi, []int32{eNOSPC, eDQUOT}[w.rng.IntN(2)]), true
	}
	n := o.total
	if chance(w.rng, w.mix.shortWrite) {
		if n = max(int(d.plan.Block), d.wholeBlocks(1+w.rng.IntN(n))); n < o.total {
			w.mark(markWriteShort)
		}
	}
	// A buffered write may end inside a sector. The rest of that sector changes with it all the
	// same, because the model does not look inside sectors.
	reach := min(uint64(o.total), (lo+uint64(n)+sectorSize-1)/sectorSize*sectorSize-lo)
	d.put(lo, o.source(0, int(reach)))
	if o.sqe.OpcodeFlags&rwfDsync != 0 {
		d.persist(lo, lo+uint64(n))
	}
	return int32(n), true
}

// failSync lets the flush of a write with RWF_DSYNC be what fails, sometimes. Its only report is
// the result of the write, whatever errno that is (mapping_set_error), and all that was dirty is
// dropped.
func (k *Kernel) failSync(o *op) {
	if w := k.world; o.sqe.OpcodeFlags&rwfDsync != 0 && w.rng.IntN(2) == 0 {
		w.mark(markSyncFailed)
		o.node.disk.failFlush(w.rng)
		o.dropped = true
	}
}

// Pwrite is pwrite(2) into the page cache of a buffered file, called by the loop's own thread: it
// happens at once, and may fail like any write.
func (k *Kernel) Pwrite(fd int, addr uint64, n uint32, off uint64) int32 {
	w := k.world
	o := &op{node: w.node(int32(fd))}
	o.sqe.OpCode, o.sqe.Fd, o.sqe.Off, o.sqe.Addr, o.sqe.Len = opWriteFixed, int32(fd), off, addr, n
	d := o.node.disk
	if d == nil || d.plan.Backing != File || d.plan.Block != 1 {
		w.bug("pwrite to descriptor %d, which is not a buffered file", fd)
	}
	k.checkRange(o, off, uint64(n))
	k.checkWritable(o)
	k.addMemory(o, addr, uint64(n), "buffer")
	k.takeMemory(o)
	if d.plan.Frozen && d.isHung() {
		w.bug("pwrite to descriptor %d, whose file system is frozen: the loop sleeps", fd)
	}
	w.note("pwrite", "loop fd offset length", int64(k.id), int64(fd), int64(off), int64(n))
	w.clock += w.delay(2e6)
	early := w.mix.early
	w.mix.early = 0 // nothing else happens meanwhile
	res, _ := k.tryDiskWrite(o)
	w.mix.early = early
	return res
}

// putSome writes some of the blocks, never all, as a write that is in flight or has failed.
func (d *disk) putSome(off uint64, b []byte, intN func(int) int) {
	blocks := int((off+uint64(len(b))-1)/d.unit - off/d.unit + 1)
	skip := intN(blocks)
	for i := range blocks {
		n := min(uint64(len(b)), d.unit-off%d.unit)
		if i != skip && intN(2) == 0 {
			d.put(off, b[:n])
		}
		off, b = off+n, b[n:]
	}
}

// tryFsync completes an FSYNC.
func (k *Kernel) tryFsync(o *op) int32 {
	w, d := k.world, o.node.disk
	if chance(w.rng, w.mix.diskAgain) {
		w.mark(markDiskAgain)
		return d.recordFault(o, 0, d.plan.Size, []int32{eAGAIN, eINTR}[w.rng.IntN(2)])
	}
	if chance(w.rng, w.mix.fsyncError) || w.mix.fsyncError > 0 && k.raceRivalFsync(o) {
		w.mark(markFsyncFailed)
		d.failFlush(w.rng)
		return d.recordFault(o, 0, d.plan.Size, []int32{eIO, eIO, eNOSPC}[w.rng.IntN(3)])
	}
	d.flush(o.epoch)
	return 0
}

// raceRivalFsync reports whether another ring's fsync of the same disk is in flight. An engine must
// not let that happen: only one of the two gets the error, and if the other is seen first, it says
// that all is well. So, if there is a rival, this loop is made to see its own fsync, which fails,
// late.
func (k *Kernel) raceRivalFsync(o *op) bool {
	for _, other := range k.world.kernels {
		for _, f := range other.flight {
			if other != k && f.node == o.node && f.sqe.OpCode == opFsync {
				k.lag = f.due + 1e6
				return true
			}
		}
	}
	return false
}

// tryFallocate completes a FALLOCATE.
func (k *Kernel) tryFallocate(o *op) int32 {
	w, d := k.world, o.node.disk
	lo, hi := o.sqe.Off, o.sqe.Off+o.sqe.Addr
	punch := o.sqe.Len&fallocPunchHole != 0
	switch {
	case punch && !d.plan.Punch, !punch && !d.plan.ZeroRange, chance(w.rng, w.mix.unsupported):
		w.mark(markUnsupported)
		return d.recordFault(o, lo, hi, eOPNOTSUPP)
	case d.plan.Backing == Block && chance(w.rng, w.mix.busy):
		w.mark(markDiskBusy)
		d.zero(lo, (lo+w.rng.Uint64N(hi-lo))/d.unit*d.unit, false)
		return d.recordFault(o, lo, hi, eBUSY)
	case chance(w.rng, w.mix.diskAgain):
		w.mark(markDiskAgain)
		return d.recordFault(o, lo, hi, eINTR)
	case chance(w.rng, w.mix.writeError):
		w.mark(markDiskError)
		d.zero(lo, (lo+w.rng.Uint64N(hi-lo))/d.unit*d.unit, punch && d.plan.Backing == File)
		return d.recordFault(o, lo, hi, eIO)
	case !punch && chance(w.rng, w.mix.writeFull):
		w.mark(markNoSpace)
		return d.recordFault(o, lo, hi, eNOSPC)
	}
	d.zero(lo, min(hi, d.length), punch && d.plan.Backing == File)
	return 0
}

// tryDiscard completes a discard.
func (k *Kernel) tryDiscard(o *op) int32 {
	w, d := k.world, o.node.disk
	lo, hi := o.sqe.Addr, o.sqe.Addr+o.sqe.Addr3
	if !d.plan.Discard || chance(w.rng, w.mix.unsupported) {
		w.mark(markUnsupported)
		return d.recordFault(o, lo, hi, eOPNOTSUPP)
	}
	if chance(w.rng, w.mix.busy) { // another program has written to a page of it meanwhile
		w.mark(markDiskBusy)
		return d.recordFault(o, lo, hi, eBUSY)
	}
	if chance(w.rng, w.mix.writeError) {
		w.mark(markDiskError)
		return d.recordFault(o, lo, hi, eIO)
	}
	for at := lo; at < hi; at += d.unit { // a discard is a hint: each block may become zero or stay
		if w.rng.IntN(3) != 0 {
			d.zero(at, min(at+d.unit, hi), false)
		}
	}
	return 0
}

// tryFadvise completes a hint, which may fail; no client may notice that.
func (k *Kernel) tryFadvise() int32 {
	w := k.world
	switch {
	case chance(w.rng, w.mix.diskAgain):
		return []int32{eAGAIN, eINTR}[w.rng.IntN(2)]
	case chance(w.rng, w.mix.readError):
		return []int32{eIO, eOPNOTSUPP}[w.rng.IntN(2)]
	}
	return 0
}
