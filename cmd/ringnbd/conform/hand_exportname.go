// EXPORT_NAME, ABORT, LIST, PEEK_EXPORT, and what a server without TLS says to STARTTLS (rules E,
// A, LI, P, TL).
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
	{"E-01a", Must,
		"EXPORT_NAME is answered by size and flags in 10 bytes, and transmission begins",
		"the next byte is taken for the first reply", []Need{NeedNoZeroes}, func(t *T) {
			t.exportName(proto.FlagClientFixedNewstyle | proto.FlagClientNoZeroes)
		}},
	{"E-01b", Must,
		"EXPORT_NAME is answered by size, flags and 124 zeroes unless the client opts out",
		"the next byte is taken for the first reply", nil, func(t *T) {
			t.exportName(proto.FlagClientFixedNewstyle)
		}},
	{"E-02", Must, "EXPORT_NAME with an unknown name closes the connection without a byte",
		"there is no error reply to it: whatever came would be taken for a size", []Need{NeedNames},
		func(t *T) {
			c := t.Haggle()
			c.SendOption(proto.OptExportName, []byte(unknownName))
			c.Closed("after EXPORT_NAME with an unknown name")
		}},
	{"E-04", Must, "the empty name is the default export, or closes the connection, as INFO has it",
		"EXPORT_NAME and INFO should not speak of different exports", nil, checkDefaultName},
	{"E-05a", Must, "EXPORT_NAME with 4097 bytes closes the connection",
		"strings have at most 4096 bytes; a buffer of that size would overflow", nil, func(t *T) {
			c := t.Haggle()
			_ = c.TryWrite(optionBytes(proto.OptExportName, bytes.Repeat([]byte("n"), 4097)))
			c.Closed("after EXPORT_NAME with 4097 bytes")
		}},
	{"E-05b", Quality,
		"EXPORT_NAME that announces 4 GiB closes the connection before they have come",
		"memory and time are the server's, and anybody can ask", nil, func(t *T) {
			c := t.Haggle()
			b := optionBytes(proto.OptExportName, bytes.Repeat([]byte("n"), 64<<10))
			binary.BigEndian.PutUint32(b[12:], 0xffffffff)
			_ = c.TryWrite(b)
			open, got := c.Hangs(t.Left() / 4)
			t.Want(len(got) == 0, "the server answers%s", shown(got))
			t.Prefer(!open, "the server waits for the rest of the name")
		}},
	{"E-06", Must, "EXPORT_NAME works after other options, failed ones too",
		"clients fall back to it", []Need{NeedFixed}, func(t *T) {
			c := t.Haggle()
			c.Option(proto.OptList, nil)
			c.Option(unknownOption, []byte("x"))
			c.Option(proto.OptInfo, InfoData(unknownName))
			c.EnterExportName(t.Export())
			c.StillUp("EXPORT_NAME after other options")
		}},
	{"E-07", May, "EXPORT_NAME works on an export with a minimum block size, too",
		"the clients that use it cannot learn of block sizes", []Need{NeedBlocks}, func(t *T) {
			if problem := t.Try(func() { t.Open(ModeExportName) }); problem != "" {
				t.Differ("%s", problem)
			}
		}},
	{"E-08", Must,
		"the flags of EXPORT_NAME have HAS_FLAGS, and SEND_DF only with structured replies",
		"DF means nothing in a simple reply", nil, func(t *T) {
			c := t.Open(ModeExportName)
			t.Want(c.Flags&proto.FlagHasFlags != 0, "the flags are %#x: HAS_FLAGS is missing",
				c.Flags)
			t.Want(c.Flags&proto.FlagSendDF == 0,
				"the flags are %#x: SEND_DF although structured replies were not negotiated",
				c.Flags)
		}},
	{"E-09", Quality, "EXPORT_NAME after EXTENDED_HEADERS closes the connection",
		"the client may not use it then", []Need{NeedExtended}, func(t *T) {
			c := t.Haggle()
			c.Negotiate(ModeExtended)
			c.SendOption(proto.OptExportName, []byte(t.Export()))
			open, got := c.Hangs(t.Left() / 2)
			t.Prefer(!open, "it is answered%s", shown(got))
		}},
	{"E-10", Should, "EXPORT_NAME works",
		"it is all that old clients know", nil, func(t *T) {
			if problem := t.Try(func() {
				t.Open(ModeExportName).StillUp("EXPORT_NAME")
			}); problem != "" {
				t.Differ("%s", problem)
			}
		}},
}

var listChecks = []Check{
	{"A-01", Must, "ABORT is acknowledged, and the connection closed",
		"a client that leaves politely should not have to wait", nil, func(t *T) {
			c := t.Haggle()
			c.WantReply(c.Final(proto.OptAbort, nil), "ABORT", proto.RepAck)
			c.Closed("after ABORT")
		}},
	{"A-02", Should, "ABORT with data is acknowledged all the same",
		"there is nothing to be gained from an error to somebody who leaves", nil, func(t *T) {
			c := t.Haggle()
			if problem := t.Try(func() {
				c.WantReply(c.Final(proto.OptAbort, []byte("goodbye")), "ABORT with data",
					proto.RepAck)
			}); problem != "" {
				t.Differ("%s", problem)
			}
		}},
	{"A-03", Should, "clients that send ABORT and are gone do no harm",
		"the answer finds nobody, and SIGPIPE kills servers", nil, func(t *T) {
			for range 20 {
				c := t.Haggle()
				c.SendOption(proto.OptAbort, nil)
				c.Close()
			}
			t.Haggle().StillHaggling("twenty clients that left")
		}},
	{"LI-01a", Must, "LIST is answered by one SERVER for each export, and an ACK",
		"it is how people find exports", []Need{NeedList}, func(t *T) {
			c := t.Haggle()
			list := c.Option(proto.OptList, nil)
			seen := map[string]bool{}
			for _, r := range list[:len(list)-1] {
				name, _, _ := proto.ParseServer(r.Data) // judged while it was read
				t.Want(!seen[name], "the export %q is listed twice", name)
				seen[name] = true
			}
			c.StillHaggling("LIST")
		}},
	{"LI-01b", Quality, "LIST can be asked again",
		"what failed once can be asked again; and options do not wear out", []Need{NeedList},
		func(t *T) {
			c := t.Haggle()
			first, second := len(c.Option(proto.OptList, nil)), c.Option(proto.OptList, nil)
			last := second[len(second)-1]
			t.Prefer(last.Type == proto.RepAck && len(second) == first,
				"the second time it is answered by %s after %d replies, the first time there "+
					"were %d", last, len(second), first)
		}},
	{"LI-02", Must,
		"each SERVER has a name inside its data, and a description that is a string; GO takes " +
			"the name",
		"a name that is listed and cannot be opened helps nobody", []Need{NeedList, NeedGo},
		func(t *T) {
			c := t.Haggle()
			for _, name := range t.facts.Names[:min(len(t.facts.Names), 10)] {
				r := c.Final(proto.OptInfo, InfoData(name))
				t.Want(r.Type != proto.RepErrUnknown, "the export %q is listed, and INFO says %s",
					name, r)
			}
		}},
	{"LI-03", Should,
		"LIST with data is ERR_INVALID, the data is skipped, and the negotiation goes on",
		"the data may mean something to a later version of the protocol", nil, func(t *T) {
			t.Haggle().Prefers(proto.OptList, []byte("data"), "LIST with data", proto.RepErrInvalid)
		}},
	{"LI-04", May, "a server that does not list says ERR_POLICY",
		"LIST is known to every server: ERR_UNSUP would be a lie", []Need{Without(NeedList)},
		func(t *T) {
			t.Haggle().Prefers(proto.OptList, nil, "LIST", proto.RepErrPolicy)
		}},
	{"LI-08", Must, "LIST is known",
		"it belongs to the baseline of the protocol", nil, func(t *T) {
			r := t.Haggle().Final(proto.OptList, nil)
			t.Want(r.Type != proto.RepErrUnsup, "LIST is answered by %s", r)
		}},
	{"P-01", Must, "PEEK_EXPORT, which was withdrawn, is ERR_UNSUP, with data and without",
		"nobody knows what it would mean", nil, func(t *T) {
			t.unsupported(proto.OptPeekExport, 0)
			t.unsupported(proto.OptPeekExport, 7)
		}},
	{"TL-01", Must, "an export is served without TLS",
		"it belongs to the baseline of the protocol", nil, func(t *T) {
			t.Open(t.facts.Best()).StillUp("a handshake without TLS")
		}},
	{"TL-02", Must,
		"a server without TLS answers STARTTLS by ERR_UNSUP or ERR_POLICY, and the negotiation " +
			"goes on",
		"clients that can do without fall back", nil, func(t *T) {
			c := t.Haggle()
			r := c.Final(proto.OptStartTLS, nil)
			if r.Type == proto.RepAck {
				t.Skip("the server has TLS")
			}
			c.WantReply(r, "STARTTLS", proto.RepErrUnsup, proto.RepErrPolicy)
			c.StillHaggling("STARTTLS")
		}},
	{"TL-03", Must, "STARTTLS with data is refused, and the data is skipped",
		"after an ACK the data would be taken for the start of TLS", nil, func(t *T) {
			t.Haggle().Refused(proto.OptStartTLS, []byte("\x16\x03\x01\x00\x00"),
				"STARTTLS with data", proto.RepErrInvalid, proto.RepErrUnsup, proto.RepErrPolicy)
		}},
}

func (t *T) exportName(flags uint32) {
	c := t.Greet(flags)
	c.SendOption(proto.OptExportName, []byte(t.Export()))
	c.readExportName(flags&proto.FlagClientNoZeroes != 0)
	t.Want(c.Size == t.facts.Size, "the size is %d, and by INFO %d", c.Size, t.facts.Size)
	c.Silent(quiet, "after the reply to EXPORT_NAME")
	c.StillUp("EXPORT_NAME")
}

func checkDefaultName(t *T) {
	r := t.Haggle().Final(proto.OptInfo, InfoData(""))
	c := t.Haggle()
	c.SendOption(proto.OptExportName, nil)
	if open, _ := c.Hangs(t.Left() / 2); !open {
		t.Want(r.Type != proto.RepAck, "INFO knows the default export, EXPORT_NAME does not")
		return
	}
	c.readExportName(c.Handshake&proto.FlagNoZeroes != 0)
	t.Want(r.Type != proto.RepErrUnknown, "EXPORT_NAME knows the default export, INFO says %s", r)
	c.Succeeds(Read(0, uint64(len(t.facts.probe))))
}
