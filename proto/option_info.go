// NBD_OPT_INFO and NBD_OPT_GO: all information about one export, and with GO the way into the
// transmission phase. The options of meta contexts also begin with the name of an export, and share
// the steps up to it.
//
// Invariant: INFO and GO run the same code on the same immutable export, so they cannot disagree.
// The data is parsed as it arrives, and its lengths are checked against each other before they are
// believed; whatever is wrong, all of the data is read before the answer.

package proto

import "encoding/binary"

// Texts of refusals.
const (
	wrongLength  = "the lengths in the option do not add up"
	wrongName    = "export names are UTF-8 without NUL"
	longName     = "export names are at most 4096 bytes"
	noSuchExport = "no export of that name"
)

// typesChunk is how many bytes of information types are collected at a time; any even number works.
const typesChunk = 1024

// beginInfo expects the length of the name, the name, the number of information types, and that
// many types.
func (n *Negotiator) beginInfo() {
	n.infos = 0
	if n.left < 4+2 {
		n.refuse(RepErrInvalid, wrongLength)
		return
	}
	n.collect(onNameLength, 4)
}

// nameLength checks the length of a name, with a comparison that cannot overflow: the name is at
// most as long as the data without the fields after it.
func (n *Negotiator) nameLength(length uint32) {
	rest := uint32(2) // bytes of data that must follow the name
	if n.option == OptListMetaContext || n.option == OptSetMetaContext {
		rest = 4
	}
	switch {
	case length > n.left-rest:
		n.refuse(RepErrInvalid, wrongLength)
	case length > MaxString:
		n.refuse(RepErrTooBig, longName)
	default:
		n.collect(onName, int(length))
	}
}

// name finds the export. If there is none, the error waits for the end of the option: a malformed
// option is answered as malformed.
func (n *Negotiator) name(b []byte) {
	n.exportAsked = string(b)
	var found bool
	if !ValidString(n.exportAsked) {
		n.refusal = Refusal{RepErrInvalid, wrongName}
	} else if n.export, found = n.catalog.Lookup(n.exportAsked); !found {
		n.refusal = Refusal{RepErrUnknown, noSuchExport}
	}
	if n.option == OptListMetaContext || n.option == OptSetMetaContext {
		n.collect(onQueryCount, 4)
		return
	}
	n.collect(onInfoCount, 2)
}

// infoCount checks that the types are exactly what is left of the data.
func (n *Negotiator) infoCount(count uint16) {
	if n.left != 2*uint32(count) {
		n.refuse(RepErrInvalid, wrongLength)
		return
	}
	n.moreTypes()
}

// moreTypes collects the next information types, or ends the option.
func (n *Negotiator) moreTypes() {
	if n.left == 0 {
		n.drain()
		return
	}
	n.collect(onInfoTypes, int(min(n.left, typesChunk)))
}

// infoTypes notes which information types are requested. Unknown types are ignored, repeated types
// count once.
func (n *Negotiator) infoTypes(b []byte) {
	for ; len(b) > 0; b = b[2:] {
		if kind := binary.BigEndian.Uint16(b); kind <= InfoBlockSize {
			n.infos |= 1 << kind
		}
	}
	n.moreTypes()
}

// answerInfo sends the information and the acknowledgement, and begins the transmission phase if it
// was GO.
func (n *Negotiator) answerInfo() {
	if n.option == OptGo && !n.admit(n.export) {
		n.reply(n.refusal.Reply, clip(n.refusal.Message, MaxString))
		return
	}
	e := n.catalog.At(n.export)
	n.settle(n.exportAsked)
	n.info(InfoExport, 8+2)
	n.out = binary.BigEndian.AppendUint64(n.out, e.Size)
	n.out = binary.BigEndian.AppendUint16(n.out, e.flags(n.mode.Session))
	if n.infos&(1<<InfoName) != 0 {
		n.info(InfoName, len(e.Name))
		n.out = append(n.out, e.Name...)
	}
	if n.infos&(1<<InfoDescription) != 0 && e.Description != "" {
		n.info(InfoDescription, len(e.Description))
		n.out = append(n.out, e.Description...)
	}
	minBlock, preferred, maxPayload := e.blockSizes()
	n.info(InfoBlockSize, 3*4)
	n.out = binary.BigEndian.AppendUint32(n.out, minBlock)
	n.out = binary.BigEndian.AppendUint32(n.out, preferred)
	n.out = binary.BigEndian.AppendUint32(n.out, maxPayload)
	n.reply(RepAck, "")
	if n.option == OptGo {
		n.transmit(n.export)
	}
}

// info appends the header of a piece of information, with length bytes after its type.
func (n *Negotiator) info(kind uint16, length int) {
	n.head(RepInfo, 2+length)
	n.out = binary.BigEndian.AppendUint16(n.out, kind)
}
