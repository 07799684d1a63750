// The run: a storm, in which all accidents of the mix happen; a calm, in which nothing fails any
// more and every request must be answered; a farewell, after which the engine must be empty; and a
// check of the disks.
//
// Invariant: one thing happens at a time, and the generator draws which. When nothing can happen,
// the clock moves to the next instant at which something can; if there is no next instant and a
// client still waits, the engine has lost a request.

package sim

import (
	"fmt"
)

// Limits of each phase of a run: beyond them the engine turns without progress. Time is virtual; in
// a storm many clients may stall for a minute.
const (
	maxSteps      = 200e6
	maxStormNanos = uint64(20000e9)
	maxCalmNanos  = uint64(1000e9)

	maxDelayNanos = uint64(51e6) // more than every delay of a mix, and less than the engine's timer
)

// Run drives the loops through the whole run. It returns a *Failure if the engine made a mistake.
func (w *World) Run(loops []Loop, table Table) (err error) {
	w.loops, w.table = loops, table
	defer func() {
		if p := recover(); p != nil {
			err = w.failure(p)
		}
		for _, c := range w.coroutines {
			c.stop()
		}
	}()
	for i, l := range loops {
		w.coroutines = append(w.coroutines, newCoroutine(w.kernels[i], l))
	}
	w.drive("asking", func() bool {
		if w.draining { // until all clients are gone: some would never end by themselves
			w.checkShutdown()
			return w.clientsGone()
		}
		return w.left <= 0
	})
	w.calm, w.mix = true, w.mix.calm()
	for _, d := range w.disks {
		d.hungUntil = 0
	}
	w.note("calm", "")
	w.drive("answering", w.clientsGone)
	w.drive("closing", func() bool { return w.loopsEmpty() && w.settled() })
	w.inspect()
	return nil
}

// drive lets things happen until done reports true.
func (w *World) drive(what string, done func() bool) {
	misses, end := 0, w.clock+maxStormNanos
	if w.calm {
		end = w.clock + maxCalmNanos
	}
	for steps := 0; !done(); steps++ {
		if steps > maxSteps || w.clock > end {
			w.fail("%s does not end: %d steps, %d seconds of virtual time; %s", what, steps,
				w.clock/1e9, w.describeWaiting())
		}
		if w.step() {
			misses = 0
			continue
		}
		if misses++; misses < 2*len(w.loops)+len(w.clients)+3 {
			continue
		}
		misses = 0
		if !w.tryEverything() && !w.advanceClock() {
			w.fail("%s cannot go on: nothing is left that could happen; %s", what,
				w.describeWaiting())
		}
	}
}

// step draws what happens next, and reports whether it could happen.
func (w *World) step() bool {
	n := w.rng.IntN(2*len(w.loops) + len(w.clients) + 3)
	switch {
	case n < len(w.loops):
		return w.turn(n)
	case n < 2*len(w.loops):
		return w.kernels[n-len(w.loops)].advance()
	case n < 2*len(w.loops)+len(w.clients):
		return w.clients[n-2*len(w.loops)].step()
	case n == 2*len(w.loops)+len(w.clients):
		return w.deliverSome()
	case n == 2*len(w.loops)+len(w.clients)+1:
		return w.doLookup()
	}
	w.accident()
	return false
}

// turn lets a loop run until it waits or has finished a turn. It reports false if the loop waits
// for something that has not happened.
func (w *World) turn(i int) bool {
	k := w.kernels[i]
	if k.asleep && chance(w.rng, w.mix.interrupt) && w.rng.IntN(8) == 0 {
		k.signalled = true
	}
	if !k.awake() || k.lag > w.clock {
		return false
	}
	if chance(w.rng, w.mix.lag) {
		k.lag = w.clock + w.rng.Uint64N(1e6)
	}
	w.coroutines[i].resume()
	w.takeLookups(i)
	if !w.settled() {
		w.hear()
	}
	if w.rng.IntN(16) == 0 {
		w.markStarved()
	}
	return true
}

// markStarved marks a socket with data for which no operation is armed.
func (w *World) markStarved() {
	for _, s := range w.socks {
		if s.in.arrived == 0 || s.closed || s.shut || w.armed(s) {
			continue
		}
		if s.unarmed++; s.unarmed > 2 {
			w.mark(markConnectionStarved)
			return
		}
	}
}

// armed reports whether an operation waits for data of a socket.
func (w *World) armed(s *socket) bool {
	for _, k := range w.kernels {
		for _, o := range k.flight {
			if o.node != nil && o.node.sock == s &&
				(o.sqe.OpCode == opRecv || o.sqe.OpCode == opPollAdd) {
				return true
			}
		}
	}
	return false
}

// deliverSome lets some bytes arrive at the end of a wire.
func (w *World) deliverSome() bool {
	keep := w.socks[:0]
	for _, s := range w.socks {
		if !s.gone() {
			keep = append(keep, s)
		}
	}
	clear(w.socks[len(keep):])
	w.socks = keep
	for i, at := 0, w.rng.IntN(len(keep)+1); i < len(keep); i++ {
		s := keep[(at+i)%len(keep)]
		if in := !s.closed && w.deliver(&s.in); in || w.deliver(&s.out) {
			return true
		}
	}
	return false
}

// accident lets accidents happen to the machine as a whole.
func (w *World) accident() {
	if w.calm {
		return
	}
	if chance(w.rng, w.mix.cut) && len(w.socks) > 0 {
		if s := w.socks[w.rng.IntN(len(w.socks))]; !s.closed && !s.dead {
			w.note("cut", "fd", int64(s.fd))
			s.client.excuse("the network dropped the connection")
			s.breakOff([]int32{eCONNRESET, eTIMEDOUT}[w.rng.IntN(2)])
		}
	}
	if w.clock >= w.pausedUntil && chance(w.rng, w.mix.pause) && w.rng.IntN(20) == 0 {
		w.pauseLoops(1e9 + w.rng.Uint64N(9e9))
	}
	if len(w.socks) > 50 {
		w.mark(markCrowded)
	}
	if w.cutAt >= 0 && w.left <= w.cutAt {
		w.cutAt = -1
		d := w.disks[w.rng.IntN(len(w.disks))]
		if d.plan.Backing == File {
			length := w.rng.Uint64N(d.plan.Size)
			w.note("truncate", "disk length", int64(d.index), int64(length))
			d.truncate(length)
			w.models[d.index].truncate(length)
		}
	}
	w.operate()
	if w.Plan.Hang && w.rng.IntN(40) == 0 {
		w.hang()
	}
	if w.drainAt >= 0 && w.left <= w.drainAt && !w.draining {
		w.draining, w.drainedAt, w.pausedAtDrain = true, w.clock, w.pausedSoFar()
		w.mark(markDrained)
		w.note("drain", "")
		for _, l := range w.loops {
			l.Drain()
		}
	}
	if w.draining && w.Plan.cut && w.rng.IntN(2000) == 0 { // the shutdown timeout runs out
		w.mark(markCutOff)
		w.note("cut off", "")
		for _, l := range w.loops {
			l.Cut()
		}
	}
	if w.tick > w.crashAt {
		m := w.models[w.rng.IntN(len(w.models))]
		// large disks take long to compare
		w.crashAt = w.tick + 100 + w.rng.Uint64N(1000) + uint64(len(m.disk.cache))/4096
		if m.disk.plan.survives() {
			w.checkCrash(m)
		}
	}
}

// pauseLoops keeps all loops from running for a while, as a debugger or a frozen cgroup does.
// Clients go on, and must not suffer from it.
func (w *World) pauseLoops(long uint64) {
	w.mark(markPaused)
	w.note("stopped", "milliseconds", int64(long/1e6))
	w.pausedUntil = w.clock + long
	w.pausedNanos += long
	for _, k := range w.kernels {
		k.lag = w.pausedUntil
	}
}

// pausedSoFar returns how long loops have been paused so far.
func (w *World) pausedSoFar() uint64 {
	return w.pausedNanos - (max(w.pausedUntil, w.clock) - w.clock)
}

// ranSince returns how long loops have run since an instant by which they had been paused for a
// time.
func (w *World) ranSince(since, paused uint64) uint64 {
	return w.clock - since - min(w.pausedSoFar()-paused, w.clock-since)
}

// checkShutdown ends the run if a shutdown does not end a connection whose client takes its
// replies, within a second to serve, half a second to drain, and the time until loops and wires
// hear of it.
func (w *World) checkShutdown() {
	for _, c := range w.clients {
		s := c.sock
		if s == nil || s.closed || s.shut || s.dead {
			continue
		}
		owed := len(s.out.data) > 0 || c.readAt > w.clock
		late := w.ranSince(w.drainedAt, w.pausedAtDrain) >
			drainNoticeNanos+w.maxNanos()+maxHangNanos
		// a request that was taken in may take as long as any request, on a disk that hangs
		for _, r := range c.inFlight {
			owed = owed ||
				!late && r.sent != 0 &&
					r.sentAt < w.lateAfterDrain()
		}
		if owed || w.pausedUntil > c.owedAt { // or the loops were paused meanwhile
			c.owedAt = max(w.clock, w.pausedUntil)
		} else if w.clock > max(c.owedAt, w.drainedAt)+maxDrainNanos {
			w.fail("connection %d is still open %d seconds after the shutdown began; %s", c.conn,
				(w.clock-w.drainedAt)/1e9, w.describeWaiting())
		}
	}
}

// lateAfterDrain returns the instant from which on a shutdown takes in no further requests: it
// counts only time in which loops run.
func (w *World) lateAfterDrain() uint64 {
	return w.drainedAt + drainNoticeNanos + w.pausedSoFar() - w.pausedAtDrain
}

// maxDrainNanos limits the time until a shutdown closes a connection to whose client nothing is
// owed.
const maxDrainNanos = uint64(3e9)

// maxHangNanos limits the time for which a disk hangs.
const maxHangNanos = uint64(65e9)

// hang lets one of the disks hang, except the last, which stays healthy.
func (w *World) hang() {
	d := w.disks[w.rng.IntN(len(w.disks))]
	if !d.isHung() && d.index != w.healthyDisk() {
		d.hungUntil = w.clock + 5e9 + w.rng.Uint64N(maxHangNanos-5e9)
		w.mark(markDiskHung)
		w.note("hang", "disk until", int64(d.index), int64(d.hungUntil))
	}
}

// tryEverything tries everything once, and reports whether anything could happen at this instant.
func (w *World) tryEverything() bool {
	for i, k := range w.kernels {
		if k.advance() || k.awake() && w.turn(i) {
			return true
		}
	}
	for _, c := range w.clients {
		for range 2 { // it tries one direction first, and the other next time
			if c.step() {
				return true
			}
		}
	}
	return w.deliverSome() || w.doLookup()
}

// advanceClock moves the clock to the next instant at which something may happen, and reports
// whether there is one.
func (w *World) advanceClock() bool {
	next := uint64(0)
	for _, k := range w.kernels {
		if due := k.nextDue(); due != 0 {
			next = earlier(next, due, w.clock)
		}
	}
	for _, s := range w.socks {
		for _, wire := range [2]*stream{&s.in, &s.out} {
			if wire.arrived < len(wire.data) || wire.ended && !wire.endSeen {
				next = earlier(next, wire.due, w.clock)
			}
		}
	}
	for i := range w.lookups {
		next = earlier(next, w.lookups[i].due, w.clock)
	}
	for _, c := range w.clients {
		if c.sock != nil {
			next = earlier(next, c.readAt, w.clock)
		}
		next = earlier(next, c.sendAt, w.clock)
	}
	if next == 0 {
		return false
	}
	if next-w.clock > maxDelayNanos {
		w.checkForgotten()
	}
	w.clock = next
	return true
}

// checkForgotten ends the run if a request waits although nothing keeps the engine from going on:
// every client is ready and no disk is at work, so that only the loop's own timer will move it. A
// lost wake-up looks like this.
func (w *World) checkForgotten() {
	if w.draining {
		return
	}
	if len(w.lookups) > 0 || w.clock < w.pausedUntil {
		return
	}
	for _, k := range w.kernels {
		for _, o := range k.flight {
			if o.node == nil || o.node.disk != nil || o.sqe.OpCode == opSendMsg {
				return
			}
		}
	}
	for _, c := range w.clients {
		if c.sock != nil && (c.readAt > w.clock || c.sendAt > w.clock) {
			return
		}
	}
	for _, c := range w.clients {
		for _, r := range c.inFlight {
			if r.sent != 0 && c.excused == "" && c.x.stage == serving {
				w.fail("%v waits for nothing but the loop's timer; %s", r, w.describeWaiting())
			}
		}
	}
}

// clientsGone reports whether no client has a connection.
func (w *World) clientsGone() bool {
	for _, c := range w.clients {
		if c.sock != nil {
			return false
		}
	}
	return true
}

// loopsEmpty reports whether no loop has a connection.
func (w *World) loopsEmpty() bool {
	for _, l := range w.loops {
		if l.Connections() > 0 {
			return false
		}
	}
	return true
}

// describeWaiting tells what clients, kernels and loops wait for.
func (w *World) describeWaiting() string {
	text := ""
	for _, c := range w.clients {
		if c.sock == nil {
			continue
		}
		text += fmt.Sprintf("\n  client %d: connection %d, descriptor %d, %d bytes unsent, %d "+
			"in the socket, %d on their way back, %d requests in flight", c.id, c.conn,
			c.sock.fd, len(c.out), len(c.sock.in.data), len(c.sock.out.data), len(c.inFlight))
		for _, r := range c.inFlight[:min(len(c.inFlight), 3)] {
			text += "\n    " + r.String()
		}
	}
	for _, k := range w.kernels {
		text += fmt.Sprintf("\n  kernel %d: %d queued, %d posted, in flight:", k.id, k.tail-k.head,
			len(k.posted)+len(k.cq))
		for _, o := range k.flight {
			text += fmt.Sprintf(" %s fd %d", o.name(), o.sqe.Fd)
		}
	}
	for i, l := range w.loops {
		text += fmt.Sprintf("\n  loop %d: %d connections", i, l.Connections())
	}
	for _, l := range w.lookups {
		text += fmt.Sprintf("\n  to be looked up: %+v", l)
	}
	return text
}

// inspect checks what is left when all clients have gone.
func (w *World) inspect() {
	if n := len(w.lookups); n > 0 {
		w.fail("no connection is left, but %d requests are still to be looked up", n)
	}
	for i, l := range w.loops {
		if err := l.Idle(); err != nil {
			w.fail("loop %d has no connection left, but: %v", i, err)
		}
	}
	for _, k := range w.kernels {
		for _, o := range k.flight {
			// a read of the eventfd may stay, and a cancellation whose target completed first
			if waits := o.node != nil && o.node.event != nil; !waits && o.sqe.OpCode != opCancel {
				w.fail("no connection is left, but %s is in flight", o.name())
			}
		}
	}
	for i, n := range w.nodes {
		if n != nil && n.sock != nil {
			w.fail("descriptor %d was never closed", i+firstFD)
		}
	}
	for i, m := range w.models {
		if p := w.disks[i].plan; p.Backing != Null {
			if p.Backing != Layered {
				m.compare(w.disks[i].cache, false)
			}
			if p.survives() {
				w.checkCrash(m)
			}
		}
	}
}
