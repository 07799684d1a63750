// Requests that a server should refuse, or may refuse, and the errors that the protocol asks for.
//
// Invariant: an answer that the protocol allows is never a failure here, and an answer that it
// forbids is never a mere deviation.

package conform

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"ringnbd/proto"
)

// beyondError has the error of each command for a range beyond the end of the export ("Error
// values" in the protocol).
var beyondError = map[uint16]uint32{
	proto.CmdRead: einval, proto.CmdWrite: enospc, proto.CmdTrim: einval, proto.CmdCache: einval,
	proto.CmdWriteZeroes: enospc, proto.CmdBlockStatus: einval,
}

func pick[V any](first bool, a, b V) V {
	if first {
		return a
	}
	return b
}

// inStep is stillUp without the wait for stray bytes, for checks that ask often: stray bytes would
// show in the next reply, and at the end.
func (c *conn) inStep(after string) {
	if problem := c.t.try(func() {
		reply := c.succeeds(newRead(0, uint64(len(c.t.profile.probe))))
		if i := firstDifference(reply.data, c.t.profile.probe); c.t.profile.probeKnown && i >= 0 {
			c.t.failf("byte %d of the export is %#x, and was %#x when the suite began", i,
				reply.data[i], c.t.profile.probe[i])
		}
	}); problem != "" {
		c.t.failf("the stream is out of step after %s: %s", after, problem)
	}
}

// newRequest returns a command on a range, with data if it is a WRITE.
func newRequest(command uint16, offset, length uint64) *request {
	r := newCommand(command, offset, length)
	if command == proto.CmdWrite {
		r.payload = fill(length+offset, int(length))
	}
	return r
}

// attempt sends a request for which a server may hang up, and returns its reply, or nil if the
// server hung up. The request's data is sent while the reply is awaited, so that neither side waits
// for the other; complete says that the server took all of it.
func (c *conn) attempt(r *request) (reply *reply, complete bool) {
	c.number(r)
	c.expect(r)
	sent := c.writeAside(c.encode(r))
	if open, _ := c.openAfter(c.t.left()); !open {
		c.pending = nil
		return nil, false
	}
	reply = c.nextReply()
	return reply, <-sent == nil
}

// refused sends a request that is wrong. The protocol asks for one of these errors, and lets a
// server hang up because the client broke a rule; that is a deviation, and so are another error and
// success, unless the request would have changed data beyond the end. A server that does not hang
// up must stay in step.
func (c *conn) refused(r *request, errors ...uint32) *reply {
	if !slices.Contains(errors, 0) {
		c.fillWithReads(r)
	}
	reply, complete := c.attempt(r)
	if reply == nil {
		c.differOnce(r, "the server hangs up instead of answering "+errnoList(errors))
		c.reopen(r.String())
		return nil
	}
	c.judgeRefusal(reply, errors)
	problem := c.t.try(func() { c.inStep(r.String()) })
	if problem == "" && complete {
		return reply
	}
	if open, _ := c.openAfter(c.t.patience / 10); open {
		c.t.failf("%s", pick(problem != "", problem, "the data of "+r.String()+" was not read"))
	}
	c.differOnce(r, "the server hangs up after answering "+errnoName(reply.errno))
	c.reopen(r.String())
	return reply
}

// fillWithReads fills the data of a WRITE that should be refused with READs. A server that does not
// drain the data answers those READs, with a cookie that was not sent; on other data it would hang
// up, which would look intended.
func (c *conn) fillWithReads(r *request) {
	if len(r.payload) == 0 || r.command != proto.CmdWrite {
		return
	}
	one := c.encode(&request{cookie: 0x6261697462616974, length: c.t.block()})
	r.payload = bytes.Repeat(one, len(r.payload)/len(one)+1)[:len(r.payload)]
}

func (c *conn) judgeRefusal(reply *reply, errors []uint32) {
	for _, e := range errors {
		if reply.errno == e {
			return
		}
	}
	r := reply.request
	beyond := r.offset > c.size || r.length > c.size-r.offset
	if reply.errno == 0 && beyond && r.length > 0 &&
		(r.command == proto.CmdWrite || r.command == proto.CmdWriteZeroes) {
		c.t.failf("%s: success, although the export ends at %d", r, c.size)
	}
	c.differOnce(r, errnoName(reply.errno)+" instead of "+errnoList(errors))
}

// differOnce notes a deviation once for each command, with the first request that showed it, and
// not again for other modes and ranges.
func (c *conn) differOnce(r *request, what string) {
	what = commandName(r.command) + ": " + what
	for _, noted := range c.t.differs {
		if strings.HasPrefix(noted, what+" (") {
			return
		}
	}
	c.t.differ("%s (%s, %s)", what, r, c.mode)
}

func commandName(command uint16) string {
	if name := proto.CommandName(command); name != "" {
		return name
	}
	return "an unknown command"
}

func errnoList(errors []uint32) string {
	text := ""
	for i, e := range errors {
		if i > 0 {
			text += " or "
		}
		text += errnoName(e)
	}
	return text
}

// reopen replaces a connection that the server closed by a new connection in the same mode, and
// proves that this works.
func (c *conn) reopen(after string) {
	c.close()
	*c = *c.t.open(c.mode)
	c.stillUp(after)
}

// alive proves by a new connection that the server still serves.
func (t *trial) alive(after string) {
	c := t.open(t.profile.bestMode())
	defer c.close()
	c.stillUp(after)
}

// survives sends a request whose outcome is unspecified, after which only the connection must live.
// It returns nil if the server hung up.
func (c *conn) survives(r *request) *reply {
	reply, complete := c.attempt(r)
	if reply == nil || !complete {
		c.differOnce(r, "the server hangs up")
		c.reopen(r.String())
		return nil
	}
	c.inStep(r.String())
	return reply
}

// wantRead sends a READ and fails unless it brings exactly want.
func (c *conn) wantRead(r *request, want []byte, when string) *reply {
	reply := c.succeeds(r)
	if i := firstDifference(reply.data, want); i >= 0 {
		c.t.failf("%s: %s: the byte at %d is not what it should be", when, r, r.offset+uint64(i))
	}
	return reply
}

// writeData sends a WRITE, which must succeed.
func (c *conn) writeData(offset uint64, data []byte) { c.succeeds(newWrite(offset, data)) }

// timed runs f and returns how long it took.
func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// hexFlag returns the name of a command flag, or its number.
func hexFlag(flag uint16) string {
	names := map[uint16]string{
		proto.CmdFlagFUA: "FUA", proto.CmdFlagNoHole: "NO_HOLE", proto.CmdFlagDF: "DF",
		proto.CmdFlagReqOne: "REQ_ONE", proto.CmdFlagFastZero: "FAST_ZERO",
		proto.CmdFlagPayloadLen: "PAYLOAD_LEN",
	}
	if name, ok := names[flag]; ok {
		return name
	}
	return fmt.Sprintf("%#x", flag)
}

func hex(n uint32) string { return fmt.Sprintf("%#08x", n) }
