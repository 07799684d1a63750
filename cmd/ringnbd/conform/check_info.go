// Checks of INFO and GO (G).
//
// Invariant: INFO is used where both would do, because after INFO the negotiation can be proven to
// be in step.

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
	{"G-01a", must, []need{needGo},
		"INFO and GO with fewer than 6 bytes of data are ERR_INVALID, and the negotiation goes on",
		"a server that reads a length which is not there reads the next option",
		checkInfoShort},
	{"G-01b", must, []need{needGo},
		"INFO and GO whose name is longer than their data are ERR_INVALID, all of the data is " +
			"skipped, and the negotiation goes on",
		"such lengths have overflowed buffers",
		checkInfoLongName},
	{"G-01c", must, []need{needGo},
		"INFO and GO with more or fewer information requests than their count are ERR_INVALID, " +
			"all of the data is skipped, and the negotiation goes on",
		"the rest of the data would be taken for the next option",
		checkInfoCount},
	{"G-02", must, []need{needGo, needNames},
		"INFO and GO with an unknown name are ERR_UNKNOWN, and the negotiation goes on",
		"a client may have another name to try",
		checkUnknownExport},
	{"G-03", must, []need{needGo},
		"success is one INFO_EXPORT among the INFO replies, and the ACK at the end",
		"size and flags must be known before the first request",
		func(t *trial) {
			c := t.haggle()
			c.wantReply(optionReply{kind: c.info(proto.OptInfo, t.export())}, "INFO", proto.RepAck)
			c.wantReply(optionReply{kind: c.info(proto.OptGo, t.export())}, "GO", proto.RepAck)
		}},
	{"G-04", must, []need{needGo},
		"after GO's ACK transmission begins at once, without padding",
		"the next byte would be taken for the first reply",
		checkGoAtOnce},
	{"G-05", must, []need{needGo},
		"after INFO the negotiation goes on",
		"a client asks about many exports before it chooses",
		func(t *trial) {
			c := t.haggle()
			for range 3 {
				c.wantReply(optionReply{kind: c.info(proto.OptInfo, t.export())}, "INFO",
					proto.RepAck)
				c.stillHaggling("INFO")
			}
			c.enterGo(t.export())
			c.stillUp("INFO, then GO")
		}},
	{"G-06", must, []need{needGo},
		"INFO and then GO with the same data give the same information",
		"a client that relies on INFO would use a wrong size",
		checkSameInfo},
	{"G-07", must, []need{needGo},
		"unknown information requests are ignored",
		"later clients ask for information that is not defined yet",
		func(t *trial) {
			c := t.haggle()
			list := c.option(proto.OptInfo, infoData(t.export(), 0x7777, 0xffff, proto.InfoExport))
			c.wantReply(list[len(list)-1], "INFO with unknown requests", proto.RepAck)
			c.parseInfos(list)
			c.stillHaggling("INFO with unknown requests")
		}},
	{"G-08", may, []need{needGo},
		"a repeated information request is served or ERR_INVALID",
		"it is the client's mistake, but not a reason to hang up",
		func(t *trial) {
			c := t.haggle()
			b := proto.InfoBlockSize
			list := c.option(proto.OptInfo,
				infoData(t.export(), b, b, b, proto.InfoName, proto.InfoName))
			c.wantReply(list[len(list)-1], "repeated requests", proto.RepAck, proto.RepErrInvalid)
			t.prefer(len(c.parseInfos(list).kinds) <= 4, "repeated requests are answered by %d "+
				"INFO replies",
				len(list)-1)
			c.stillHaggling("repeated information requests")
		}},
	{"G-09", may, []need{needGo},
		"INFO without requests works",
		"nbd-client sends no information requests",
		func(t *trial) {
			c := t.haggle()
			list := c.option(proto.OptInfo, infoData(t.export()))
			c.wantReply(list[len(list)-1], "INFO without requests", proto.RepAck)
			c.parseInfos(list)
			c.stillHaggling("INFO without requests")
		}},
	{"G-10", must, []need{needGo},
		"INFO_NAME is the export's canonical name, which LIST has",
		"a client keeps the name to reconnect",
		checkCanonicalName},
	{"G-11", must, []need{needGo, needList},
		"INFO_DESCRIPTION is the description that LIST has",
		"people choose an export by its description",
		checkDescription},
	{"G-12", should, []need{needGo},
		"INFO_BLOCK_SIZE is sent to a client that asks, with 14 bytes",
		"without block sizes a client has to guess what is fast, and how long a request may be",
		func(t *trial) {
			c := t.haggle()
			list := c.option(proto.OptInfo, infoData(t.export(), proto.InfoBlockSize))
			c.wantReply(list[len(list)-1], "INFO", proto.RepAck)
			t.prefer(c.parseInfos(list).block != nil, "there is no INFO_BLOCK_SIZE")
		}},
	{"G-13", must, []need{needGo},
		"ERR_BLOCK_SIZE_REQD never comes to a client that asked for block sizes, and should not " +
			"come to others",
		"many clients cannot ask for block sizes",
		checkBlockSizeRequired},
	{"G-14", must, []need{needGo},
		"GO with the empty name opens the default export if INFO knows one",
		"most clients send the empty name",
		func(t *trial) {
			c := t.haggle()
			asked, opened := c.info(proto.OptInfo, ""), c.info(proto.OptGo, "")
			t.want(asked == opened, "INFO says %s, GO says %s", replyName(asked), replyName(opened))
			if asked != proto.RepAck {
				c.stillHaggling("GO for a default export that does not exist")
			}
		}},
	{"G-15a", quality, []need{needGo, needNames},
		"an unknown name of 4096 bytes, the longest name, is ERR_UNKNOWN",
		"it is a name like any other",
		func(t *trial) {
			t.haggle().preferReply(proto.OptInfo, infoData(string(bytes.Repeat([]byte("n"), 4096))),
				"a name of 4096 bytes", proto.RepErrUnknown)
		}},
	{"G-15b", quality, []need{needGo},
		"a name of 4097 bytes is ERR_INVALID or ERR_TOO_BIG, and the negotiation goes on",
		"strings have at most 4096 bytes; a buffer of that size would overflow",
		func(t *trial) {
			t.haggle().preferReply(proto.OptInfo, infoData(string(bytes.Repeat([]byte("n"), 4097))),
				"a name of 4097 bytes", proto.RepErrInvalid, proto.RepErrTooBig)
		}},
	{"G-15c", quality, []need{needGo},
		"65535 information requests are served, or ERR_INVALID or ERR_TOO_BIG",
		"it is the largest count that a client can send",
		func(t *trial) {
			t.haggle().preferReply(proto.OptInfo, infoData(t.export(), make([]uint16, 65535)...),
				"65535 information requests", proto.RepAck, proto.RepErrInvalid, proto.RepErrTooBig)
		}},
	{"G-18a", must, nil,
		"INFO and GO are known",
		"the protocol requires it of every server",
		func(t *trial) {
			c := t.haggle()
			for _, option := range []uint32{proto.OptInfo, proto.OptGo} {
				r := c.finalReply(option, infoData(t.export()))
				t.want(r.kind != proto.RepErrUnsup, "option %d is answered by %s", option, r)
			}
		}},
	{"G-18b", must, []need{needGo},
		"SEND_DF is in the flags of INFO_EXPORT only after structured replies were negotiated on " +
			"that connection",
		"DF means nothing in a simple reply",
		checkEarlyDF},
	{"G-19", must, []need{needGo},
		"the size in INFO_EXPORT is that of the export in bytes, and the same as in EXPORT_NAME",
		"a disk that is too short or too long loses data",
		checkTrueSize},
	{"G-20", quality,
		[]need{{"an export whose size is not a multiple of 512 (--size cannot make one)",
			func(p *Profile) bool {
				return p.Size%512 != 0
			}}},
		"the last bytes of an export whose size is not a multiple of 512 can be read",
		"they are data of the user",
		func(t *trial) {
			c := t.open(t.profile.bestMode())
			n := c.size % 512
			reply := c.do(newRead(c.size-n, n))
			t.prefer(reply.errno == 0, "a READ of the last %d bytes: %s", n, reply.errorText())
			c.stillUp("a READ of the last bytes")
		}},
}

// info sends INFO or GO, judges the replies and returns the type of the final reply.
func (c *conn) info(option uint32, name string) uint32 {
	list := c.option(option,
		infoData(name, proto.InfoBlockSize, proto.InfoName, proto.InfoDescription))
	c.parseInfos(list)
	return list[len(list)-1].kind
}

// bothInvalid sends INFO and GO with data that is malformed.
func (c *conn) bothInvalid(data []byte, what string) {
	for _, option := range []uint32{proto.OptInfo, proto.OptGo} {
		c.refusedOption(option, data,
			fmt.Sprintf("%s with %s",
				map[uint32]string{proto.OptInfo: "INFO", proto.OptGo: "GO"}[option], what),
			proto.RepErrInvalid)
	}
}

func checkInfoShort(t *trial) {
	c := t.haggle()
	for n := range 6 {
		c.bothInvalid(make([]byte, n), fmt.Sprintf("%d bytes of data", n))
	}
}

func checkInfoLongName(t *trial) {
	for _, length := range []uint32{1, 5, 4000, 4096, 1 << 16, 0x7fffffff, 0xfffffffa, 0xffffffff} {
		b := infoData("")
		binary.BigEndian.PutUint32(b, length)
		t.haggle().bothInvalid(b, fmt.Sprintf("6 bytes of data and a name of %d", length))
	}
	b := infoData(string(bytes.Repeat([]byte("n"), 1000)), 3, 3)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	t.haggle().bothInvalid(b, "a name that goes beyond its data")
}

func checkInfoCount(t *trial) {
	c := t.haggle()
	b := infoData(t.export(), proto.InfoBlockSize)
	c.bothInvalid(append(b[:len(b):len(b)], 0), "a byte too many")
	c.bothInvalid(append(b[:len(b):len(b)], 0, 1), "a request more than counted")
	c.bothInvalid(b[:len(b)-1], "half a request")
	c.bothInvalid(b[:len(b)-2], "a request fewer than counted")
	binary.BigEndian.PutUint16(b[len(b)-4:], 0xffff)
	c.bothInvalid(b, "65535 requests counted and one present")
}

func checkUnknownExport(t *trial) {
	c := t.haggle()
	for _, option := range []uint32{proto.OptInfo, proto.OptGo} {
		list := c.option(option, infoData(unknownName, proto.InfoBlockSize))
		last := list[len(list)-1]
		c.wantReply(last, "an unknown name", proto.RepErrUnknown, proto.RepErrPolicy)
		t.prefer(last.kind == proto.RepErrUnknown, "an unknown name is answered by %s", last)
		t.prefer(len(list) == 1, "%d INFO replies come before the error", len(list)-1)
		c.stillHaggling("an unknown name")
	}
	c.enterGo(t.export())
	c.stillUp("GO after an unknown name")
}

func checkGoAtOnce(t *trial) {
	// the client does not decline zeroes, and still they must not come
	c := t.greet(proto.FlagClientFixedNewstyle)
	n := uint64(len(t.profile.probe))
	r := c.number(newRead(0, n))
	b := optionBytes(proto.OptGo, infoData(t.export(), proto.InfoBlockSize))
	c.write(append(b, c.encode(r)...))
	list := c.readOptionReplies(proto.OptGo)
	c.wantReply(list[len(list)-1], "GO", proto.RepAck)
	info := c.parseInfos(list)
	c.size, c.flags, c.block, c.mode = info.size, info.flags, info.block, modeGo
	c.expect(r)
	reply := c.nextReply()
	t.want(reply.errno == 0, "a READ after GO: %s", reply.errorText())
	c.stillUp("GO and a READ in one piece")
}

func checkSameInfo(t *trial) {
	c := t.haggle()
	data := infoData(t.export(), proto.InfoBlockSize, proto.InfoName, proto.InfoDescription)
	asked := c.parseInfos(c.option(proto.OptInfo, data))
	list := c.option(proto.OptGo, data)
	c.wantReply(list[len(list)-1], "GO", proto.RepAck)
	opened := c.parseInfos(list)
	t.want(asked.size == opened.size,
		"the size is %d by INFO and %d by GO", asked.size, opened.size)
	t.want(asked.flags == opened.flags,
		"the flags are %#x by INFO and %#x by GO", asked.flags, opened.flags)
	t.want(reflect.DeepEqual(asked.block, opened.block),
		"the block sizes are %v by INFO and %v by GO", asked.block, opened.block)
	t.want(reflect.DeepEqual(asked.name, opened.name) &&
		reflect.DeepEqual(asked.description, opened.description),
		"name or description differ between INFO and GO")
}

func checkCanonicalName(t *trial) {
	c := t.haggle()
	list := c.option(proto.OptInfo, infoData(t.export(), proto.InfoName))
	name := c.parseInfos(list).name
	if name == nil {
		return // it may be left out if it is the name that the client sent
	}
	t.want(!t.profile.List || len(t.profile.Names) == 0 || t.profile.AnyName ||
		slices.Contains(t.profile.Names, *name),
		"INFO_NAME is %q, and LIST has %q", *name, t.profile.Names)
	again := c.parseInfos(c.option(proto.OptInfo, infoData(*name, proto.InfoName)))
	if again.name != nil {
		t.want(*again.name == *name,
			"the canonical name %q has the canonical name %q", *name, *again.name)
	}
	t.want(again.size == t.profile.Size,
		"the export has %d bytes, and %[3]d by its canonical name %[2]q",
		t.profile.Size, *name, again.size)
}

func checkDescription(t *trial) {
	c := t.haggle()
	list := c.option(proto.OptList, nil)
	for _, r := range list[:min(len(list)-1, 10)] {
		name, text, _ := proto.ParseServer(r.data) // its form was judged while it was read
		replies := c.option(proto.OptInfo, infoData(name, proto.InfoDescription))
		if replies[len(replies)-1].failed() {
			continue
		}
		info := c.parseInfos(replies)
		if info.description == nil {
			t.prefer(text == "", "LIST describes %q as %q, and INFO has no description", name, text)
			continue
		}
		t.want(*info.description == text,
			"%q is described as %q by LIST and as %q by INFO", name, text, *info.description)
	}
}

func checkBlockSizeRequired(t *trial) {
	c := t.haggle()
	list := c.option(proto.OptInfo, infoData(t.export(), proto.InfoBlockSize))
	t.want(list[len(list)-1].kind != proto.RepErrBlockSizeReqd,
		"ERR_BLOCK_SIZE_REQD although they were asked for")
	list = c.option(proto.OptInfo, infoData(t.export()))
	if list[len(list)-1].kind == proto.RepErrBlockSizeReqd {
		t.differ("clients that do not ask for block sizes are refused")
		t.prefer(c.parseInfos(list).block != nil,
			"no INFO_BLOCK_SIZE comes before ERR_BLOCK_SIZE_REQD")
	}
	c.stillHaggling("INFO without a request for block sizes")
}

func checkEarlyDF(t *trial) {
	c := t.haggle()
	for _, option := range []uint32{proto.OptInfo, proto.OptGo} {
		list := c.option(option, infoData(t.export()))
		c.wantReply(list[len(list)-1], "INFO or GO", proto.RepAck)
		flags := c.parseInfos(list).flags
		t.want(flags&proto.FlagHasFlags != 0, "the flags are %#x: HAS_FLAGS is missing", flags)
		t.want(flags&proto.FlagSendDF == 0,
			"the flags are %#x: SEND_DF although structured replies were not negotiated", flags)
	}
}

func checkTrueSize(t *trial) {
	a, b := t.open(modeGo), t.open(modeExportName)
	t.want(a.size == b.size, "the size is %d by GO and %d by EXPORT_NAME", a.size, b.size)
	t.want(a.size <= 1<<63-1, "the size is %d, more than any offset of a file", a.size)
	if t.profile.Image == "" {
		return
	}
	info, err := os.Stat(t.profile.Image)
	t.want(err == nil, "the image: %v", err)
	t.want(uint64(info.Size()) == a.size,
		"the size is %d, and the image has %d bytes", a.size, info.Size())
}
