// Checks of EXPORT_NAME, ABORT, LIST, PEEK_EXPORT, and of STARTTLS on a server without TLS (E, A,
// LI, P, TL).
//
// Invariant: EXPORT_NAME has no error reply, so every refusal of it must be a closed connection
// without a byte.

package conform

import (
	"bytes"
	"encoding/binary"

	"ringnbd/proto"
)

var exportNameChecks = []Check{
	{"E-01a", must, []need{needNoZeroes},
		"EXPORT_NAME is answered by size and flags in 10 bytes, and transmission begins",
		"the next byte would be taken for the first reply",
		func(t *trial) {
			t.exportName(proto.FlagClientFixedNewstyle | proto.FlagClientNoZeroes)
		}},
	{"E-01b", must, nil,
		"EXPORT_NAME is answered by size, flags and 124 zeroes unless the client opts out",
		"the next byte would be taken for the first reply",
		func(t *trial) {
			t.exportName(proto.FlagClientFixedNewstyle)
		}},
	{"E-02", must, []need{needNames},
		"EXPORT_NAME with an unknown name closes the connection without a byte",
		"EXPORT_NAME has no error reply: a client would take any bytes for a size",
		func(t *trial) {
			c := t.haggle()
			c.sendOption(proto.OptExportName, []byte(unknownName))
			c.wantClosed("after EXPORT_NAME with an unknown name")
		}},
	{"E-04", must, nil,
		"the empty name opens the default export if INFO knows one, and closes the connection " +
			"otherwise",
		"EXPORT_NAME and INFO must mean the same export",
		checkDefaultName},
	{"E-05a", must, nil,
		"EXPORT_NAME with 4097 bytes closes the connection",
		"strings have at most 4096 bytes; a buffer of that size would overflow",
		func(t *trial) {
			c := t.haggle()
			_ = c.tryWrite(optionBytes(proto.OptExportName, bytes.Repeat([]byte("n"), 4097)))
			c.wantClosed("after EXPORT_NAME with 4097 bytes")
		}},
	{"E-05b", quality, nil,
		"EXPORT_NAME that announces 4 GiB closes the connection before the 4 GiB have come",
		"any client could use up the server's memory and time",
		func(t *trial) {
			c := t.haggle()
			b := optionBytes(proto.OptExportName, bytes.Repeat([]byte("n"), 64<<10))
			binary.BigEndian.PutUint32(b[12:], 0xffffffff)
			_ = c.tryWrite(b)
			open, got := c.openAfter(t.left() / 4)
			t.want(len(got) == 0, "the server answers%s", shown(got))
			t.prefer(!open, "the server waits for the rest of the name")
		}},
	{"E-06", must, []need{needFixed},
		"EXPORT_NAME works after other options, even after options that failed",
		"clients fall back to EXPORT_NAME",
		func(t *trial) {
			c := t.haggle()
			c.option(proto.OptList, nil)
			c.option(unknownOption, []byte("x"))
			c.option(proto.OptInfo, infoData(unknownName))
			c.enterExportName(t.export())
			c.stillUp("EXPORT_NAME after other options")
		}},
	{"E-07", may, []need{needBlocks},
		"EXPORT_NAME works on an export with a minimum block size",
		"clients that use EXPORT_NAME cannot learn of block sizes",
		func(t *trial) {
			if problem := t.try(func() { t.open(modeExportName) }); problem != "" {
				t.differ("%s", problem)
			}
		}},
	{"E-08", must, nil,
		"the flags of EXPORT_NAME have HAS_FLAGS, and SEND_DF only with structured replies",
		"DF means nothing in a simple reply",
		func(t *trial) {
			c := t.open(modeExportName)
			t.want(c.flags&proto.FlagHasFlags != 0,
				"the flags are %#x: HAS_FLAGS is missing", c.flags)
			t.want(c.flags&proto.FlagSendDF == 0,
				"the flags are %#x: SEND_DF although structured replies were not negotiated",
				c.flags)
		}},
	{"E-09", quality, []need{needExtended},
		"EXPORT_NAME after EXTENDED_HEADERS closes the connection",
		"the client may not use EXPORT_NAME then",
		func(t *trial) {
			c := t.haggle()
			c.negotiate(modeExtended)
			c.sendOption(proto.OptExportName, []byte(t.export()))
			open, got := c.openAfter(t.left() / 2)
			t.prefer(!open, "it is answered%s", shown(got))
		}},
	{"E-10", should, nil,
		"EXPORT_NAME works",
		"old clients know nothing else",
		func(t *trial) {
			if problem := t.try(func() {
				t.open(modeExportName).stillUp("EXPORT_NAME")
			}); problem != "" {
				t.differ("%s", problem)
			}
		}},
}

var listChecks = []Check{
	{"A-01", must, nil,
		"ABORT is acknowledged, and the connection closed",
		"a client that leaves politely should not have to wait",
		func(t *trial) {
			c := t.haggle()
			c.wantReply(c.finalReply(proto.OptAbort, nil), "ABORT", proto.RepAck)
			c.wantClosed("after ABORT")
		}},
	{"A-02", should, nil,
		"ABORT with data is acknowledged all the same",
		"an error is of no use to a client that leaves",
		func(t *trial) {
			c := t.haggle()
			if problem := t.try(func() {
				c.wantReply(c.finalReply(proto.OptAbort, []byte("goodbye")), "ABORT with data",
					proto.RepAck)
			}); problem != "" {
				t.differ("%s", problem)
			}
		}},
	{"A-03", should, nil,
		"clients that send ABORT and close at once do no harm",
		"the reply meets a closed connection, and SIGPIPE kills servers",
		func(t *trial) {
			for range 20 {
				c := t.haggle()
				c.sendOption(proto.OptAbort, nil)
				c.close()
			}
			t.haggle().stillHaggling("twenty clients that left")
		}},
	{"LI-01a", must, []need{needList},
		"LIST is answered by one SERVER for each export, and an ACK",
		"people find exports by LIST",
		func(t *trial) {
			c := t.haggle()
			list := c.option(proto.OptList, nil)
			seen := map[string]bool{}
			for _, r := range list[:len(list)-1] {
				name, _, _ := proto.ParseServer(r.data) // its form was judged while it was read
				t.want(!seen[name], "the export %q is listed twice", name)
				seen[name] = true
			}
			c.stillHaggling("LIST")
		}},
	{"LI-01b", quality, []need{needList},
		"LIST can be sent again",
		"a client may repeat an option, above all one that failed",
		func(t *trial) {
			c := t.haggle()
			first, second := len(c.option(proto.OptList, nil)), c.option(proto.OptList, nil)
			last := second[len(second)-1]
			t.prefer(last.kind == proto.RepAck && len(second) == first,
				"the second LIST is answered by %s after %d replies; the first had %d",
				last, len(second), first)
		}},
	{"LI-02", must, []need{needList, needGo},
		"each SERVER has a name inside its data, and a description that is a string; GO takes " +
			"the name",
		"a name that is listed and cannot be opened is of no use",
		func(t *trial) {
			c := t.haggle()
			for _, name := range t.profile.Names[:min(len(t.profile.Names), 10)] {
				r := c.finalReply(proto.OptInfo, infoData(name))
				t.want(r.kind != proto.RepErrUnknown,
					"the export %q is listed, and INFO says %s", name, r)
			}
		}},
	{"LI-03", should, nil,
		"LIST with data is ERR_INVALID, the data is skipped, and the negotiation goes on",
		"the data may mean something to a later version of the protocol",
		func(t *trial) {
			t.haggle().preferReply(proto.OptList, []byte("data"), "LIST with data",
				proto.RepErrInvalid)
		}},
	{"LI-04", may, []need{without(needList)},
		"a server that does not list its exports answers LIST by ERR_POLICY",
		"every server knows LIST, so ERR_UNSUP would be wrong",
		func(t *trial) {
			t.haggle().preferReply(proto.OptList, nil, "LIST", proto.RepErrPolicy)
		}},
	{"LI-08", must, nil,
		"LIST is known",
		"the protocol requires it of every server",
		func(t *trial) {
			r := t.haggle().finalReply(proto.OptList, nil)
			t.want(r.kind != proto.RepErrUnsup, "LIST is answered by %s", r)
		}},
	{"P-01", must, nil,
		"PEEK_EXPORT, which was withdrawn, is ERR_UNSUP, with data and without",
		"its meaning is not defined",
		func(t *trial) {
			t.wantUnsupported(proto.OptPeekExport, 0)
			t.wantUnsupported(proto.OptPeekExport, 7)
		}},
	{"TL-01", must, nil,
		"an export is served without TLS",
		"the protocol requires it of every server",
		func(t *trial) {
			t.open(t.profile.bestMode()).stillUp("a handshake without TLS")
		}},
	{"TL-02", must, nil,
		"a server without TLS answers STARTTLS by ERR_UNSUP or ERR_POLICY, and the negotiation " +
			"goes on",
		"clients that can do without TLS go on without it",
		func(t *trial) {
			c := t.haggle()
			r := c.finalReply(proto.OptStartTLS, nil)
			if r.kind == proto.RepAck {
				t.skip("the server has TLS")
			}
			c.wantReply(r, "STARTTLS", proto.RepErrUnsup, proto.RepErrPolicy)
			c.stillHaggling("STARTTLS")
		}},
	{"TL-03", must, nil,
		"STARTTLS with data is refused, and the data is skipped",
		"after an ACK the data would be taken for the start of TLS",
		func(t *trial) {
			t.haggle().refusedOption(proto.OptStartTLS, []byte("\x16\x03\x01\x00\x00"),
				"STARTTLS with data", proto.RepErrInvalid, proto.RepErrUnsup, proto.RepErrPolicy)
		}},
}

func (t *trial) exportName(flags uint32) {
	c := t.greet(flags)
	c.sendOption(proto.OptExportName, []byte(t.export()))
	c.readExportName(flags&proto.FlagClientNoZeroes != 0)
	t.want(c.size == t.profile.Size, "the size is %d, and %d by INFO", c.size, t.profile.Size)
	c.wantSilence(quiet, "after the reply to EXPORT_NAME")
	c.stillUp("EXPORT_NAME")
}

func checkDefaultName(t *trial) {
	r := t.haggle().finalReply(proto.OptInfo, infoData(""))
	c := t.haggle()
	c.sendOption(proto.OptExportName, nil)
	if open, _ := c.openAfter(t.left() / 2); !open {
		t.want(r.kind != proto.RepAck, "INFO knows the default export, EXPORT_NAME does not")
		return
	}
	c.readExportName(c.handshake&proto.FlagNoZeroes != 0)
	t.want(r.kind != proto.RepErrUnknown, "EXPORT_NAME knows the default export, INFO says %s", r)
	c.succeeds(newRead(0, uint64(len(t.profile.probe))))
}
