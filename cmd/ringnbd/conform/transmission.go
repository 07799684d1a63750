// From a connection to transmission, in each mode.
//
// Invariant: a connection that open returns is in transmission, with nothing unread; what the
// server does not offer is a skip, what it does wrong is a failure.

package conform

import (
	"encoding/binary"
	"fmt"

	"ringnbd/proto"
)

// mode is how a connection entered transmission, which determines the formats of requests and
// replies.
type mode int

// The modes.
const (
	modeExportName       mode = iota // EXPORT_NAME: compact requests, simple replies
	modeGo                           // GO: compact requests, simple replies
	modeStructured                   // compact requests, structured replies
	modeContexts                     // the same, with the context base:allocation
	modeExtended                     // extended requests and replies
	modeExtendedContexts             // the same, with the context base:allocation
)

var modeNames = []string{"EXPORT_NAME", "GO", "structured replies",
	"structured replies with base:allocation", "extended headers",
	"extended headers with base:allocation"}

func (m mode) String() string { return modeNames[m] }

// structured reports whether replies come in chunks with compact headers.
func (m mode) structured() bool { return m == modeStructured || m == modeContexts }

// extended reports whether all headers are extended headers.
func (m mode) extended() bool { return m == modeExtended || m == modeExtendedContexts }

func (m mode) contexts() bool { return m == modeContexts || m == modeExtendedContexts }

// open connects to the export of the suite and negotiates the mode.
func (t *trial) open(mode mode) *conn { return t.openAt(t.target, mode) }

// openReadOnly connects to the read-only export; see needReadOnly.
func (t *trial) openReadOnly(mode mode) *conn {
	if t.readOnly.Network == "" {
		t.skip("no read-only export")
	}
	return t.openAt(t.readOnly, mode)
}

func (t *trial) openAt(target Target, mode mode) *conn {
	c := t.haggleAt(target)
	c.negotiate(mode)
	if mode == modeExportName {
		c.enterExportName(target.Export)
	} else {
		c.enterGo(target.Export)
	}
	return c
}

// negotiate sends the options that a mode needs before GO or EXPORT_NAME.
func (c *conn) negotiate(mode mode) {
	option := map[bool]uint32{true: proto.OptExtendedHeaders,
		false: proto.OptStructuredReply}[mode.extended()]
	if mode > modeGo {
		if r := c.finalReply(option, nil); r.kind == proto.RepErrUnsup {
			c.t.skip("the server has no %s", mode)
		} else {
			c.wantReply(r, mode.String(), proto.RepAck)
		}
	}
	if mode.contexts() {
		if c.setContexts(c.t.target.Export, proto.ContextAllocation); len(c.contexts) != 1 {
			c.t.skip("the server has no base:allocation")
		}
	}
	c.mode = mode
}

// setContexts sends SET_META_CONTEXT, notes what was selected, and returns the final reply.
func (c *conn) setContexts(export string, queries ...string) optionReply {
	list := c.option(proto.OptSetMetaContext, contextData(export, queries...))
	c.contexts = nil
	for _, r := range list[:len(list)-1] {
		c.contexts = append(c.contexts,
			metaContext{binary.BigEndian.Uint32(r.data), string(r.data[4:])})
	}
	last := list[len(list)-1]
	if last.failed() {
		c.contexts = nil
	}
	return last
}

// enterExportName sends EXPORT_NAME and reads the reply, with the zeroes if the client did not ask
// for NO_ZEROES.
func (c *conn) enterExportName(name string) {
	c.sendOption(proto.OptExportName, []byte(name))
	c.readExportName(c.handshake&proto.FlagNoZeroes != 0)
	c.foreign = name != c.t.target.Export
}

func (c *conn) readExportName(noZeroes bool) {
	b := c.read(proto.ExportNameReplySize, "the reply to EXPORT_NAME")
	c.size, c.flags = binary.BigEndian.Uint64(b), binary.BigEndian.Uint16(b[8:])
	if !noZeroes {
		for i, x := range c.read(proto.ExportNamePadding,
			"the 124 zeroes after the reply to EXPORT_NAME") {
			if x != 0 {
				c.t.failf("byte %d of the 124 zeroes after the reply to EXPORT_NAME is %#x", i, x)
			}
		}
	}
}

// enterGo sends GO, asks for block sizes, and reads the replies.
func (c *conn) enterGo(name string) {
	list := c.option(proto.OptGo, infoData(name, proto.InfoBlockSize))
	last := list[len(list)-1]
	if last.kind == proto.RepErrUnsup {
		c.t.skip("the server has no NBD_OPT_GO")
	}
	c.wantReply(last, fmt.Sprintf("GO for the export %q", name), proto.RepAck)
	info := c.parseInfos(list)
	c.size, c.flags, c.block = info.size, info.flags, info.block
	c.foreign = name != c.t.target.Export
}

// exportInfo is the content of the INFO replies to INFO or GO.
type exportInfo struct {
	size        uint64
	flags       uint16
	exports     int // number of INFO_EXPORT
	block       *blockSize
	name        *string
	description *string
	kinds       []uint16 // in the order of arrival
}

// parseInfos parses the replies to INFO or GO; a length other than the protocol's fails.
func (c *conn) parseInfos(list []optionReply) exportInfo {
	var info exportInfo
	for _, r := range list {
		if r.kind != proto.RepInfo {
			continue
		}
		kind, data := binary.BigEndian.Uint16(r.data), r.data[2:]
		info.kinds = append(info.kinds, kind)
		text := string(data)
		switch kind {
		case proto.InfoExport:
			c.t.want(len(data) == 10, "INFO_EXPORT has %d bytes, not 12", len(r.data))
			info.size, info.flags = binary.BigEndian.Uint64(data), binary.BigEndian.Uint16(data[8:])
			info.exports++
		case proto.InfoBlockSize:
			c.t.want(len(data) == 12, "INFO_BLOCK_SIZE has %d bytes, not 14", len(r.data))
			info.block = &blockSize{binary.BigEndian.Uint32(data),
				binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:])}
		case proto.InfoName:
			c.checkString(data, "INFO_NAME")
			info.name = &text
		case proto.InfoDescription:
			c.checkString(data, "INFO_DESCRIPTION")
			info.description = &text
		default:
			c.t.failf("information of the type %d, which the protocol does not have and the "+
				"client did not ask for", kind)
		}
	}
	if last := list[len(list)-1]; last.kind == proto.RepAck {
		c.t.want(info.exports == 1,
			"INFO_EXPORT came %d times before the ACK, not once", info.exports)
	}
	return info
}

// infoData returns the data of INFO and GO.
func infoData(name string, kinds ...uint16) []byte {
	return proto.AppendInfo(nil, proto.OptInfo, name, kinds...)[proto.OptionSize:]
}

// contextData returns the data of LIST_META_CONTEXT and SET_META_CONTEXT.
func contextData(export string, queries ...string) []byte {
	return proto.AppendMetaContext(nil, proto.OptListMetaContext, export,
		queries...)[proto.OptionSize:]
}
