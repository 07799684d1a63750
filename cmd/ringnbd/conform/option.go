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

// optionReply is one reply to an option.
type optionReply struct {
	kind uint32
	data []byte
}

// failed reports whether the reply is an error.
func (r optionReply) failed() bool { return r.kind&proto.RepErrorBit != 0 }

// String returns the reply's name, and the text of an error.
func (r optionReply) String() string {
	if r.failed() && len(r.data) > 0 {
		return fmt.Sprintf("%s (%q)", replyName(r.kind), r.data)
	}
	return replyName(r.kind)
}

var replyNames = map[uint32]string{
	proto.RepAck:              "ACK",
	proto.RepServer:           "SERVER",
	proto.RepInfo:             "INFO",
	proto.RepMetaContext:      "META_CONTEXT",
	proto.RepErrUnsup:         "ERR_UNSUP",
	proto.RepErrPolicy:        "ERR_POLICY",
	proto.RepErrInvalid:       "ERR_INVALID",
	proto.RepErrPlatform:      "ERR_PLATFORM",
	proto.RepErrTLSReqd:       "ERR_TLS_REQD",
	proto.RepErrUnknown:       "ERR_UNKNOWN",
	proto.RepErrShutdown:      "ERR_SHUTDOWN",
	proto.RepErrBlockSizeReqd: "ERR_BLOCK_SIZE_REQD",
	proto.RepErrTooBig:        "ERR_TOO_BIG",
	proto.RepErrExtHeaderReqd: "ERR_EXT_HEADER_REQD",
}

// replyName returns the protocol's name of an option reply, without NBD_REP_.
func replyName(kind uint32) string {
	if name, ok := replyNames[kind]; ok {
		return name
	}
	return fmt.Sprintf("reply type %#x", kind)
}

// maxReply limits the data of an option reply, in bytes: a name, a description and the numbers
// before them.
const maxReply = 2*proto.MaxString + 8

// maxReplies limits all replies to one option, in bytes: a million exports with short names.
const maxReplies = 32 << 20

// optionBytes returns an option with its data.
func optionBytes(option uint32, data []byte) []byte {
	return proto.AppendOption(nil, option, string(data))
}

// sendOption sends an option and reads nothing.
func (c *conn) sendOption(option uint32, data []byte) { c.write(optionBytes(option, data)) }

// readOptionReply reads one reply to an option.
func (c *conn) readOptionReply(option uint32) optionReply {
	what := fmt.Sprintf("a reply to option %#x", option)
	h := c.read(proto.OptionReplySize, what)
	magic, echoed := binary.BigEndian.Uint64(h), binary.BigEndian.Uint32(h[8:])
	kind, length := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
	switch {
	case magic != proto.OptionReplyMagic:
		c.t.failf("%s: wrong magic:%s", what, shown(h))
	case echoed != option:
		c.t.failf("%s: it names option %#x", what, echoed)
	case length > maxReply:
		c.t.failf("%s: %s with %d bytes of data, more than an option reply can have",
			what, replyName(kind), length)
	}
	r := optionReply{kind, c.read(int(length), what+": its data")}
	c.checkReply(r, what)
	return r
}

// checkReply judges what can be judged of a single reply: its type, its lengths, its strings.
func (c *conn) checkReply(r optionReply, what string) {
	if _, known := replyNames[r.kind]; !known {
		c.t.failf("%s: the protocol does not have %s", what, replyName(r.kind))
	}
	switch {
	case r.failed():
		c.checkString(r.data, what+": the text of "+replyName(r.kind))
	case r.kind == proto.RepAck && len(r.data) > 0:
		c.t.failf("%s: an ACK with data%s", what, shown(r.data))
	case r.kind == proto.RepServer:
		if len(r.data) < 4 || uint64(binary.BigEndian.Uint32(r.data)) > uint64(len(r.data)-4) {
			c.t.failf("%s: a SERVER whose name is longer than its data%s", what, shown(r.data))
		}
		end := 4 + binary.BigEndian.Uint32(r.data)
		c.checkString(r.data[4:end], what+": an export's name")
		c.checkString(r.data[end:], what+": an export's description")
	case r.kind == proto.RepInfo:
		if len(r.data) < 2 {
			c.t.failf("%s: an INFO of %d bytes, which has no type", what, len(r.data))
		}
	case r.kind == proto.RepMetaContext:
		if len(r.data) < 5 {
			c.t.failf("%s: a META_CONTEXT of %d bytes, which has no name", what, len(r.data))
		}
		c.checkString(r.data[4:], what+": a context's name")
	}
}

// checkString judges a string from the server ("String values" in the protocol; rule T-02).
func (c *conn) checkString(b []byte, what string) {
	switch {
	case len(b) > proto.MaxString:
		c.t.failf("%s has %d bytes; strings have at most %d (T-02, a MUST)",
			what, len(b), proto.MaxString)
	case bytes.IndexByte(b, 0) >= 0:
		c.t.failf("%s has a NUL, which no string may have (T-02, a MUST): %q", what, b)
	case !utf8.Valid(b):
		c.t.failf("%s is not UTF-8 (T-02, a MUST): %q", what, b)
	}
}

// repliesTo has the options that each type of reply, other than ACK and errors, belongs to.
var repliesTo = map[uint32][]uint32{
	proto.RepServer:      {proto.OptList},
	proto.RepInfo:        {proto.OptInfo, proto.OptGo},
	proto.RepMetaContext: {proto.OptListMetaContext, proto.OptSetMetaContext},
}

// readOptionReplies reads the replies to an option; the final reply is the last of the list.
func (c *conn) readOptionReplies(option uint32) []optionReply {
	var list []optionReply
	bytes := 0
	for {
		r := c.readOptionReply(option)
		list = append(list, r)
		bytes += proto.OptionReplySize + len(r.data)
		if r.kind == proto.RepAck || r.failed() {
			return list
		}
		switch {
		case !slices.Contains(repliesTo[r.kind], option):
			c.t.failf("option %#x is answered by %s, which does not belong to it", option, r)
		case bytes > maxReplies:
			c.t.failf("option %#x: the replies do not end, after %d replies of %d bytes",
				option, len(list), bytes)
		}
	}
}

// option sends an option and reads its replies; the final reply is the last of the list.
func (c *conn) option(option uint32, data []byte) []optionReply {
	c.sendOption(option, data)
	return c.readOptionReplies(option)
}

// finalReply sends an option and returns the final reply.
func (c *conn) finalReply(option uint32, data []byte) optionReply {
	list := c.option(option, data)
	return list[len(list)-1]
}

// wantReply fails unless the reply is one of these types.
func (c *conn) wantReply(r optionReply, when string, kinds ...uint32) {
	names := ""
	for i, kind := range kinds {
		if r.kind == kind {
			return
		}
		if i > 0 {
			names += " or "
		}
		names += replyName(kind)
	}
	c.t.failf("%s: answered by %s, not by %s", when, r, names)
}

// stillHaggling proves that the negotiation is in step: an unknown option with data, on the same
// connection, gets its own error, and nothing else comes. (LIST would not do: a server may answer
// it once only.)
func (c *conn) stillHaggling(after string) {
	const option = 0x5a5a5a5a
	if problem := c.t.try(func() {
		c.wantReply(c.finalReply(option, []byte("are you there?")), "an unknown option",
			proto.RepErrUnsup)
		c.wantSilence(quiet, "after the reply to an unknown option")
	}); problem != "" {
		c.t.failf("the negotiation is out of step after %s: %s", after, problem)
	}
}

// refusedOption sends an option that must be refused with one of these errors, and proves that the
// negotiation goes on.
func (c *conn) refusedOption(option uint32, data []byte, what string, kinds ...uint32) optionReply {
	r := c.finalReply(option, data)
	c.wantReply(r, what, kinds...)
	c.stillHaggling(what)
	return r
}

// preferReply sends an option that should get one of these final replies; another final reply is a
// deviation. Either way the negotiation must go on.
func (c *conn) preferReply(option uint32, data []byte, what string, kinds ...uint32) optionReply {
	r := c.finalReply(option, data)
	if problem := c.t.try(func() { c.wantReply(r, what, kinds...) }); problem != "" {
		c.t.differ("%s", problem)
	}
	c.stillHaggling(what)
	return r
}
