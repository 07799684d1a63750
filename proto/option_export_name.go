// NBD_OPT_EXPORT_NAME: the oldest way into the transmission phase, with no reply for errors: the
// only answer other than success is to close. Every client that is not fixed newstyle uses it.

package proto

import "encoding/binary"

// beginExportName reads the name, which is all of the option's data.
func (n *Negotiator) beginExportName() {
	switch {
	case n.left > MaxString:
		n.close(CloseExportName)
		return
	case n.mode.Framing == Extended:
		n.close(CloseExportNameExtended)
		return
	}
	n.collect(onExportName, int(n.left))
}

// exportName answers with size, flags, and a padding that dates from 2008 and that the client may
// opt out of.
func (n *Negotiator) exportName(b []byte) {
	name := string(b)
	if !ValidString(name) {
		n.close(CloseExportName)
		return
	}
	i, ok := n.catalog.Lookup(name)
	switch {
	case n.standing.Reply != 0:
		n.close(CloseRefused)
		return
	case !ok:
		n.close(CloseExportUnknown)
		return
	case !n.admit(i):
		n.close(CloseRefused)
		return
	}
	e := n.catalog.At(i)
	n.settle(name)
	n.out = binary.BigEndian.AppendUint64(n.out, e.Size)
	n.out = binary.BigEndian.AppendUint16(n.out, e.flags(n.mode.Session))
	if !n.mode.NoZeroes {
		n.out = append(n.out, make([]byte, ExportNamePadding)...)
	}
	n.transmit(i)
}
