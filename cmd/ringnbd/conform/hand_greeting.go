// Newstyle handshake: the banner, the client's flags, the shape of options (rules H-01 to H-16).
//
// Invariant: a check that expects an answer also shows that nothing comes behind it.

package conform

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"ringnbd/proto"
)

const unknownOption = 0x1234

var greetingChecks = []Check{
	{"H-01", Must,
		"the server speaks first: 18 bytes, NBDMAGIC, IHAVEOPT and the handshake flags, and no more",
		"a client that waits for the banner would wait for ever, or take a stray byte for a reply",
		nil, func(t *T) {
			c := t.Dial()
			c.banner()
			c.Silent(4*quiet, "after the banner")
		}},
	{"H-02", Must, "FIXED_NEWSTYLE is set, and no handshake bit that does not exist",
		"without it a client cannot ask for anything but one export", nil, func(t *T) {
			c := t.Dial()
			c.banner()
			t.Want(c.Handshake&proto.FlagFixedNewstyle != 0,
				"the handshake flags are %#x: FIXED_NEWSTYLE is missing", c.Handshake)
			t.Want(c.Handshake&^(proto.FlagFixedNewstyle|proto.FlagNoZeroes) == 0,
				"the handshake flags are %#x: only bits 0 and 1 exist", c.Handshake)
			t.Prefer(c.Handshake&proto.FlagNoZeroes != 0, "NO_ZEROES is not offered")
		}},
	{"H-03a", Must, "a client flag that does not exist (bit 2) closes the connection",
		"the flag would change what comes next, and the two sides would disagree", nil, func(t *T) {
			t.flagsRefused(1 << 2)
		}},
	{"H-03b", Must, "a client flag that does not exist (bit 31) closes the connection",
		"the flag would change what comes next, and the two sides would disagree", nil, func(t *T) {
			t.flagsRefused(1 << 31)
		}},
	{"H-04", Must, "the client flag NO_ZEROES closes the connection if the server did not offer it",
		"the server would send zeroes that the client does not read", []Need{Without(NeedNoZeroes)},
		func(t *T) {
			t.flagsRefused(proto.FlagClientNoZeroes)
		}},
	{"H-05", Must,
		"the 124 zeroes are left out only for a client that set NO_ZEROES, whatever others did",
		"a client that reads them takes the replies behind for zeroes", []Need{NeedNoZeroes},
		checkZeroes},
	{"H-06", May, "a client that does not know fixed newstyle opens an export by EXPORT_NAME",
		"clients older than 2012 do that", nil, func(t *T) {
			c := t.Greet(0)
			if problem := t.Try(func() {
				c.SendOption(proto.OptExportName, []byte(t.Export()))
				c.readExportName(false)
			}); problem != "" {
				t.Differ("%s", problem)
				return
			}
			c.StillUp("EXPORT_NAME without client flags")
		}},
	{"H-07", May, "another option from a client that does not know fixed newstyle is answered",
		"a client that gets an answer can go on, one that is cut off cannot", nil, func(t *T) {
			c := t.Greet(0)
			c.SendOption(proto.OptList, nil)
			if open, _ := c.Hangs(t.Left() / 2); !open {
				t.Differ("the server closes the connection")
				return
			}
			for range 2 { // the second time proves that the first left nothing behind
				list := c.ReadReplies(proto.OptList)
				c.WantReply(list[len(list)-1], "LIST", proto.RepAck, proto.RepErrInvalid,
					proto.RepErrUnsup, proto.RepErrPolicy)
				c.Silent(quiet, "after the reply to LIST")
				c.SendOption(proto.OptList, nil)
			}
		}},
	{"H-08", Must, "no TLS for a client that does not know fixed newstyle",
		"such a client cannot have asked for it: its bytes are something else", nil, func(t *T) {
			c := t.Greet(0)
			c.SendOption(proto.OptStartTLS, nil)
			if open, _ := c.Hangs(t.Left() / 2); open {
				r := c.ReadReply(proto.OptStartTLS)
				t.Want(r.Failed(), "STARTTLS is answered by %s", r)
			}
		}},
	{"H-09", Must, "an option with a wrong magic closes the connection, without an answer",
		"nobody can know where the next option begins", nil, func(t *T) {
			c := t.Haggle()
			b := optionBytes(proto.OptList, nil)
			b[0] ^= 0x20
			c.Write(b)
			c.Closed("after an option with a wrong magic")
		}},
	{"H-10a", Must, "an unknown option without data is ERR_UNSUP, and the negotiation goes on",
		"clients find out what a server can do by asking", nil, func(t *T) {
			t.unsupported(unknownOption, 0)
		}},
	{"H-10b", Must,
		"an unknown option with a byte of data is ERR_UNSUP, the byte is skipped, and the " +
			"negotiation goes on",
		"clients find out what a server can do by asking", nil, func(t *T) {
			t.unsupported(unknownOption, 1)
		}},
	{"H-10c", Must,
		"an unknown option with 64 KiB of data is ERR_UNSUP, all is skipped, and the " +
			"negotiation goes on",
		"clients find out what a server can do by asking", nil, func(t *T) {
			t.unsupported(unknownOption, 64<<10)
		}},
	{"H-11", Must, "a reply names the option exactly as it was sent, 0 and 0xffffffff too",
		"a client that asks several things tells the answers apart by it", nil, func(t *T) {
			for _, option := range []uint32{0, 0x7fffffff, 0x80000001, 0xffffffff, 0x00010003} {
				t.unsupported(option, 3)
			}
		}},
	{"H-12", Must, "every option gets one final reply, an ACK or an error, and nothing behind it",
		"a client knows by it that its turn has come", nil, checkFinalReplies},
	{"H-13", Quality, "the texts of errors are strings of the right length",
		"they are shown to people, and what is behind is the next reply", nil, func(t *T) {
			c := t.Haggle()
			for _, r := range []OptionReply{c.Final(unknownOption, nil),
				c.Final(proto.OptInfo, []byte{1}), c.Final(proto.OptInfo, InfoData(unknownName))} {
				t.Prefer(!r.Failed() || len(r.Data) > 0, "%s has no text", r)
			}
			c.StillHaggling("errors with texts")
		}},
	{"H-14a", May, "STRUCTURED_REPLY twice is ACK or ERR_INVALID",
		"what has been agreed on can be agreed on again, and is no reason to hang up",
		[]Need{NeedStructured}, func(t *T) {
			t.twice(proto.OptStructuredReply)
		}},
	{"H-14b", May, "EXTENDED_HEADERS twice is ACK or ERR_INVALID",
		"what has been agreed on can be agreed on again, and is no reason to hang up",
		[]Need{NeedExtended}, func(t *T) {
			t.twice(proto.OptExtendedHeaders)
		}},
	{"H-15", Must, "a dozen mistakes in a row are all answered, and the negotiation goes on",
		"the only reason to hang up while haggling is a client that breaks the protocol", nil,
		checkMistakes},
	{"H-16", Quality, "options that are sent without waiting are answered in their order",
		"a server that reads ahead must not lose what it read", nil, checkPipelinedOptions},
}

// flagsRefused answers the banner with a flag that may not be there.
func (t *T) flagsRefused(bit uint32) {
	c := t.Dial()
	c.banner()
	c.Write(binary.BigEndian.AppendUint32(nil, proto.FlagClientFixedNewstyle|bit))
	_ = c.TryWrite(optionBytes(proto.OptList, nil)) // the server may be gone
	c.Closed(fmt.Sprintf("after the client flags %#x", proto.FlagClientFixedNewstyle|bit))
}

func checkZeroes(t *T) {
	for _, flags := range []uint32{proto.FlagClientFixedNewstyle | proto.FlagClientNoZeroes,
		proto.FlagClientFixedNewstyle, 0} {
		c := t.Greet(flags)
		c.SendOption(proto.OptExportName, []byte(t.Export()))
		c.readExportName(flags&proto.FlagClientNoZeroes != 0)
		c.StillUp(fmt.Sprintf("EXPORT_NAME with the client flags %#x", flags))
	}
}

// unsupported sends an option that does not exist.
func (t *T) unsupported(option uint32, n int) {
	c := t.Haggle()
	c.Refused(option, bytes.Repeat([]byte("IHAVEOPT"), n/8+1)[:n],
		fmt.Sprintf("option %#x with %d bytes", option, n), proto.RepErrUnsup)
}

func checkFinalReplies(t *T) {
	c := t.Haggle()
	for _, o := range []struct {
		option uint32
		data   []byte
	}{
		{proto.OptList, nil}, {proto.OptInfo, InfoData(t.Export())}, {proto.OptInfo,
			InfoData(unknownName)}, {proto.OptStructuredReply, nil},
		{proto.OptListMetaContext, ContextData(t.Export())},
		{proto.OptSetMetaContext, ContextData(t.Export())}, {proto.OptPeekExport, nil},
		{unknownOption, nil},
	} {
		c.Option(o.option, o.data)
		c.StillHaggling(fmt.Sprintf("option %#x", o.option))
	}
}

func (t *T) twice(option uint32) {
	c := t.Haggle()
	c.WantReply(c.Final(option, nil), "the first time", proto.RepAck)
	r := c.Final(option, nil)
	c.WantReply(r, "the second time", proto.RepAck, proto.RepErrInvalid)
	c.StillHaggling("the same option twice")
}

func checkMistakes(t *T) {
	c := t.Haggle()
	for i := range 4 {
		c.Final(unknownOption+uint32(i), []byte("x"))
		c.Final(proto.OptInfo, []byte{0, 0, 0, byte(i)})
		c.Final(proto.OptList, []byte("x"))
	}
	c.StillHaggling("a dozen mistakes")
}

func checkPipelinedOptions(t *T) {
	c := t.Haggle()
	var b []byte
	for _, o := range []uint32{proto.OptList, unknownOption, proto.OptList, unknownOption + 1} {
		b = append(b, optionBytes(o, nil)...)
	}
	b = append(b, optionBytes(proto.OptInfo, InfoData(t.Export()))...)
	b = append(b, optionBytes(proto.OptAbort, nil)...)
	c.Write(b)
	for _, o := range []uint32{proto.OptList, unknownOption, proto.OptList, unknownOption + 1,
		proto.OptInfo} {
		c.ReadReplies(o)
	}
	c.WantReply(c.ReadReply(proto.OptAbort), "ABORT behind them", proto.RepAck)
	c.Closed("after ABORT")
}
