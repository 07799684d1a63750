// NBD_OPT_ABORT: the client ends the negotiation in an orderly way. Data that it should not have
// sent is ignored; the acknowledgement is sent even while the server shuts down.

package proto

// answerAbort acknowledges ABORT and closes.
func (n *Negotiator) answerAbort() {
	n.reply(RepAck, "")
	n.close(CloseAbort)
}
