// Replies: parsed in the stage, in whatever order and pieces they arrive. Payload is dropped where
// it lies, or judged there, sector by sector.
//
// Invariant: stage bytes [start, end) are received and not parsed. The bytes left there when a RECV
// is due are the beginning of a header or, when verifying, of a sector.

package load

import "ringnbd/proto"

// parse consumes what is complete: headers, and payload, in whole sectors if it is verified.
func (l *loop) parse(i uint32) {
	c := &l.conns[i]
	if c.fd < 0 || c.start == c.end {
		return
	}
	stage := l.arena.Bytes(l.layout.stageAt(i), int(l.layout.stage))
	for c.state <= connLeaving {
		have := c.end - c.start
		if c.body == none {
			if have < proto.SimpleReplySize {
				return
			}
			at := c.start
			c.start += proto.SimpleReplySize
			l.replied(i, stage[at:c.end])
			continue
		}
		n := min(have, c.bodyLeft)
		if l.plan.table != nil {
			n -= n % sector
			l.judge(c, stage[c.start:c.start+n])
		}
		c.start += n
		c.bodyLeft -= n
		if c.bodyLeft > 0 {
			return
		}
		body := c.body
		c.body = none
		l.done(body, 0)
	}
}

// replied consumes a header.
func (l *loop) replied(i uint32, b []byte) {
	cookie, errno, err := proto.ParseSimpleReply(b)
	if err != nil {
		l.lose(i, err)
		return
	}
	row := uint32(cookie)
	if row >= uint32(len(l.slots)) {
		l.lose(i, errCookie)
		return
	}
	s := &l.slots[row]
	if !s.live || s.conn != i || uint64(s.generation) != cookie>>32 {
		l.lose(i, errCookie)
		return
	}
	if s.kind != kindRead || errno != proto.Success {
		l.done(row, uint32(errno))
		return
	}
	c := &l.conns[i]
	c.body, c.bodyLeft = row, s.length
	if l.plan.table != nil {
		c.judge.begin(s.offset, uint64(s.length))
	}
}

// judge checks whole sectors of a read.
func (l *loop) judge(c *conn, b []byte) {
	l.tally.judged += uint64(len(b))
	for ; len(b) > 0; b = b[sector:] {
		if f, bad := c.judge.look(b); bad {
			l.tally.find(f)
		}
	}
}
