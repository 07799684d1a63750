// Checks of the newstyle handshake (H): the banner, the client's flags, the shape of options.
//
// Invariant: a check that expects an answer also shows that nothing follows it.

package conform

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"ringnbd/proto"
)

const unknownOption = 0x1234

var greetingChecks = []Check{
	{"H-01", must, nil,
		"the server speaks first: 18 bytes, NBDMAGIC, IHAVEOPT and the handshake flags, and no " +
			"more",
		"a client would wait for the banner for ever, or take a stray byte for a reply",
		func(t *trial) {
			c := t.dial()
			c.banner()
			c.wantSilence(4*quiet, "after the banner")
		}},
	{"H-02", must, nil,
		"FIXED_NEWSTYLE is set, and handshake flags that do not exist are not set",
		"without FIXED_NEWSTYLE a client can do nothing but open one export",
		func(t *trial) {
			c := t.dial()
			c.banner()
			t.want(c.handshake&proto.FlagFixedNewstyle != 0,
				"the handshake flags are %#x: FIXED_NEWSTYLE is missing", c.handshake)
			t.want(c.handshake&^(proto.FlagFixedNewstyle|proto.FlagNoZeroes) == 0,
				"the handshake flags are %#x: only bits 0 and 1 exist", c.handshake)
			t.prefer(c.handshake&proto.FlagNoZeroes != 0, "NO_ZEROES is not offered")
		}},
	{"H-03a", must, nil,
		"a client flag that does not exist (bit 2) closes the connection",
		"the flag would change what comes next, and the two sides would disagree",
		func(t *trial) {
			t.wantFlagsRefused(1 << 2)
		}},
	{"H-03b", must, nil,
		"a client flag that does not exist (bit 31) closes the connection",
		"the flag would change what comes next, and the two sides would disagree",
		func(t *trial) {
			t.wantFlagsRefused(1 << 31)
		}},
	{"H-04", must, []need{without(needNoZeroes)},
		"the client flag NO_ZEROES closes the connection if the server did not offer it",
		"the server would send zeroes that the client does not read",
		func(t *trial) {
			t.wantFlagsRefused(proto.FlagClientNoZeroes)
		}},
	{"H-05", must, []need{needNoZeroes},
		"the 124 zeroes are left out only for a client that set NO_ZEROES, whatever other " +
			"clients set",
		"a client that expects the zeroes takes the replies after them for zeroes",
		checkZeroes},
	{"H-06", may, nil,
		"a client that does not know fixed newstyle opens an export by EXPORT_NAME",
		"clients older than 2012 do so",
		func(t *trial) {
			c := t.greet(0)
			if problem := t.try(func() {
				c.sendOption(proto.OptExportName, []byte(t.export()))
				c.readExportName(false)
			}); problem != "" {
				t.differ("%s", problem)
				return
			}
			c.stillUp("EXPORT_NAME without client flags")
		}},
	{"H-07", may, nil,
		"another option from a client that does not know fixed newstyle is answered",
		"a client that gets an answer can go on; a client that is cut off cannot",
		func(t *trial) {
			c := t.greet(0)
			c.sendOption(proto.OptList, nil)
			if open, _ := c.openAfter(t.left() / 2); !open {
				t.differ("the server closes the connection")
				return
			}
			for range 2 { // the second LIST proves that the first left nothing unread
				list := c.readOptionReplies(proto.OptList)
				c.wantReply(list[len(list)-1], "LIST", proto.RepAck, proto.RepErrInvalid,
					proto.RepErrUnsup, proto.RepErrPolicy)
				c.wantSilence(quiet, "after the reply to LIST")
				c.sendOption(proto.OptList, nil)
			}
		}},
	{"H-08", must, nil,
		"STARTTLS from a client that does not know fixed newstyle does not succeed",
		"the client cannot know TLS: its bytes mean something else",
		func(t *trial) {
			c := t.greet(0)
			c.sendOption(proto.OptStartTLS, nil)
			if open, _ := c.openAfter(t.left() / 2); open {
				r := c.readOptionReply(proto.OptStartTLS)
				t.want(r.failed(), "STARTTLS is answered by %s", r)
			}
		}},
	{"H-09", must, nil,
		"an option with a wrong magic closes the connection, without an answer",
		"the server cannot know where the next option begins",
		func(t *trial) {
			c := t.haggle()
			b := optionBytes(proto.OptList, nil)
			b[0] ^= 0x20
			c.write(b)
			c.wantClosed("after an option with a wrong magic")
		}},
	{"H-10a", must, nil,
		"an unknown option without data is ERR_UNSUP, and the negotiation goes on",
		"clients find out what a server can do by asking",
		func(t *trial) {
			t.wantUnsupported(unknownOption, 0)
		}},
	{"H-10b", must, nil,
		"an unknown option with a byte of data is ERR_UNSUP, the byte is skipped, and the " +
			"negotiation goes on",
		"clients find out what a server can do by asking",
		func(t *trial) {
			t.wantUnsupported(unknownOption, 1)
		}},
	{"H-10c", must, nil,
		"an unknown option with 64 KiB of data is ERR_UNSUP, all is skipped, and the negotiation " +
			"goes on",
		"clients find out what a server can do by asking",
		func(t *trial) {
			t.wantUnsupported(unknownOption, 64<<10)
		}},
	{"H-11", must, nil,
		"a reply names the option exactly as it was sent, even 0 and 0xffffffff",
		"a client that sends several options tells the replies apart by it",
		func(t *trial) {
			for _, option := range []uint32{0, 0x7fffffff, 0x80000001, 0xffffffff, 0x00010003} {
				t.wantUnsupported(option, 3)
			}
		}},
	{"H-12", must, nil,
		"every option gets one final reply, an ACK or an error, and nothing after it",
		"the final reply tells a client that it is its turn",
		checkFinalReplies},
	{"H-13", quality, nil,
		"the texts of errors are strings of the right length",
		"the texts are shown to people, and the next reply begins where they end",
		func(t *trial) {
			c := t.haggle()
			for _, r := range []optionReply{c.finalReply(unknownOption, nil),
				c.finalReply(proto.OptInfo, []byte{1}),
				c.finalReply(proto.OptInfo, infoData(unknownName))} {
				t.prefer(!r.failed() || len(r.data) > 0, "%s has no text", r)
			}
			c.stillHaggling("errors with texts")
		}},
	{"H-14a", may, []need{needStructured},
		"STRUCTURED_REPLY twice is ACK or ERR_INVALID",
		"to agree again on what was agreed on is not a reason to hang up",
		func(t *trial) {
			t.wantTwice(proto.OptStructuredReply)
		}},
	{"H-14b", may, []need{needExtended},
		"EXTENDED_HEADERS twice is ACK or ERR_INVALID",
		"to agree again on what was agreed on is not a reason to hang up",
		func(t *trial) {
			t.wantTwice(proto.OptExtendedHeaders)
		}},
	{"H-15", must, nil,
		"a dozen mistakes in a row are all answered, and the negotiation goes on",
		"the server may hang up on a client that breaks the protocol, not on one that makes " +
			"mistakes",
		checkMistakes},
	{"H-16", quality, nil,
		"options that are sent without a wait for replies are answered in order",
		"a server that reads ahead must not lose what it read",
		checkPipelinedOptions},
}

// wantFlagsRefused answers the banner with a flag for which the server must close the connection.
func (t *trial) wantFlagsRefused(bit uint32) {
	c := t.dial()
	c.banner()
	c.write(binary.BigEndian.AppendUint32(nil, proto.FlagClientFixedNewstyle|bit))
	_ = c.tryWrite(optionBytes(proto.OptList, nil)) // the server may be gone
	c.wantClosed(fmt.Sprintf("after the client flags %#x", proto.FlagClientFixedNewstyle|bit))
}

func checkZeroes(t *trial) {
	for _, flags := range []uint32{proto.FlagClientFixedNewstyle | proto.FlagClientNoZeroes,
		proto.FlagClientFixedNewstyle, 0} {
		c := t.greet(flags)
		c.sendOption(proto.OptExportName, []byte(t.export()))
		c.readExportName(flags&proto.FlagClientNoZeroes != 0)
		c.stillUp(fmt.Sprintf("EXPORT_NAME with the client flags %#x", flags))
	}
}

// wantUnsupported sends an option that does not exist, with n bytes of data.
func (t *trial) wantUnsupported(option uint32, n int) {
	c := t.haggle()
	c.refusedOption(option, bytes.Repeat([]byte("IHAVEOPT"), n/8+1)[:n],
		fmt.Sprintf("option %#x with %d bytes", option, n), proto.RepErrUnsup)
}

func checkFinalReplies(t *trial) {
	c := t.haggle()
	for _, o := range []struct {
		option uint32
		data   []byte
	}{
		{proto.OptList, nil},
		{proto.OptInfo, infoData(t.export())},
		{proto.OptInfo, infoData(unknownName)},
		{proto.OptStructuredReply, nil},
		{proto.OptListMetaContext, contextData(t.export())},
		{proto.OptSetMetaContext, contextData(t.export())},
		{proto.OptPeekExport, nil},
		{unknownOption, nil},
	} {
		c.option(o.option, o.data)
		c.stillHaggling(fmt.Sprintf("option %#x", o.option))
	}
}

func (t *trial) wantTwice(option uint32) {
	c := t.haggle()
	c.wantReply(c.finalReply(option, nil), "the first time", proto.RepAck)
	r := c.finalReply(option, nil)
	c.wantReply(r, "the second time", proto.RepAck, proto.RepErrInvalid)
	c.stillHaggling("the same option twice")
}

func checkMistakes(t *trial) {
	c := t.haggle()
	for i := range 4 {
		c.finalReply(unknownOption+uint32(i), []byte("x"))
		c.finalReply(proto.OptInfo, []byte{0, 0, 0, byte(i)})
		c.finalReply(proto.OptList, []byte("x"))
	}
	c.stillHaggling("a dozen mistakes")
}

func checkPipelinedOptions(t *trial) {
	c := t.haggle()
	var b []byte
	for _, o := range []uint32{proto.OptList, unknownOption, proto.OptList, unknownOption + 1} {
		b = append(b, optionBytes(o, nil)...)
	}
	b = append(b, optionBytes(proto.OptInfo, infoData(t.export()))...)
	b = append(b, optionBytes(proto.OptAbort, nil)...)
	c.write(b)
	for _, o := range []uint32{proto.OptList, unknownOption, proto.OptList, unknownOption + 1,
		proto.OptInfo} {
		c.readOptionReplies(o)
	}
	c.wantReply(c.readOptionReply(proto.OptAbort), "ABORT after them", proto.RepAck)
	c.wantClosed("after ABORT")
}
