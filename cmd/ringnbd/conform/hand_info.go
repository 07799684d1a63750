// INFO and GO (rules G-01 to G-20).
//
// Invariant: INFO is used where both would do, for after it the negotiation can be proven to be in
// step.

package conform

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"reflect"
	"slices"

	"ringnbd/proto"
)

var infoChecks = []Check{
	{"G-01a", Must,
		"INFO and GO with fewer than 6 bytes of data are ERR_INVALID, and the negotiation goes on",
		"a server that reads a length that is not there reads the next option", []Need{NeedGo},
		checkInfoShort},
	{"G-01b", Must,
		"INFO and GO whose name is longer than their data are ERR_INVALID, all of the data is " +
			"skipped, and the negotiation goes on",
		"such lengths have overflowed buffers", []Need{NeedGo}, checkInfoLongName},
	{"G-01c", Must,
		"INFO and GO with more or fewer requests than they count are ERR_INVALID, all of the " +
			"data is skipped, and the negotiation goes on",
		"what is left over would be taken for the next option", []Need{NeedGo}, checkInfoCount},
	{"G-02", Must, "INFO and GO with an unknown name are ERR_UNKNOWN, and the negotiation goes on",
		"a client may have another name to try", []Need{NeedGo, NeedNames}, checkUnknownExport},
	{"G-03", Must, "success is one INFO_EXPORT among the INFO replies, and the ACK at the end",
		"size and flags must be known before the first request", []Need{NeedGo}, func(t *T) {
			c := t.Haggle()
			c.WantReply(OptionReply{Type: c.info(proto.OptInfo, t.Export())}, "INFO", proto.RepAck)
			c.WantReply(OptionReply{Type: c.info(proto.OptGo, t.Export())}, "GO", proto.RepAck)
		}},
	{"G-04", Must, "after GO's ACK transmission begins at once, without padding",
		"the next byte is taken for the first reply", []Need{NeedGo}, checkGoAtOnce},
	{"G-05", Must, "after INFO the negotiation goes on",
		"a client asks about many exports before it chooses", []Need{NeedGo}, func(t *T) {
			c := t.Haggle()
			for range 3 {
				c.WantReply(OptionReply{Type: c.info(proto.OptInfo, t.Export())}, "INFO",
					proto.RepAck)
				c.StillHaggling("INFO")
			}
			c.EnterGo(t.Export())
			c.StillUp("INFO, then GO")
		}},
	{"G-06", Must, "INFO, then GO with the same data tell the same",
		"a client that relies on INFO would use a wrong size", []Need{NeedGo}, checkSameInfo},
	{"G-07", Must, "unknown information requests are ignored",
		"clients ask for what is yet to be invented", []Need{NeedGo}, func(t *T) {
			c := t.Haggle()
			list := c.Option(proto.OptInfo, InfoData(t.Export(), 0x7777, 0xffff, proto.InfoExport))
			c.WantReply(list[len(list)-1], "INFO with unknown requests", proto.RepAck)
			c.Infos(list)
			c.StillHaggling("INFO with unknown requests")
		}},
	{"G-08", May, "a repeated information request is served or ERR_INVALID",
		"it is the client's mistake, and no reason to hang up", []Need{NeedGo}, func(t *T) {
			c := t.Haggle()
			b := proto.InfoBlockSize
			list := c.Option(proto.OptInfo,
				InfoData(t.Export(), b, b, b, proto.InfoName, proto.InfoName))
			c.WantReply(list[len(list)-1], "repeated requests", proto.RepAck, proto.RepErrInvalid)
			t.Prefer(len(c.Infos(list).Types) <= 4, "they are answered by %d INFO replies",
				len(list)-1)
			c.StillHaggling("repeated information requests")
		}},
	{"G-09", May, "INFO without requests works",
		"nbd-client asks for nothing", []Need{NeedGo}, func(t *T) {
			c := t.Haggle()
			list := c.Option(proto.OptInfo, InfoData(t.Export()))
			c.WantReply(list[len(list)-1], "INFO without requests", proto.RepAck)
			c.Infos(list)
			c.StillHaggling("INFO without requests")
		}},
	{"G-10", Must, "INFO_NAME is the export's canonical name, as LIST has it",
		"a client keeps it to come back", []Need{NeedGo}, checkCanonicalName},
	{"G-11", Must, "INFO_DESCRIPTION is the text that LIST has",
		"people choose by it", []Need{NeedGo, NeedList}, checkDescription},
	{"G-12", Should, "INFO_BLOCK_SIZE is sent to a client that asks, with 14 bytes",
		"without it a client has to guess what is fast, and how long a request may be",
		[]Need{NeedGo}, func(t *T) {
			c := t.Haggle()
			list := c.Option(proto.OptInfo, InfoData(t.Export(), proto.InfoBlockSize))
			c.WantReply(list[len(list)-1], "INFO", proto.RepAck)
			t.Prefer(c.Infos(list).Block != nil, "there is no INFO_BLOCK_SIZE")
		}},
	{"G-13", Must,
		"ERR_BLOCK_SIZE_REQD never comes to a client that asked for block sizes, and should not " +
			"to others",
		"many clients cannot ask", []Need{NeedGo}, checkBlockSizeRequired},
	{"G-14", Must, "GO with the empty name opens the default export, as INFO has it",
		"it is what most clients send", []Need{NeedGo}, func(t *T) {
			c := t.Haggle()
			asked, opened := c.info(proto.OptInfo, ""), c.info(proto.OptGo, "")
			t.Want(asked == opened, "INFO says %s, GO says %s", ReplyName(asked), ReplyName(opened))
			if asked != proto.RepAck {
				c.StillHaggling("GO for a default export that does not exist")
			}
		}},
	{"G-15a", Quality, "a name of 4096 bytes, the longest there is, is ERR_UNKNOWN",
		"it is a name as any other", []Need{NeedGo, NeedNames}, func(t *T) {
			t.Haggle().Prefers(proto.OptInfo, InfoData(string(bytes.Repeat([]byte("n"), 4096))),
				"a name of 4096 bytes", proto.RepErrUnknown)
		}},
	{"G-15b", Quality,
		"a name of 4097 bytes is ERR_INVALID or ERR_TOO_BIG, and the negotiation goes on",
		"strings have at most 4096 bytes; a buffer of that size would overflow", []Need{NeedGo},
		func(t *T) {
			t.Haggle().Prefers(proto.OptInfo, InfoData(string(bytes.Repeat([]byte("n"), 4097))),
				"a name of 4097 bytes", proto.RepErrInvalid, proto.RepErrTooBig)
		}},
	{"G-15c", Quality, "65535 information requests are served, or ERR_INVALID or ERR_TOO_BIG",
		"it is the most that can be asked", []Need{NeedGo}, func(t *T) {
			t.Haggle().Prefers(proto.OptInfo, InfoData(t.Export(), make([]uint16, 65535)...),
				"65535 information requests", proto.RepAck, proto.RepErrInvalid, proto.RepErrTooBig)
		}},
	{"G-18a", Must, "INFO and GO are known",
		"they belong to the baseline of the protocol", nil, func(t *T) {
			c := t.Haggle()
			for _, option := range []uint32{proto.OptInfo, proto.OptGo} {
				r := c.Final(option, InfoData(t.Export()))
				t.Want(r.Type != proto.RepErrUnsup, "option %d is answered by %s", option, r)
			}
		}},
	{"G-18b", Must,
		"SEND_DF is in the flags of INFO_EXPORT only after structured replies were negotiated " +
			"on that connection",
		"DF means nothing in a simple reply", []Need{NeedGo}, checkEarlyDF},
	{"G-19", Must, "the size in INFO_EXPORT is the export's, in bytes, and that of EXPORT_NAME",
		"a disk that is too short or too long loses data", []Need{NeedGo}, checkTrueSize},
	{"G-20", Quality, "the last bytes of an export whose size is not a multiple of 512 can be read",
		"they are somebody's data",
		[]Need{{"an export whose size is not a multiple of 512 (--size cannot make one)",
			func(f *Facts) bool {
				return f.Size%512 != 0
			}}}, func(t *T) {
			c := t.Open(t.facts.Best())
			n := c.Size % 512
			reply := c.Do(Read(c.Size-n, n))
			t.Prefer(reply.Errno == 0, "a READ of the last %d bytes: %s", n, reply.Error())
			c.StillUp("a READ of the last bytes")
		}},
}

// info sends INFO or GO, judges the replies and gives the type of the final one.
func (c *Conn) info(option uint32, name string) uint32 {
	list := c.Option(option,
		InfoData(name, proto.InfoBlockSize, proto.InfoName, proto.InfoDescription))
	c.Infos(list)
	return list[len(list)-1].Type
}

// bothInvalid sends INFO and GO with data that is malformed.
func (c *Conn) bothInvalid(data []byte, what string) {
	for _, option := range []uint32{proto.OptInfo, proto.OptGo} {
		c.Refused(option, data,
			fmt.Sprintf("%s with %s",
				map[uint32]string{proto.OptInfo: "INFO", proto.OptGo: "GO"}[option], what),
			proto.RepErrInvalid)
	}
}

func checkInfoShort(t *T) {
	c := t.Haggle()
	for n := range 6 {
		c.bothInvalid(make([]byte, n), fmt.Sprintf("%d bytes of data", n))
	}
}

func checkInfoLongName(t *T) {
	for _, length := range []uint32{1, 5, 4000, 4096, 1 << 16, 0x7fffffff, 0xfffffffa, 0xffffffff} {
		b := InfoData("")
		binary.BigEndian.PutUint32(b, length)
		t.Haggle().bothInvalid(b, fmt.Sprintf("6 bytes of data and a name of %d", length))
	}
	b := InfoData(string(bytes.Repeat([]byte("n"), 1000)), 3, 3)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	t.Haggle().bothInvalid(b, "a name that goes beyond its data")
}

func checkInfoCount(t *T) {
	c := t.Haggle()
	b := InfoData(t.Export(), proto.InfoBlockSize)
	c.bothInvalid(append(b[:len(b):len(b)], 0), "a byte too many")
	c.bothInvalid(append(b[:len(b):len(b)], 0, 1), "a request that is not counted")
	c.bothInvalid(b[:len(b)-1], "half a request")
	c.bothInvalid(b[:len(b)-2], "a request fewer than counted")
	binary.BigEndian.PutUint16(b[len(b)-4:], 0xffff)
	c.bothInvalid(b, "65535 requests counted and one there")
}

func checkUnknownExport(t *T) {
	c := t.Haggle()
	for _, option := range []uint32{proto.OptInfo, proto.OptGo} {
		list := c.Option(option, InfoData(unknownName, proto.InfoBlockSize))
		last := list[len(list)-1]
		c.WantReply(last, "an unknown name", proto.RepErrUnknown, proto.RepErrPolicy)
		t.Prefer(last.Type == proto.RepErrUnknown, "an unknown name is answered by %s", last)
		t.Prefer(len(list) == 1, "%d INFO replies come before the error", len(list)-1)
		c.StillHaggling("an unknown name")
	}
	c.EnterGo(t.Export())
	c.StillUp("GO after an unknown name")
}

func checkGoAtOnce(t *T) {
	// zeroes are not declined, and must not come all the same
	c := t.Greet(proto.FlagClientFixedNewstyle)
	n := uint64(len(t.facts.probe))
	r := c.Name(Read(0, n))
	b := optionBytes(proto.OptGo, InfoData(t.Export(), proto.InfoBlockSize))
	c.Write(append(b, c.Encode(r)...))
	list := c.ReadReplies(proto.OptGo)
	c.WantReply(list[len(list)-1], "GO", proto.RepAck)
	info := c.Infos(list)
	c.Size, c.Flags, c.Block, c.Mode = info.Size, info.Flags, info.Block, ModeGo
	c.Expect(r)
	reply := c.Next()
	t.Want(reply.Errno == 0, "a READ behind GO: %s", reply.Error())
	c.StillUp("GO and a READ in one piece")
}

func checkSameInfo(t *T) {
	c := t.Haggle()
	data := InfoData(t.Export(), proto.InfoBlockSize, proto.InfoName, proto.InfoDescription)
	asked := c.Infos(c.Option(proto.OptInfo, data))
	list := c.Option(proto.OptGo, data)
	c.WantReply(list[len(list)-1], "GO", proto.RepAck)
	opened := c.Infos(list)
	t.Want(asked.Size == opened.Size, "the size is %d by INFO and %d by GO", asked.Size,
		opened.Size)
	t.Want(asked.Flags == opened.Flags, "the flags are %#x by INFO and %#x by GO", asked.Flags,
		opened.Flags)
	t.Want(reflect.DeepEqual(asked.Block, opened.Block),
		"the block sizes are %v by INFO and %v by GO", asked.Block, opened.Block)
	t.Want(reflect.DeepEqual(asked.Name, opened.Name) &&
		reflect.DeepEqual(asked.Description, opened.Description),
		"name or description differ between INFO and GO")
}

func checkCanonicalName(t *T) {
	c := t.Haggle()
	list := c.Option(proto.OptInfo, InfoData(t.Export(), proto.InfoName))
	name := c.Infos(list).Name
	if name == nil {
		return // it may be left out if it is the one that was asked for
	}
	t.Want(!t.facts.List || len(t.facts.Names) == 0 || t.facts.AnyName ||
		slices.Contains(t.facts.Names, *name), "INFO_NAME is %q, and LIST has %q", *name,
		t.facts.Names)
	again := c.Infos(c.Option(proto.OptInfo, InfoData(*name, proto.InfoName)))
	t.Want(again.Name == nil ||
		*again.Name == *name, "the canonical name %q has another one, %q", *name, *again.Name)
	t.Want(again.Size == t.facts.Size, "the export has %d bytes, and by its canonical name %q, %d",
		t.facts.Size, *name, again.Size)
}

func checkDescription(t *T) {
	c := t.Haggle()
	list := c.Option(proto.OptList, nil)
	for _, r := range list[:min(len(list)-1, 10)] {
		name, text, _ := proto.ParseServer(r.Data) // judged while it was read
		replies := c.Option(proto.OptInfo, InfoData(name, proto.InfoDescription))
		if replies[len(replies)-1].Failed() {
			continue
		}
		info := c.Infos(replies)
		if info.Description == nil {
			t.Prefer(text == "", "LIST describes %q as %q, INFO does not", name, text)
			continue
		}
		t.Want(*info.Description == text, "%q is described as %q by LIST and as %q by INFO", name,
			text, *info.Description)
	}
}

func checkBlockSizeRequired(t *T) {
	c := t.Haggle()
	list := c.Option(proto.OptInfo, InfoData(t.Export(), proto.InfoBlockSize))
	t.Want(list[len(list)-1].Type != proto.RepErrBlockSizeReqd,
		"ERR_BLOCK_SIZE_REQD although they were asked for")
	list = c.Option(proto.OptInfo, InfoData(t.Export()))
	if list[len(list)-1].Type == proto.RepErrBlockSizeReqd {
		t.Differ("clients that do not ask for block sizes are refused")
		t.Prefer(c.Infos(list).Block != nil, "no INFO_BLOCK_SIZE comes before ERR_BLOCK_SIZE_REQD")
	}
	c.StillHaggling("INFO without a request for block sizes")
}

func checkEarlyDF(t *T) {
	c := t.Haggle()
	for _, option := range []uint32{proto.OptInfo, proto.OptGo} {
		list := c.Option(option, InfoData(t.Export()))
		c.WantReply(list[len(list)-1], "INFO or GO", proto.RepAck)
		flags := c.Infos(list).Flags
		t.Want(flags&proto.FlagHasFlags != 0, "the flags are %#x: HAS_FLAGS is missing", flags)
		t.Want(flags&proto.FlagSendDF == 0,
			"the flags are %#x: SEND_DF although structured replies were not negotiated", flags)
	}
}

func checkTrueSize(t *T) {
	a, b := t.Open(ModeGo), t.Open(ModeExportName)
	t.Want(a.Size == b.Size, "the size is %d by GO and %d by EXPORT_NAME", a.Size, b.Size)
	t.Want(a.Size <= 1<<63-1, "the size is %d, more than any offset of a file", a.Size)
	if t.facts.Image == "" {
		return
	}
	info, err := os.Stat(t.facts.Image)
	t.Want(err == nil, "the image: %v", err)
	t.Want(uint64(info.Size()) == a.Size, "the size is %d, and the image has %d bytes", a.Size,
		info.Size())
}
