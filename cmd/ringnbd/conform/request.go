// Requests, in compact and extended form.
//
// Invariant: every request that will be answered is in conn.pending from before it is sent until
// its reply is complete.

package conform

import (
	"fmt"

	"ringnbd/engine/client"
	"ringnbd/proto"
)

// request is one request. It may be wrong in any way; payload is sent as it is, whatever length
// says.
type request struct {
	flags   uint16
	command uint16
	cookie  uint64
	offset  uint64
	length  uint64 // compact headers have 32 bits of it
	payload []byte
	bare    bool // without PAYLOAD_LEN, which a WRITE has with extended headers and a payload
}

// unpermitted begins the reason of a skip by a check that ought to have needWrite.
const unpermitted = "no permission for "

// String returns the request for a person to read.
func (r *request) String() string {
	name := client.CommandName(r.command)
	if r.flags != 0 {
		name += fmt.Sprintf(" (flags %#x)", r.flags)
	}
	return fmt.Sprintf("%s of %d bytes at %d", name, r.length, r.offset)
}

// The functions below make requests without a cookie: send makes up a cookie for a request that has
// 0 (a check that wants the cookie 0 sends the request by conn.write).

// newRead returns a READ.
func newRead(offset, length uint64) *request {
	return &request{command: proto.CmdRead, offset: offset, length: length}
}

// newWrite returns a WRITE of all of data.
func newWrite(offset uint64, data []byte) *request {
	return &request{command: proto.CmdWrite, offset: offset, length: uint64(len(data)),
		payload: data}
}

// newCommand returns any command without data.
func newCommand(kind uint16, offset, length uint64) *request {
	return &request{command: kind, offset: offset, length: length}
}

// with adds flags to the request and returns it.
func (r *request) with(flags uint16) *request {
	r.flags |= flags
	return r
}

// changes reports whether the request would change data on a server that carries it out, or on a
// server that cuts the number of the command to 8 bits. Other numbers that the protocol does not
// have count as harmless: they have no meaning, and how they are refused is a subject of the suite.
func (r *request) changes() bool {
	switch r.command & 0xff {
	case proto.CmdWrite, proto.CmdTrim, proto.CmdWriteZeroes, proto.CmdResize:
		return true
	}
	return false
}

// encode returns the request as bytes, in the connection's form. It stops every request that would
// change an export which the user did not give to the suite, whatever is wrong with the request:
// that the server should refuse it is not a reason to risk the data.
func (c *conn) encode(r *request) []byte {
	if r.changes() && !c.mayChange {
		c.t.skip("%s%s: it may not be sent without --writable", unpermitted, r)
	}
	head := proto.Request{Flags: r.flags, Command: r.command, Cookie: r.cookie, Offset: r.offset,
		Length: r.length}
	b := make([]byte, proto.ExtRequestSize, proto.ExtRequestSize+len(r.payload))
	if !c.mode.extended() {
		b = b[:proto.RequestSize]
		proto.PutRequest(b, &head)
		return append(b, r.payload...)
	}
	if r.command == proto.CmdWrite && len(r.payload) > 0 && !r.bare {
		head.Flags |= proto.CmdFlagPayloadLen
	}
	proto.PutExtRequest(b, &head)
	return append(b, r.payload...)
}

// expect notes that a request will be answered; for requests that a check sends by conn.write and
// the like.
func (c *conn) expect(r *request) {
	if r.command != proto.CmdDisc {
		c.pending = append(c.pending, &pending{reply: &reply{request: r}})
	}
}

// number gives a request without a cookie one that no other request has, and returns the request.
func (c *conn) number(r *request) *request {
	if r.cookie == 0 {
		c.cookie++
		r.cookie = c.cookie<<32 | 0xc0ffee
	}
	return r
}

// send numbers a request, sends it and expects its reply.
func (c *conn) send(r *request) {
	c.number(r)
	c.expect(r)
	c.write(c.encode(r))
}

// sendAll sends requests in one piece, and expects their replies.
func (c *conn) sendAll(list ...*request) {
	var b []byte
	for _, r := range list {
		c.number(r)
		c.expect(r)
		b = append(b, c.encode(r)...)
	}
	c.write(b)
}

// do sends a request and returns its reply. No other request may be in flight.
func (c *conn) do(r *request) *reply {
	c.send(r)
	return c.nextReply()
}

// succeeds sends a request that must succeed, and returns its reply.
func (c *conn) succeeds(r *request) *reply {
	reply := c.do(r)
	if reply.errno != 0 {
		c.t.failf("%s fails with %s", r, reply.errorText())
	}
	return reply
}

// stillUp proves that the stream is in step: a short READ is answered with its own cookie and the
// right data, and nothing else comes.
func (c *conn) stillUp(after string) {
	if problem := c.t.try(func() {
		if len(c.pending) > 0 {
			c.t.failf("%d requests have not been answered", len(c.pending))
		}
		probe := c.t.profile.probe
		reply := c.succeeds(newRead(0, uint64(len(probe))))
		// A read-only export has other data; there the cookie is the whole proof.
		ours := c.t.profile.probeKnown && !c.foreign &&
			c.flags&proto.FlagReadOnly == c.t.profile.FlagsPlain&proto.FlagReadOnly
		if at := firstDifference(reply.data, probe); at >= 0 && ours {
			c.t.failf("byte %d of the export is %#x, and was %#x when the suite began",
				at, reply.data[at], probe[at])
		}
		c.wantSilence(quiet, "after the reply")
	}); problem != "" {
		c.t.failf("the stream is out of step after %s: a READ of the first bytes: %s",
			after, problem)
	}
}

// disconnect sends DISC and waits for the server to close without another byte.
func (c *conn) disconnect() {
	c.send(c.number(newCommand(proto.CmdDisc, 0, 0)))
	c.wantClosed("after DISC")
}

// firstDifference returns the index of the first byte that differs, or -1.
func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) != len(b) {
		return min(len(a), len(b))
	}
	return -1
}
