// Mail: how the control plane speaks to a loop, and loops to each other. Letters are pushed onto an
// atomic list and the loop's eventfd is made readable; the loop takes the whole list at once.
// Claims granted by another loop travel the same way, as rows of the guard instead of letters.
//
// Invariant: after a push the eventfd is readable, and the loop re-arms its read of it before it
// takes the list: no letter is overlooked.

package engine

import (
	"sync/atomic"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

type mailKind uint8

const (
	mailAdopt mailKind = iota // serve this socket
	// close connections as they fall silent, and all after a while; answered when none is left
	mailDrain
	mailCut     // close every connection now
	mailTable   // take on a table; answered as changeover.go says
	mailFlush   // flush a device; answered when it is
	mailRetire  // end a client's connection; answered when it has ended
	mailCount   // copy the counters out
	mailClients // copy the traffic of each client out
	mailQuit    // leave the loop; only when no connection is left
)

// quitGraceNanos is how long a loop that is to end waits for what plans do for themselves.
const quitGraceNanos = int64(1e9)

type mail struct {
	next       *mail
	kind       mailKind
	fd         int32
	export     uint32
	session    proto.Session
	client     *Client
	counters   *Counters
	clients    []ClientTraffic
	update     *update
	dev        uint32 // place of a device
	generation uint16 // of that place
	err        error  // what became of it, once done is closed

	waits int   // things that the loop has not ended yet
	also  *mail // another that waits for the same client
	since int64 // when the loop opened it

	done chan struct{} // closed when the letter has been carried out
}

// mailbox is what other threads have sent to a loop, and the claims that it has granted itself.
type mailbox struct {
	inbox   atomic.Pointer[mail] // letters, the last one first
	granted atomic.Uint32        // stack of claims granted by other loops: claim+1, 0 = empty
	// stack of claims to run in this turn
	grants uint32
	wakeFD int32  // the eventfd
	wake   func() // makes it readable; callable from any thread
	quit   bool   // the loop is to end
	quitBy int64  // when it ends though plans are busy with work of their own
}

// post puts a letter into the loop's mailbox. It is called by the control plane, and may allocate.
func (l *loop) post(m *mail) {
	for {
		m.next = l.inbox.Load()
		if l.inbox.CompareAndSwap(m.next, m) {
			break
		}
	}
	l.wake()
}

// listenForMail arms the read of the eventfd.
func (l *loop) listenForMail() {
	uring.PrepRead(l.sqe(), uint64(tokenOf(onWake, 0, 0, 0)), l.wakeFD, l.control.Addr(0), 8, 0)
}

// woken takes the letters, in the order in which they were posted. Granted claims are looked for in
// every turn.
func (l *loop) woken() {
	l.listenForMail()
	var inOrder *mail
	for m := l.inbox.Swap(nil); m != nil; {
		next := m.next
		m.next, inOrder = inOrder, m
		m = next
	}
	for m := inOrder; m != nil; m = m.next {
		l.open(m)
	}
}

// open carries out one letter.
func (l *loop) open(m *mail) {
	switch m.kind {
	case mailAdopt:
		l.adopt(m.fd, m.export, m.session, m.client)
		return
	case mailDrain:
		if l.drain.phase == drainNot {
			l.drain.phase, l.drain.since = drainServe, l.now
		}
		l.drain.letters = append(l.drain.letters, m)
		return
	case mailCut:
		for i := range l.conns {
			l.fail(uint32(i), CloseForced)
		}
	case mailTable:
		l.changeOver(m)
		return
	case mailFlush:
		l.flushFor(m)
		return
	case mailRetire:
		l.retire(m)
		return
	case mailCount:
		l.countOut(m.counters)
	case mailClients:
		l.clientsOut(m)
	case mailQuit:
		l.quit, l.quitBy = true, l.now+quitGraceNanos
	}
	close(m.done)
}

// deal hands out the claims that a request of this loop has set free, a stack linked through
// claim.wake: the loop's own into its stack, those of other loops by mail.
func (l *loop) deal(grants uint32) {
	claims := l.shared.guard.claims
	for grants != none {
		i := grants
		grants = claims[i].wake
		owner := i / tagsPerLoop
		if owner == l.id {
			claims[i].wake = l.grants
			l.grants = i
			continue
		}
		to := l.shared.loops[owner]
		for {
			head := to.granted.Load()
			claims[i].wake = head - 1 // 0, the empty stack, becomes none
			if to.granted.CompareAndSwap(head, i+1) {
				if head == 0 {
					to.wake()
				}
				break
			}
		}
	}
}

// takeGrants runs the requests whose claims were granted.
func (l *loop) takeGrants() {
	claims := l.shared.guard.claims
	if l.granted.Load() != 0 {
		for i := l.granted.Swap(0) - 1; i != none; {
			next := claims[i].wake
			claims[i].wake = l.grants
			l.grants = i
			i = next
		}
	}
	for l.grants != none {
		i := l.grants
		l.grants = claims[i].wake
		l.run(i - l.id*tagsPerLoop)
	}
}
