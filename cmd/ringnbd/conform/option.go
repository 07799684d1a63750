// Options and their replies, read strictly.
//
// Invariant: a reply is believed only after its magic, its option, its length and every string in
// it have been checked; each option's replies end in exactly one ACK or error.

package conform

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"unicode/utf8"

	"ringnbd/proto"
)

// OptionReply is one reply to an option.
type OptionReply struct {
	Type uint32
	Data []byte
}

// Failed says whether the reply is an error.
func (r OptionReply) Failed() bool { return r.Type&proto.RepErrorBit != 0 }

// String is the reply's name and, of an error, its text.
func (r OptionReply) String() string {
	if r.Failed() && len(r.Data) > 0 {
		return fmt.Sprintf("%s (%q)", ReplyName(r.Type), r.Data)
	}
	return ReplyName(r.Type)
}

var replyNames = map[uint32]string{
	proto.RepAck: "ACK", proto.RepServer: "SERVER", proto.RepInfo: "INFO",
	proto.RepMetaContext: "META_CONTEXT", proto.RepErrUnsup: "ERR_UNSUP",
	proto.RepErrPolicy: "ERR_POLICY", proto.RepErrInvalid: "ERR_INVALID",
	proto.RepErrPlatform: "ERR_PLATFORM", proto.RepErrTLSReqd: "ERR_TLS_REQD",
	proto.RepErrUnknown: "ERR_UNKNOWN", proto.RepErrShutdown: "ERR_SHUTDOWN",
	proto.RepErrBlockSizeReqd: "ERR_BLOCK_SIZE_REQD",
	proto.RepErrTooBig:        "ERR_TOO_BIG", proto.RepErrExtHeaderReqd: "ERR_EXT_HEADER_REQD",
}

// ReplyName is the spec's name of an option reply, without NBD_REP_.
func ReplyName(kind uint32) string {
	if name, ok := replyNames[kind]; ok {
		return name
	}
	return fmt.Sprintf("reply type %#x", kind)
}

// longestReply bounds the data of an option reply: a name and a description, and the numbers before
// them.
const longestReply = 2*proto.MaxString + 8

// mostReplies bounds all replies to one option, in bytes: a million exports with short names.
const mostReplies = 32 << 20

// optionBytes is an option with its data.
func optionBytes(option uint32, data []byte) []byte {
	return proto.AppendOption(nil, option, string(data))
}

// SendOption sends an option and reads nothing.
func (c *Conn) SendOption(option uint32, data []byte) { c.Write(optionBytes(option, data)) }

// ReadReply reads one reply to an option.
func (c *Conn) ReadReply(option uint32) OptionReply {
	what := fmt.Sprintf("a reply to option %#x", option)
	h := c.Read(proto.OptionReplySize, what)
	magic, echoed := binary.BigEndian.Uint64(h), binary.BigEndian.Uint32(h[8:])
	kind, length := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
	switch {
	case magic != proto.OptionReplyMagic:
		c.t.Failf("%s: wrong magic:%s", what, shown(h))
	case echoed != option:
		c.t.Failf("%s: it names option %#x", what, echoed)
	case length > longestReply:
		c.t.Failf("%s: %s with %d bytes of data, more than any such reply has", what,
			ReplyName(kind), length)
	}
	r := OptionReply{kind, c.Read(int(length), what+": its data")}
	c.checkReply(r, what)
	return r
}

// checkReply judges a reply by itself: its type, its lengths, its strings.
func (c *Conn) checkReply(r OptionReply, what string) {
	if _, known := replyNames[r.Type]; !known {
		c.t.Failf("%s: %s is not one of the protocol", what, ReplyName(r.Type))
	}
	switch {
	case r.Failed():
		c.checkString(r.Data, what+": the text of "+ReplyName(r.Type))
	case r.Type == proto.RepAck && len(r.Data) > 0:
		c.t.Failf("%s: an ACK with data%s", what, shown(r.Data))
	case r.Type == proto.RepServer:
		if len(r.Data) < 4 || uint64(binary.BigEndian.Uint32(r.Data)) > uint64(len(r.Data)-4) {
			c.t.Failf("%s: SERVER whose name is longer than its data%s", what, shown(r.Data))
		}
		end := 4 + binary.BigEndian.Uint32(r.Data)
		c.checkString(r.Data[4:end], what+": an export's name")
		c.checkString(r.Data[end:], what+": an export's description")
	case r.Type == proto.RepInfo:
		if len(r.Data) < 2 {
			c.t.Failf("%s: INFO of %d bytes, which has no type", what, len(r.Data))
		}
	case r.Type == proto.RepMetaContext:
		if len(r.Data) < 5 {
			c.t.Failf("%s: META_CONTEXT of %d bytes, which has no name", what, len(r.Data))
		}
		c.checkString(r.Data[4:], what+": a context's name")
	}
}

// checkString judges a string of the server (spec, "String values"; rule T-02).
func (c *Conn) checkString(b []byte, what string) {
	switch {
	case len(b) > proto.MaxString:
		c.t.Failf("%s has %d bytes; strings have at most %d (T-02, a MUST)", what, len(b),
			proto.MaxString)
	case bytes.IndexByte(b, 0) >= 0:
		c.t.Failf("%s has a NUL, which no string may have (T-02, a MUST): %q", what, b)
	case !utf8.Valid(b):
		c.t.Failf("%s is not UTF-8 (T-02, a MUST): %q", what, b)
	}
}

// repliesTo are the options that a reply of each type, neither ACK nor error, belongs to.
var repliesTo = map[uint32][]uint32{
	proto.RepServer: {proto.OptList}, proto.RepInfo: {proto.OptInfo,
		proto.OptGo}, proto.RepMetaContext: {proto.OptListMetaContext, proto.OptSetMetaContext},
}

// ReadReplies reads the replies to an option up to its final one, which is the last of the list.
func (c *Conn) ReadReplies(option uint32) []OptionReply {
	var list []OptionReply
	bytes := 0
	for {
		r := c.ReadReply(option)
		list = append(list, r)
		bytes += proto.OptionReplySize + len(r.Data)
		if r.Type == proto.RepAck || r.Failed() {
			return list
		}
		switch {
		case !slices.Contains(repliesTo[r.Type], option):
			c.t.Failf("option %#x is answered by %s, which does not belong to it", option, r)
		case bytes > mostReplies:
			c.t.Failf("option %#x: after %d replies of %d bytes there is no end of them", option,
				len(list), bytes)
		}
	}
}

// Option sends an option and reads its replies; the final one is the last.
func (c *Conn) Option(option uint32, data []byte) []OptionReply {
	c.SendOption(option, data)
	return c.ReadReplies(option)
}

// Final sends an option and gives the final reply.
func (c *Conn) Final(option uint32, data []byte) OptionReply {
	list := c.Option(option, data)
	return list[len(list)-1]
}

// WantReply fails unless the reply is one of these types.
func (c *Conn) WantReply(r OptionReply, when string, kinds ...uint32) {
	names := ""
	for i, kind := range kinds {
		if r.Type == kind {
			return
		}
		if i > 0 {
			names += " or "
		}
		names += ReplyName(kind)
	}
	c.t.Failf("%s: answered by %s, not by %s", when, r, names)
}

// StillHaggling proves that the negotiation is in step: an unknown option on the same connection,
// with data, gets its own error, and nothing else comes. (Not LIST: a server may answer that once
// only.)
func (c *Conn) StillHaggling(after string) {
	const option = 0x5a5a5a5a
	if problem := c.t.Try(func() {
		c.WantReply(c.Final(option, []byte("are you there?")), "an unknown option",
			proto.RepErrUnsup)
		c.Silent(quiet, "after the reply to an unknown option")
	}); problem != "" {
		c.t.Failf("the negotiation is out of step after %s: %s", after, problem)
	}
}

// Refused sends an option that must be refused, with one of these errors, and proves that the
// negotiation goes on.
func (c *Conn) Refused(option uint32, data []byte, what string, kinds ...uint32) OptionReply {
	r := c.Final(option, data)
	c.WantReply(r, what, kinds...)
	c.StillHaggling(what)
	return r
}

// Prefers sends an option that should get one of these final replies; another one is a deviation.
// Either way the negotiation must go on.
func (c *Conn) Prefers(option uint32, data []byte, what string, kinds ...uint32) OptionReply {
	r := c.Final(option, data)
	if problem := c.t.Try(func() { c.WantReply(r, what, kinds...) }); problem != "" {
		c.t.Differ("%s", problem)
	}
	c.StillHaggling(what)
	return r
}
