// NBD_OPT_ABORT: the client gives up, politely. Data it should not have sent is ignored; the
// acknowledgement comes even while the server shuts down.

package proto

// answerAbort acknowledges and closes.
func (n *Negotiator) answerAbort() {
	n.reply(RepAck, "")
	n.close(CloseAbort)
}
