// Stages are the buffers that sockets are received into. Every connection has a small stage of its
// own, in its page, which holds a few dozen requests without payload. There are large stages too,
// fewer than connections: a connection that receives more than its own stage holds borrows a large
// one, if one is free, and keeps it while that goes on, so that a busy writer pays for one receive
// a turn. No connection ever waits for a large stage: without it a payload is received straight
// into its lease, and a payload that is dropped, through the small stage.
//
// Invariant: a large stage is in the stack of free ones or belongs to exactly one connection, which
// is then in the list stageLRU. What a connection has received and not parsed, [start, end), is
// in its large stage if it has one, else in its own.

package engine

import (
	"ringnbd/engine/uring"
)

// idleStageNanos is how long a silent connection keeps a large stage.
const idleStageNanos = int64(1e9)

// stages is the large stages of a loop.
type stages struct {
	freeStages    []uint32 // stages that no connection holds
	stageLRU      list     // connections that hold a large stage, the least recently used first
	stageShortage bool     // a connection found none free
}

// newStages makes n large stages, all free.
func newStages(n int) stages {
	s := stages{freeStages: make([]uint32, n), stageLRU: empty}
	for i := range s.freeStages {
		s.freeStages[i] = uint32(n - 1 - i) // the lowest is lent first
	}
	return s
}

// stageOf finds the memory that a connection receives into: its place in the control arena, and its
// length.
func (l *loop) stageOf(i uint32) (at uint64, size uint32) {
	if s := l.conns[i].stage; s != none {
		return l.layout.stageAt(s), stageSize
	}
	return l.layout.pageAt(i) + ownAt, ownSize
}

// takeStage gives a connection a large stage, with what is in its own stage, if one is free. If
// not, the next connection with an empty large stage gives it up, so that they go round.
func (l *loop) takeStage(i uint32) {
	last := len(l.freeStages) - 1
	if last < 0 {
		l.stageShortage = true
		l.counters.Stageless++
		return
	}
	stage := l.freeStages[last]
	l.freeStages = l.freeStages[:last]
	l.moveTo(i, stage)
	l.enlist(&l.stageLRU, linkStage, i)
}

// giveStage takes a connection's large stage back; what is in it, the front part of a header at
// most, goes into its own.
func (l *loop) giveStage(i uint32) {
	c := &l.conns[i]
	if c.stage == none {
		return
	}
	must(c.receiving != receiveStage, "a stage was given back under a receive")
	must(c.end-c.start <= ownSize, "a stage was given back with requests in it")
	stage := c.stage
	l.delist(&l.stageLRU, linkStage, i)
	l.moveTo(i, none)
	poisonStage(l, stage)
	l.freeStages = append(l.freeStages, stage) // within its capacity: the stage came from there
}

// moveTo changes a connection's stage, and takes along what is not parsed.
func (l *loop) moveTo(i, stage uint32) {
	c := &l.conns[i]
	from, _ := l.stageOf(i)
	left := l.control.Bytes(from+uint64(c.start), int(c.end-c.start))
	c.stage = stage
	to, size := l.stageOf(i)
	c.start, c.end = 0, uint32(copy(l.control.Bytes(to, int(size)), left))
}

// refreshStage notes that a connection has just used its large stage.
func (l *loop) refreshStage(i uint32) {
	l.delist(&l.stageLRU, linkStage, i)
	l.enlist(&l.stageLRU, linkStage, i)
}

// reclaimIdle takes large stages back from connections that have been silent for a while: their
// receive is cancelled, and listen, finding them idle, does the rest. A connection that is not
// listened to, because it has as much in flight as it may, keeps its stage until its replies are
// taken.
func (l *loop) reclaimIdle() {
	for i := l.stageLRU.head; i != none; i = l.conns[i].links[linkStage].next {
		c := &l.conns[i]
		if c.receiving == receiveStage && l.now-c.heard >= idleStageNanos {
			l.takeBack(i)
		}
	}
}

// takeBack asks the kernel for the receive that is in flight.
func (l *loop) takeBack(i uint32) {
	c := &l.conns[i]
	if !c.cancelling {
		c.cancelling = true
		uring.PrepCancel(l.sqe(), uint64(tokenOf(onCancel, 0, c.generation, i)),
			uint64(tokenOf(onReceive, 0, c.generation, i)))
	}
}
