// The kernel's workers (io-wq): threads that do what cannot be done at once. Their number is
// limited, they take operations in order, and each keeps its operation until it is done. A disk
// that hangs keeps the workers of its operations.
//
// Invariant: running counts the operations in flight that have a worker, and is at most workers,
// unless workers is 0.

package sim

// admitWay checks how a transfer is submitted: with RWF_NOWAIT ("tried"), with IOSQE_ASYNC (for a
// worker), or with neither.
func (k *Kernel) admitWay(o *op, d *disk) {
	tried := o.sqe.OpcodeFlags&rwfNowait != 0
	o.worker = o.sqe.Flags&sqeAsync != 0
	switch {
	case tried && o.worker:
		k.world.bug("%s is to be tried, and to be done by a worker", o.name())
	case d.plan.Waits && !tried && !o.worker:
		k.world.bug("%s without a worker, on storage that puts the loop to sleep", o.name())
	case k.workers > 0 && !tried && !o.worker && !(o.into && d.plan.Block == 1):
		k.world.bug("%s may be handed to a worker that the engine does not count", o.name())
	}
}

// wouldBlock reports whether a transfer with RWF_NOWAIT cannot be done without waiting.
func (k *Kernel) wouldBlock(o *op) bool {
	if o.sqe.OpcodeFlags&rwfNowait == 0 {
		return false
	}
	d := o.node.disk
	frozen := !o.into && d.isHung() && d.plan.Frozen
	return d.plan.Waits || frozen || chance(k.world.rng, k.world.mix.refuse)
}

// refusedResult returns the result of a transfer with RWF_NOWAIT that would block.
func (k *Kernel) refusedResult(d *disk) int32 {
	k.world.mark(markRefusal)
	if d.plan.Waits {
		return eOPNOTSUPP
	}
	return eAGAIN
}

// isHung reports whether operations that have to wait for the disk are not done now.
func (d *disk) isHung() bool { return d.world.clock < d.hungUntil }

// mustWait reports whether an operation cannot go on, because it has no worker or because its disk
// hangs. A frozen file system still reads.
func (k *Kernel) mustWait(o *op) bool {
	if k.workers > 0 && o.worker && !o.running {
		if k.running == k.workers || !k.isNextForWorker(o) {
			return true
		}
		o.running = true
		k.running++
	}
	if o.node == nil || o.node.disk == nil || o.refused {
		return false
	}
	d := o.node.disk
	return d.isHung() && !(d.plan.Frozen && o.into)
}

// isNextForWorker reports whether no older operation waits for a worker.
func (k *Kernel) isNextForWorker(o *op) bool {
	for _, f := range k.flight {
		if f.worker && !f.running && f.serial < o.serial {
			return false
		}
	}
	return true
}
