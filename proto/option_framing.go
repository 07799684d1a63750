// NBD_OPT_STRUCTURED_REPLY and NBD_OPT_EXTENDED_HEADERS: what form requests and replies will have.
//
// Invariant: the form only grows; what was agreed on holds from the end of the negotiation. To ask
// twice is not a mistake.

package proto

// beginFraming refuses data, because the spec defines none.
func (n *Negotiator) beginFraming() {
	switch {
	case n.left != 0:
		n.refuse(RepErrInvalid, "this option takes no data")
	case n.option == OptStructuredReply && n.mode.Framing == Extended:
		n.refuse(RepErrExtHeaderReqd,
			"extended headers were agreed on, and have structured replies in them")
	default:
		n.drain()
	}
}

// answerFraming agrees to the form.
func (n *Negotiator) answerFraming() {
	n.mode.Framing = Structured
	if n.option == OptExtendedHeaders {
		n.mode.Framing = Extended
	}
	n.reply(RepAck, "")
}
