// NBD_OPT_LIST: the names and descriptions of all exports.
//
// Invariant: however many exports there are, only one chunk of the answer exists at a time; the
// next chunk is made when that one has been sent.

package proto

import "encoding/binary"

// beginList refuses a LIST with data, because the spec defines none.
func (n *Negotiator) beginList() {
	switch {
	case n.left != 0:
		n.refuse(RepErrInvalid, "NBD_OPT_LIST takes no data")
	case n.policy.HideExports:
		n.refuse(RepErrPolicy, "this server does not list its exports")
	default:
		n.drain()
	}
}

// answerList begins the answer.
func (n *Negotiator) answerList() {
	n.listing = 0
	n.listMore()
}

// listMore makes the next chunk of the answer: one reply for each export, then the acknowledgement.
func (n *Negotiator) listMore() {
	for ; n.listing < n.catalog.Len(); n.listing++ {
		if len(n.out) >= listChunk {
			return
		}
		e := n.catalog.At(n.listing)
		n.head(RepServer, 4+len(e.Name)+len(e.Description))
		n.out = binary.BigEndian.AppendUint32(n.out, uint32(len(e.Name)))
		n.out = append(n.out, e.Name...)
		n.out = append(n.out, e.Description...)
	}
	n.reply(RepAck, "")
	n.listing = -1
}
