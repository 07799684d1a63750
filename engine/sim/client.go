// A client is the other end of a socket: it composes requests, sends them in pieces, parses replies
// as they arrive, and leaves in one of several ways, some of them abrupt.
//
// Invariant: inFlight has every request of the connection that was composed and whose reply has not
// been seen; unsent has those of them that are not sent completely, in order.

package sim

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"ringnbd/proto"
)

// client is a client, on one connection after the other.
type client struct {
	world  *World
	id     int
	rng    *rand.Rand
	habit  habit
	x      *served    // the export that it uses
	told   ExportPlan // what it was told of it
	handle any        // what the engine knows it by
	model  *model
	sock   *socket
	conn   uint32

	out      []byte // composed and not sent
	sent     uint64 // bytes sent on this connection
	unsent   []*request
	inFlight []*request
	order    uint32 // requests composed on this connection, and garbage
	asked    int    // requests composed on this connection
	got      uint64 // bytes received on this connection

	head    []byte   // of the reply or chunk that is arriving
	reading *request // whose data is arriving, after a simple reply
	data    []byte
	chunk   *chunk // whose payload is arriving
	payload []byte

	readAt, sendAt uint64 // instants before which it does not read, or send
	owedAt         uint64 // last instant in a shutdown at which an answer was owed to it
	parted         bool   // has sent its last byte
	retired        bool   // the operator ends its connection
	heard          uint64 // bytes that the server had of it when its export began to leave
	unheard        bool   // found that its data is not received any more
	partEnd        uint64 // position in the stream of the end of its farewell; 0: none
	excused        string // why the server may close or not answer from now on; "": it may not
}

// connect opens a connection to one of the exports, and reports whether a loop had room for it.
func (c *client) connect() bool {
	w := c.world
	at := w.pickLoop()
	if at < 0 {
		return false
	}
	x := w.pickExport(c)
	if x == nil {
		return false
	}
	w.conns++
	*c = client{world: w, id: c.id, rng: c.rng, x: x, model: x.model, conn: w.conns,
		told: x.plan}
	c.told.Facts = x.versions[len(x.versions)-1-w.age(x)].Facts
	e := c.plan()
	c.habit = drawHabit(c.rng, e, drawSession(c.rng, e), min(w.left, 120))
	if w.Plan.jam {
		c.habit.jam(c.rng)
	}
	if w.Plan.siege {
		c.habit.besiege(c.rng)
	}
	switch {
	case c.healthy():
		c.habit.modest(c.rng)
	case w.Plan.Hang:
		c.habit.hang(c.rng)
	}
	if h := &c.habit; w.Plan.flushes {
		h.commands, h.large = [4]int{1, 5, 3, 0}, 0
	}
	if h := &c.habit; w.Plan.deep {
		h.small, h.depth, h.requests, h.commands, h.large = true, 300, 600, [4]int{9, 2, 0, 0}, 0
		h.partAt = 0
	}
	if w.Plan.drain {
		c.habit.resist(c.rng)
	}
	c.sock = w.newSocket(c)
	s := c.habit.session
	w.note("adopt", "client connection fd loop export framing", int64(c.id), int64(c.conn),
		int64(c.sock.fd), int64(at), int64(x.index), int64(s.Framing))
	c.adopt(at)
	return true
}

// age draws how many versions the facts are old that a client is told, whose handshake may have
// begun before the last alteration.
func (w *World) age(x *served) int {
	if n := len(x.versions); n > 1 && w.rng.IntN(4) == 0 {
		return 1
	}
	return 0
}

// adopt gives the client's socket to a loop. An export that leaves takes no more clients.
func (c *client) adopt(loop int) {
	w, gone := c.world, false
	c.handle, gone = w.table.Adopt(loop, c.sock.fd, c.x.id, c.habit.session)
	switch known := c.x.stage == serving; {
	case !gone && known:
		return
	case gone && known:
		w.fail("connection %d: export %d is served, and the engine says that it is not", c.conn,
			c.x.index)
	case !gone:
		w.fail("connection %d was adopted, but export %d has left", c.conn, c.x.index)
	}
	w.mark(markAdoptedGone)
	w.nodes[c.sock.fd-firstFD] = nil
	c.sock.serverClose()
	c.drop()
	c.sendAt = w.clock + w.rng.Uint64N(50e6)
}

// healthy reports whether its disk never hangs in a world in which other disks do.
func (c *client) healthy() bool {
	w := c.world
	return w.Plan.Hang && c.x.index == w.healthyDisk()
}

// excuse records that something happened to the connection for which the server is not to blame.
func (c *client) excuse(why string) {
	if c != nil && c.excused == "" {
		c.excused = why
	}
}

// step lets the client do one thing, and reports whether there was anything that it could do.
func (c *client) step() bool {
	w := c.world
	if c.sock == nil {
		if w.left <= 0 || w.calm || w.draining || c.sendAt > w.clock {
			return false
		}
		return c.connect()
	}
	if c.rng.IntN(2) == 0 {
		return c.receive() || c.send()
	}
	return c.send() || c.receive()
}

// send composes or sends something, or parts.
func (c *client) send() bool {
	w := c.world
	if c.parted || c.unheard || c.sendAt > w.clock {
		return false
	}
	if len(c.out) == 0 {
		return c.sendNext()
	}
	return c.sendSome()
}

// sendNext composes the next requests, or the client's farewell.
func (c *client) sendNext() bool {
	w := c.world
	if c.habit.restless && w.draining && !w.calm {
		c.insist()
		return true
	}
	if c.asked >= c.habit.requests || w.left <= 0 || w.calm {
		c.farewell()
		return true
	}
	if len(c.inFlight) >= c.habit.depth {
		return false
	}
	if len(c.inFlight) == 0 && chance(c.rng, c.habit.lull) {
		w.mark(markLulled)
		c.sendAt = w.clock + c.rng.Uint64N(4e9)
		return true
	}
	// several requests in one piece, as a busy client sends them
	batch := 1 + c.rng.IntN(min(8, c.habit.depth))
	for range batch {
		c.compose(c.habit.draw(c.rng, c.plan()))
	}
	return true
}

// insist composes another READ, whether requests were answered or not.
func (c *client) insist() {
	w := c.world
	q := proto.Request{Command: proto.CmdRead, Cookie: c.rng.Uint64(),
		Length: min(4096, c.plan().Size)}
	q.Extended = c.habit.session.Framing == proto.Extended
	c.compose(draft{Request: q})
	w.left++ // it does not count
	c.sendAt = w.clock + c.rng.Uint64N(20e6)
}

// compose appends a request to what is to be sent.
func (c *client) compose(a draft) *request {
	w, q := c.world, a.Request
	w.left--
	c.asked++
	c.order++
	w.ids++
	r := &request{Request: q, base: c.x.base, opening: c.x.opening, id: w.ids, conn: c.conn,
		order: c.order}
	r.payload = a.payload
	c.expect(r, &c.told.Facts)
	r.blank = q.Command == proto.CmdDisc
	c.out = putHeader(c.out, &q)
	if n := q.Payload(); n > 0 && !r.fatal {
		at := len(c.out)
		c.out = append(c.out, make([]byte, n)...)
		switch {
		case q.Command == proto.CmdWrite:
			fill(c.out[at:], r.id, r.lo())
		case a.payload != nil:
			copy(c.out[at:], a.payload)
		default:
			rubbish(c.out[at:], c.rng.Uint64())
		}
	}
	r.end = c.sent + uint64(len(c.out))
	c.unsent = append(c.unsent, r)
	if !r.blank {
		c.inFlight = append(c.inFlight, r)
		w.requests = append(w.requests, r)
	}
	w.note("compose", "connection id command flags offset length", int64(c.conn), int64(r.id),
		int64(q.Command), int64(q.Flags), int64(q.Offset), int64(q.Length))
	return r
}

// sendSome sends some of the composed bytes.
func (c *client) sendSome() bool {
	w, s := c.world, c.sock
	// the client's kernel returns an error: the server does not receive any more
	if s.dead || s.shut || s.closed {
		c.unheard = true
		return true
	}
	n := min(len(c.out), s.in.room())
	if c.habit.segment > 0 {
		n = min(n, 1+c.rng.IntN(max(c.habit.segment, len(c.out)/64)))
	}
	for _, stop := range [2]uint64{c.habit.stallAt, c.habit.partAt} {
		if stop > c.sent {
			n = min(n, int(min(stop-c.sent, 1<<30)))
		}
	}
	drip := c.habit.drips && w.draining && !w.calm
	if drip {
		n = min(n, 1)
		c.sendAt = w.clock + c.rng.Uint64N(50e6)
	}
	if n == 0 {
		return false
	}
	for _, r := range c.unsent {
		if r.begun == 0 {
			r.begun, r.begunAt, r.pausedAtStart = w.tick, w.clock, w.pausedSoFar()
			// the first part may be done before the last has been sent
			if r.Command == proto.CmdWrite && c.inParts(r) && c.mayBeDone(r) {
				r.sent, r.sentAt = w.tick, w.clock
				c.change(r)
			}
		}
		if r.end >= c.sent+uint64(n) {
			break
		}
	}
	s.in.send(w, c.out[:n])
	c.out = c.out[n:]
	c.sent += uint64(n)
	for len(c.unsent) > 0 && c.unsent[0].end <= c.sent {
		r := c.unsent[0]
		c.unsent = c.unsent[1:]
		c.requestSent(r)
	}
	if len(c.out) == 0 {
		c.out = nil
	}
	if c.habit.sendNapNanos > 0 {
		c.sendAt = w.clock + c.rng.Uint64N(c.habit.sendNapNanos)
	}
	c.milestones()
	return true
}

// milestones does what is to happen at this place in the stream.
func (c *client) milestones() {
	w := c.world
	if c.habit.stallAt == c.sent && !w.calm {
		if len(c.out) > 0 {
			w.mark(markStalled)
			c.excuse("stalled for long")
		}
		c.sendAt = w.clock + c.habit.stallNanos
	}
	if c.habit.partAt == c.sent && c.partEnd == 0 {
		// better inside the next header, which is small and seldom hit by chance
		if h := &c.habit; h.partHeader && len(c.unsent) > 0 {
			h.partHeader, h.partAt = false, c.unsent[0].end+1+c.rng.Uint64N(proto.RequestSize-1)
		} else {
			c.leave()
		}
	}
	if c.sock != nil && c.partEnd != 0 && len(c.out) == 0 {
		c.parted = true
	}
}

// requestSent records that the last byte of a request was sent: from now on the server may have
// done it.
func (c *client) requestSent(r *request) {
	w := c.world
	now, early := w.note("sent", "connection id", int64(c.conn), int64(r.id)), r.sent != 0
	r.sentAt = w.clock
	if early {
		return
	}
	r.sent = now
	if r.fatal {
		w.mark(markOversize)
		c.excuse("announced an endless payload")
		c.parted = true
		return
	}
	c.change(r)
}

// change tells the model what the server may do from now on.
func (c *client) change(r *request) {
	w := c.world
	if r.isChange() && r.Length > 0 && c.model.disk.plan.Backing != Null && !r.changes &&
		c.mayBeDone(r) {
		r.changes = true
		w.markOverlaps(c, r)
		c.model.mayHappen(r)
	}
}

// expect sets what the protocol says about a request, if these are the facts of the export.
func (c *client) expect(r *request, f *proto.Facts) {
	r.setExpected(f, c.habit.session, r.payload)
	if r.Command == proto.CmdRead && r.Flags&proto.CmdFlagDF != 0 && c.inParts(r) &&
		len(r.allowed) > 0 && r.allowed[0] == proto.Success {
		r.allowed = []proto.Errno{proto.EOVERFLOW}
	}
}

// mayBeDone reports whether a request is valid by any of the facts that may be in force.
func (c *client) mayBeDone(r *request) bool {
	if len(c.x.versions) == 1 {
		return r.valid()
	}
	if r.fatal || r.blank {
		return false
	}
	q, yes := *r, false
	c.x.maybe(r.begun, func(f *proto.Facts) bool {
		c.expect(&q, f)
		yes = q.valid()
		return !yes
	})
	return yes
}

// receive takes bytes that have arrived.
func (c *client) receive() bool {
	w, s := c.world, c.sock
	if c.readAt > w.clock {
		return false
	}
	n := s.out.arrived
	if n == 0 {
		if c.habit.restless && w.draining && !w.calm && s.out.atEnd() && !s.dead && !s.shut &&
			!s.closed {
			return false // it ignores the end of the stream
		}
		if s.dead || s.clientReset || s.out.atEnd() {
			c.connectionEnded()
			return true
		}
		return false
	}
	if c.habit.sip > 0 && !w.calm {
		n = min(n, 1+c.rng.IntN(max(c.habit.sip, n/16)))
	}
	if c.habit.readNapNanos > 0 && !w.calm {
		c.readAt = w.clock + c.rng.Uint64N(c.habit.readNapNanos)
	}
	if c.got += uint64(n); c.habit.sulkAt > 0 && c.got >= c.habit.sulkAt && !w.calm {
		c.excuse("did not read for long")
		c.habit.sulkAt, c.readAt = 0, w.clock+c.habit.stallNanos
	}
	for b := s.out.take(n); len(b) > 0; {
		switch {
		case c.reading != nil:
			k := min(len(b), int(c.reading.Length)-len(c.data))
			c.data, b = append(c.data, b[:k]...), b[k:]
		case c.chunk != nil:
			k := min(len(b), int(c.chunk.length)-len(c.payload))
			c.payload, b = append(c.payload, b[:k]...), b[k:]
		default:
			k := min(len(b), c.headLeft())
			c.head, b = append(c.head, b[:k]...), b[k:]
		}
		c.digest()
	}
	return true
}

// digest checks a reply when its header is complete, and again when its data is complete.
func (c *client) digest() {
	w := c.world
	if c.chunk == nil && c.reading == nil && c.headLeft() == 0 {
		if f := c.habit.session.Framing; f == proto.Extended ||
			f == proto.Structured && binary.BigEndian.Uint32(c.head) != magicSimple {
			c.openChunk()
			return
		}
		cookie, e, err := proto.ParseSimpleReply(c.head)
		if err != nil {
			w.fail("connection %d got % x instead of a reply", c.conn, c.head)
		}
		c.head = c.head[:0]
		r := c.findRequest(cookie, e != proto.Success)
		if c.habit.session.Framing != proto.Simple &&
			(r.Command == proto.CmdRead || r.Command == proto.CmdBlockStatus || r.reply != nil) {
			w.fail("%v got a simple reply on a connection with structured ones", r)
		}
		c.removeInFlight(r)
		r.answered = w.note("answer", "connection id errno", int64(c.conn), int64(r.id), int64(e))
		c.judge(r, e)
		if r.Command == proto.CmdRead && e == proto.Success {
			c.reading, c.data = r, make([]byte, 0, r.Length)
		}
	}
	if r := c.reading; r != nil && len(c.data) == int(r.Length) {
		c.reading = nil
		c.checkRead(r, c.data)
		c.data = nil
	}
	if k := c.chunk; k != nil && len(c.payload) == int(k.length) {
		c.takeChunk()
	}
}

// checkRead checks the data of a READ.
func (c *client) checkRead(r *request, data []byte) {
	w := c.world
	for _, o := range w.requests {
		if o.isChange() && o.valid() && o.sent != 0 && (o.answered == 0 || o.answered > r.sent) &&
			o.overlaps(r) {
			w.mark(markReadDuringWrite)
			break
		}
	}
	if r.Length > pieceSize {
		w.mark(markLargeRequest)
	}
	if r.Length > 0 {
		c.model.checkRead(r, data)
	}
}

// findRequest returns the request that a reply is for. Cookies are unique, except where a client
// uses one for all flushes: then a success is taken for the oldest flush, and an error for the
// newest, which demands least of the server.
func (c *client) findRequest(cookie uint64, failed bool) *request {
	at := -1
	for i, r := range c.inFlight {
		if r.Cookie == cookie && r.sent != 0 && (at < 0 || failed) {
			at = i
		}
	}
	for i, r := range c.inFlight { // a refusal may come before the last byte was sent
		if at < 0 && r.Cookie == cookie && r.begun != 0 {
			at = i
		}
	}
	if at < 0 {
		c.world.fail("connection %d got a reply (an error: %v) with cookie %#x, which belongs "+
			"to no request in flight", c.conn, failed, cookie)
	}
	return c.inFlight[at]
}

// removeInFlight removes a request whose reply is complete.
func (c *client) removeInFlight(r *request) {
	for i, f := range c.inFlight {
		if f == r {
			c.inFlight = append(c.inFlight[:i], c.inFlight[i+1:]...)
			return
		}
	}
}

// connectionEnded checks that the server, or the network, may have ended the connection.
func (c *client) connectionEnded() {
	w := c.world
	if c.excused == "" && w.draining {
		c.excused = "the server shuts down"
		c.markResisted()
	}
	if c.excused == "" && c.x.stage >= leaving {
		c.checkLeft()
		c.excused = "its export was removed"
	}
	if c.excused == "" && c.slow() {
		c.excused = "too slow"
	}
	if c.excused == "" && c.torn() {
		c.excused = "the disk failed after the beginning of a reply"
	}
	if c.excused == "" && (!c.parted || len(c.inFlight) > 0) {
		why := "although the client had not finished"
		if len(c.inFlight) > 0 {
			why = fmt.Sprintf("with %d requests unanswered, the first: %v", len(c.inFlight),
				c.inFlight[0])
		}
		w.fail("the server closed connection %d (parting: %t, DISC or half-close at %d, "+
			"sent %d) %s", c.conn, c.parted, c.partEnd, c.sent, why)
	}
	if (len(c.head) > 0 || c.chunk != nil) && c.excused == "" {
		w.fail("the server closed connection %d in the middle of a reply", c.conn)
	}
	c.drop()
}

// checkLeft checks that an export which left in order has answered what it had taken in, unless
// memory was short, or its client slow.
func (c *client) checkLeft() {
	w, h := c.world, &c.habit
	if c.x.forced || w.Plan.Scanty || w.Plan.siege || w.Plan.Hang || c.slow() || c.torn() ||
		h.sip > 0 || h.readNapNanos > 0 || h.stallAt > 0 || h.sulkAt > 0 {
		return
	}
	for _, r := range c.inFlight {
		if r.sent != 0 && r.end <= c.heard {
			w.fail("%v was taken in before its export began to leave at %d, and not answered", r,
				c.x.leavingAt)
		}
	}
}

// markResisted marks that a shutdown had to end the connection of a client that resisted.
func (c *client) markResisted() {
	w := c.world
	if w.calm || w.clock < w.drainedAt+1e9 {
		return
	}
	if c.habit.restless && !c.parted {
		w.mark(markDrainedRestless)
	}
	if c.habit.drips && len(c.unsent) > 0 && c.unsent[0].begun != 0 && c.unsent[0].Payload() > 0 {
		w.mark(markDrainedDripping)
	}
}

// slow reports whether one of its requests has been under way so long that the server may have
// evicted it.
func (c *client) slow() bool {
	for _, r := range c.inFlight {
		if r.begun != 0 && c.world.ranSince(r.begunAt, r.pausedAtStart) > 4e9 {
			return true
		}
	}
	return false
}

// inParts reports whether the engine has too little memory to serve a request at once.
func (c *client) inParts(r *request) bool {
	e := c.plan()
	return c.world.Plan.Scanty && r.Length > pieceSize &&
		(r.Command == proto.CmdWrite && e.Backing != Null ||
			r.Command == proto.CmdRead && e.survives())
}

// torn reports whether the disk failed during a READ in parts, whose simple reply had promised
// success.
func (c *client) torn() bool {
	d := c.model.disk
	candidates := c.inFlight
	if c.reading != nil { // its header is here already
		candidates = append(candidates[:len(candidates):len(candidates)], c.reading)
	}
	for _, r := range candidates {
		if r.Command != proto.CmdRead || !c.inParts(r) || c.habit.session.Framing != proto.Simple {
			continue
		}
		for _, f := range d.faults {
			if f.tick > r.begun && f.lo < r.hi() && r.lo() < f.hi {
				return true
			}
		}
		if r.hi() > d.minLength {
			return true
		}
	}
	return false
}

// drop forgets the connection; the client may open another.
func (c *client) drop() {
	for _, r := range c.inFlight { // may be read when the export has other facts, and be done then
		size := c.x.disk.plan.Size - c.x.base
		if c.world.Plan.Live && r.sent != 0 && r.isChange() && !r.fatal && !r.changes &&
			c.x.disk.plan.Backing != Null && r.Length > 0 && r.Length <= size &&
			r.Offset <= size-r.Length {
			r.changes = true
			c.model.mayHappen(r)
		}
	}
	c.sock.clientClose()
	c.sock.client = nil
	c.world.note("gone", "client connection unanswered", int64(c.id), int64(c.conn),
		int64(len(c.inFlight)))
	c.sock, c.out, c.unsent, c.inFlight = nil, nil, nil, nil
	c.head, c.reading, c.chunk, c.payload = nil, nil, nil, nil
}
