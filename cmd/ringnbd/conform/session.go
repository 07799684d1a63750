// From a connection to transmission, in each way that there is.
//
// Invariant: what Open gives back is in transmission, with nothing unread; what the server does not
// do is a skip, what it does wrong is a failure.

package conform

import (
	"encoding/binary"
	"fmt"

	"ringnbd/proto"
)

// Mode is how a connection came to transmission, and so which formats are spoken on it.
type Mode int

// The modes.
const (
	ModeExportName       Mode = iota // EXPORT_NAME: compact requests, simple replies
	ModeGo                           // GO: compact requests, simple replies
	ModeStructured                   // compact requests, structured replies
	ModeContexts                     // the same, with the context base:allocation
	ModeExtended                     // extended requests and replies
	ModeExtendedContexts             // the same, with the context base:allocation
)

var modeNames = []string{"EXPORT_NAME", "GO", "structured replies",
	"structured replies with base:allocation", "extended headers",
	"extended headers with base:allocation"}

func (m Mode) String() string { return modeNames[m] }

// Structured: replies come in structured chunks with compact headers.
func (m Mode) Structured() bool { return m == ModeStructured || m == ModeContexts }

// Extended: all headers are extended ones.
func (m Mode) Extended() bool { return m == ModeExtended || m == ModeExtendedContexts }

func (m Mode) contexts() bool { return m == ModeContexts || m == ModeExtendedContexts }

// Modes are those that the server can do, ModeExportName to ModeExtendedContexts.
func (f *Facts) Modes() []Mode {
	list := []Mode{ModeExportName}
	if f.Go {
		list = append(list, ModeGo)
	}
	if f.Structured && f.Go {
		list = append(list, ModeStructured)
	}
	if f.Structured && f.Allocation {
		list = append(list, ModeContexts)
	}
	if f.Extended {
		list = append(list, ModeExtended)
	}
	if f.Extended && f.Allocation {
		list = append(list, ModeExtendedContexts)
	}
	return list
}

// Best is the richest mode with compact headers that the server can do.
func (f *Facts) Best() Mode {
	switch {
	case f.Structured && f.Go:
		return ModeStructured
	case f.Go:
		return ModeGo
	}
	return ModeExportName
}

// Open connects to the export of the suite and negotiates.
func (t *T) Open(mode Mode) *Conn { return t.open(t.target, mode) }

// OpenReadOnly connects to the read-only export; see NeedReadOnly.
func (t *T) OpenReadOnly(mode Mode) *Conn {
	if t.readOnly.Network == "" {
		t.Skip("no read-only export")
	}
	return t.open(t.readOnly, mode)
}

func (t *T) open(target Target, mode Mode) *Conn {
	c := t.haggle(target)
	c.Negotiate(mode)
	if mode == ModeExportName {
		c.EnterExportName(target.Export)
	} else {
		c.EnterGo(target.Export)
	}
	return c
}

// Negotiate does what a mode takes before GO or EXPORT_NAME.
func (c *Conn) Negotiate(mode Mode) {
	option := map[bool]uint32{true: proto.OptExtendedHeaders,
		false: proto.OptStructuredReply}[mode.Extended()]
	if mode > ModeGo {
		if r := c.Final(option, nil); r.Type == proto.RepErrUnsup {
			c.t.Skip("the server has no %s", mode)
		} else {
			c.WantReply(r, mode.String(), proto.RepAck)
		}
	}
	if mode.contexts() {
		if c.SetContexts(c.t.target.Export, proto.ContextAllocation); len(c.Contexts) != 1 {
			c.t.Skip("the server has no base:allocation")
		}
	}
	c.Mode = mode
}

// SetContexts sends SET_META_CONTEXT and notes what was selected; it gives the final reply.
func (c *Conn) SetContexts(export string, queries ...string) OptionReply {
	list := c.Option(proto.OptSetMetaContext, ContextData(export, queries...))
	c.Contexts = nil
	for _, r := range list[:len(list)-1] {
		c.Contexts = append(c.Contexts,
			Context{binary.BigEndian.Uint32(r.Data), string(r.Data[4:])})
	}
	last := list[len(list)-1]
	if last.Failed() {
		c.Contexts = nil
	}
	return last
}

// EnterExportName sends EXPORT_NAME and reads its answer, with the zeroes if we did not ask to be
// spared.
func (c *Conn) EnterExportName(name string) {
	c.SendOption(proto.OptExportName, []byte(name))
	c.readExportName(c.Handshake&proto.FlagNoZeroes != 0)
	c.foreign = name != c.t.target.Export
}

func (c *Conn) readExportName(noZeroes bool) {
	b := c.Read(proto.ExportNameReplySize, "the reply to EXPORT_NAME")
	c.Size, c.Flags = binary.BigEndian.Uint64(b), binary.BigEndian.Uint16(b[8:])
	if !noZeroes {
		for i, x := range c.Read(proto.ExportNamePadding,
			"the 124 zeroes behind the reply to EXPORT_NAME") {
			if x != 0 {
				c.t.Failf("byte %d of the 124 zeroes behind the reply to EXPORT_NAME is %#x", i, x)
			}
		}
	}
}

// EnterGo sends GO, asking for block sizes, and takes its answer apart.
func (c *Conn) EnterGo(name string) {
	list := c.Option(proto.OptGo, InfoData(name, proto.InfoBlockSize))
	last := list[len(list)-1]
	if last.Type == proto.RepErrUnsup {
		c.t.Skip("the server has no NBD_OPT_GO")
	}
	c.WantReply(last, fmt.Sprintf("GO for the export %q", name), proto.RepAck)
	info := c.Infos(list)
	c.Size, c.Flags, c.Block = info.Size, info.Flags, info.Block
	c.foreign = name != c.t.target.Export
}

// Info is what the INFO replies to INFO or GO say.
type Info struct {
	Size        uint64
	Flags       uint16
	Exports     int // number of INFO_EXPORT
	Block       *BlockSize
	Name        *string
	Description *string
	Types       []uint16 // in the order they came
}

// Infos takes the replies to INFO or GO apart; lengths that are not the spec's fail.
func (c *Conn) Infos(list []OptionReply) Info {
	var info Info
	for _, r := range list {
		if r.Type != proto.RepInfo {
			continue
		}
		kind, data := binary.BigEndian.Uint16(r.Data), r.Data[2:]
		info.Types = append(info.Types, kind)
		text := string(data)
		switch kind {
		case proto.InfoExport:
			c.t.Want(len(data) == 10, "INFO_EXPORT has %d bytes, not 12", len(r.Data))
			info.Size, info.Flags = binary.BigEndian.Uint64(data), binary.BigEndian.Uint16(data[8:])
			info.Exports++
		case proto.InfoBlockSize:
			c.t.Want(len(data) == 12, "INFO_BLOCK_SIZE has %d bytes, not 14", len(r.Data))
			info.Block = &BlockSize{binary.BigEndian.Uint32(data),
				binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:])}
		case proto.InfoName:
			c.checkString(data, "INFO_NAME")
			info.Name = &text
		case proto.InfoDescription:
			c.checkString(data, "INFO_DESCRIPTION")
			info.Description = &text
		default:
			c.t.Failf("information type %d is not one of the protocol, and was not asked for", kind)
		}
	}
	if last := list[len(list)-1]; last.Type == proto.RepAck {
		c.t.Want(info.Exports == 1, "%d times INFO_EXPORT before the ACK, not once", info.Exports)
	}
	return info
}

// InfoData is the data of INFO and GO.
func InfoData(name string, kinds ...uint16) []byte {
	return proto.AppendInfo(nil, proto.OptInfo, name, kinds...)[proto.OptionSize:]
}

// ContextData is the data of LIST_META_CONTEXT and SET_META_CONTEXT.
func ContextData(export string, queries ...string) []byte {
	return proto.AppendMetaContext(nil, proto.OptListMetaContext, export,
		queries...)[proto.OptionSize:]
}
