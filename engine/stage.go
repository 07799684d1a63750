// Stages are the buffers that sockets are received into. There are fewer of them than connections: a connection borrows one when it has
// something to say and keeps it while it goes on talking, so that a busy connection pays for one receive a turn and an idle one holds no memory.
//
// When there are more talkers than stages, whoever has nothing unparsed but the front of a header gives its stage up, and waits by poll again.
//
// Invariant: a stage is in the stack of free ones or belongs to exactly one connection, which is then in the loop's lru list.

package engine

import (
	"ringnbd/engine/uring"
)

// idleStage is how long a silent connection keeps its stage while nobody else wants it.
const idleStage = int64(1e9)

// payloadPause is how long a payload may pause, in nanoseconds, before its connection counts as silent.
const payloadPause = int64(100e6)

// takeStage gives a connection a stage, unless others have waited longer.
func (l *loop) takeStage(i uint32) bool {
	c := &l.conns[i]
	if c.stage != none {
		return true
	}
	if len(l.stages) == 0 || l.awaiting.head != none {
		return false
	}
	l.grantStage(i)
	return true
}

func (l *loop) grantStage(i uint32) {
	c := &l.conns[i]
	last := len(l.stages) - 1
	c.stage = l.stages[last]
	l.stages = l.stages[:last]
	l.unstash(c)
	l.enlist(&l.lru, linkStage, i)
}

// giveStage takes a connection's stage back, and passes it on.
func (l *loop) giveStage(i uint32) {
	c := &l.conns[i]
	if c.stage == none {
		return
	}
	must(c.receiving != receiveStage, "a stage was given back under a receive")
	l.delist(&l.lru, linkStage, i)
	poisonStage(l, c.stage)
	l.stages = append(l.stages, c.stage) // within its capacity: it came from there
	c.stage, c.start, c.end = none, 0, 0
	if next := l.awaiting.head; next != none {
		l.delist(&l.awaiting, linkAwaiting, next)
		l.grantStage(next)
		l.touch(next)
	}
}

// awaitStage queues a connection for a stage, and asks for one back that is held in silence.
func (l *loop) awaitStage(i uint32) {
	l.conns[i].hungry = l.now
	l.counters.Starved++
	l.enlist(&l.awaiting, linkAwaiting, i)
	for j := l.lru.head; j != none; j = l.conns[j].links[linkStage].next {
		if l.silent(j) {
			l.takeBack(j)
			return
		}
	}
}

// refreshStage: the connection has just used its stage.
func (l *loop) refreshStage(i uint32) {
	l.delist(&l.lru, linkStage, i)
	l.enlist(&l.lru, linkStage, i)
}

// silent: nothing but an armed receive keeps this connection's stage; or a payload that does not come, and could be received without one.
func (l *loop) silent(i uint32) bool {
	c := &l.conns[i]
	if c.receiving != receiveStage || c.cancelling {
		return false
	}
	return c.body == none && c.inflight == 0 || c.body != none && l.now-c.heard > payloadPause
}

// lend gives others the stage of a connection that has just fallen silent.
func (l *loop) lend(i uint32) {
	if l.awaiting.head != none && l.silent(i) {
		l.takeBack(i)
	}
}

// takeBack cancels the receive of a silent connection; listen then gives the stage back, because it is idle or because others wait.
func (l *loop) takeBack(i uint32) {
	c := &l.conns[i]
	c.cancelling = true
	uring.PrepCancel(l.sqe(), uint64(tokenOf(onCancel, 0, c.generation, i)), uint64(tokenOf(onReceive, 0, c.generation, i)))
}

// reclaimIdle takes stages back from connections that have been silent for a while.
func (l *loop) reclaimIdle() {
	for i := l.lru.head; i != none; i = l.conns[i].links[linkStage].next {
		c := &l.conns[i]
		if l.now-c.heard < idleStage {
			return // the list is in order of use
		}
		if l.silent(i) {
			l.takeBack(i)
		}
	}
}
