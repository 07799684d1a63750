// Requests, in compact and extended form.
//
// Invariant: every request that will be answered stands in Conn.pending from before it is sent
// until its reply is whole.

package conform

import (
	"fmt"

	"ringnbd/engine/client"
	"ringnbd/proto"
)

// Request is one request. Any nonsense can be sent; Payload is sent as it is, whatever Length says.
type Request struct {
	Flags   uint16
	Type    uint16
	Cookie  uint64
	Offset  uint64
	Length  uint64 // the header has 32 bits of it with compact headers
	Payload []byte
	// Bare keeps PAYLOAD_LEN away from a WRITE with extended headers, which otherwise is set when
	// there is a Payload.
	Bare bool
}

// unpermitted begins the reason of a skip that only a check has that should have asked for
// NeedWrite.
const unpermitted = "no permission for "

// String is the request for a person.
func (r *Request) String() string {
	name := client.CommandName(r.Type)
	if r.Flags != 0 {
		name += fmt.Sprintf(" (flags %#x)", r.Flags)
	}
	return fmt.Sprintf("%s of %d bytes at %d", name, r.Length, r.Offset)
}

// Read, Write and so on make requests without a cookie: Send makes one up for those that have 0 (a
// check that wants 0 itself sends it by Write).

// Read is a READ.
func Read(offset, length uint64) *Request {
	return &Request{Type: proto.CmdRead, Offset: offset, Length: length}
}

// Write is a WRITE of all of data.
func Write(offset uint64, data []byte) *Request {
	return &Request{Type: proto.CmdWrite, Offset: offset, Length: uint64(len(data)), Payload: data}
}

// Command is any command without data.
func Command(kind uint16, offset, length uint64) *Request {
	return &Request{Type: kind, Offset: offset, Length: length}
}

// With gives the request these flags, too.
func (r *Request) With(flags uint16) *Request {
	r.Flags |= flags
	return r
}

// changes says whether the request would change data on a server that does as it is told, or on one
// that cuts the number of the command to 8 bits. Numbers that the protocol does not have are taken
// for harmless beyond that: nobody agreed on what they do, and how they are refused is what the
// suite is about.
func (r *Request) changes() bool {
	switch r.Type & 0xff {
	case proto.CmdWrite, proto.CmdTrim, proto.CmdWriteZeroes, proto.CmdResize:
		return true
	}
	return false
}

// Encode is the request as bytes, in the connection's form. No check gets past it with what would
// change an export that nobody gave to the suite, whatever is wrong with the request: that the
// server should refuse it is no reason to risk the data.
func (c *Conn) Encode(r *Request) []byte {
	if r.changes() && !c.mayChange {
		c.t.Skip("%s%s: it may not be sent without --writable", unpermitted, r)
	}
	head := proto.Request{Flags: r.Flags, Command: r.Type, Cookie: r.Cookie, Offset: r.Offset,
		Length: r.Length}
	b := make([]byte, proto.ExtRequestSize, proto.ExtRequestSize+len(r.Payload))
	if !c.Mode.Extended() {
		b = b[:proto.RequestSize]
		proto.PutRequest(b, &head)
		return append(b, r.Payload...)
	}
	if r.Type == proto.CmdWrite && len(r.Payload) > 0 && !r.Bare {
		head.Flags |= proto.CmdFlagPayloadLen
	}
	proto.PutExtRequest(b, &head)
	return append(b, r.Payload...)
}

// Expect notes that a request will be answered; for those that a check sends by Write and the like.
func (c *Conn) Expect(r *Request) {
	if r.Type != proto.CmdDisc {
		c.pending = append(c.pending, &pending{reply: &Reply{Request: r}})
	}
}

// Name gives a request without a cookie one that no other has, and returns it.
func (c *Conn) Name(r *Request) *Request {
	if r.Cookie == 0 {
		c.cookie++
		r.Cookie = c.cookie<<32 | 0xc0ffee
	}
	return r
}

// Send sends a request, with a cookie of its own if it has none, and expects its reply.
func (c *Conn) Send(r *Request) {
	c.Name(r)
	c.Expect(r)
	c.Write(c.Encode(r))
}

// SendAll sends requests in one piece, and expects their replies.
func (c *Conn) SendAll(list ...*Request) {
	var b []byte
	for _, r := range list {
		c.Name(r)
		c.Expect(r)
		b = append(b, c.Encode(r)...)
	}
	c.Write(b)
}

// Do sends a request and reads its reply. No other request may be in flight.
func (c *Conn) Do(r *Request) *Reply {
	c.Send(r)
	return c.Next()
}

// Succeeds sends a request that must succeed.
func (c *Conn) Succeeds(r *Request) *Reply {
	reply := c.Do(r)
	if reply.Errno != 0 {
		c.t.Failf("%s fails with %s", r, reply.Error())
	}
	return reply
}

// StillUp proves that the stream is in step: a short READ brings its own cookie and the right data,
// and nothing else comes.
func (c *Conn) StillUp(after string) {
	if problem := c.t.Try(func() {
		if len(c.pending) > 0 {
			c.t.Failf("%d requests have not been answered", len(c.pending))
		}
		probe := c.t.facts.probe
		reply := c.Succeeds(Read(0, uint64(len(probe))))
		// A read-only export has data of its own; there the cookie must do.
		ours := c.t.facts.probeKnown && !c.foreign &&
			c.Flags&proto.FlagReadOnly == c.t.facts.FlagsPlain&proto.FlagReadOnly
		if at := firstDifference(reply.Data, probe); at >= 0 && ours {
			c.t.Failf("byte %d of the export is %#x, and was %#x when the suite began", at,
				reply.Data[at], probe[at])
		}
		c.Silent(quiet, "after the reply")
	}); problem != "" {
		c.t.Failf("the stream is out of step after %s: a READ of the first bytes: %s", after,
			problem)
	}
}

// Disconnect sends DISC and waits for the server to close without another byte.
func (c *Conn) Disconnect() {
	c.Send(c.Name(Command(proto.CmdDisc, 0, 0)))
	c.Closed("after DISC")
}

// firstDifference is the index of the first byte that differs, or -1.
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
