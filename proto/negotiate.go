// The server's side of the negotiation, without a socket and without a clock: bytes in, bytes and
// an event out.
//
// Invariant: at any time exactly one of three things is due, and Need, Out and Event say which:
// bytes to read, bytes to send, or the end. Bytes are taken only up to the end of the current
// option, so nothing of the transmission phase is ever consumed, and an answer is complete before
// the next option is parsed. Memory is fixed: one string, and one chunk of output.

package proto

import "encoding/binary"

// Limits that keep a client from using up a server's memory or time. The spec leaves them to the
// server.
const (
	// maxOptionDrain limits the data of an option, in bytes, that is read and discarded; beyond it
	// the connection is closed. No option in use needs more than 132 KiB.
	maxOptionDrain = 32 << 20
	// baseOptions and optionsPerExport limit the options of one handshake: a client that lists
	// exports asks a few things about each of them (qemu-nbd -L), any other client is done after
	// less than ten options.
	baseOptions      = 64
	optionsPerExport = 8
	// listChunk is the length in bytes at which a piece of LIST's answer ends; its last entry may
	// exceed it by at most 8 KiB.
	listChunk = 8 << 10
)

// Policy is what the server decides in addition to its exports. The zero value admits every client.
type Policy struct {
	HideExports bool // LIST is answered with ERR_POLICY
	// Admit is called once per GO or EXPORT_NAME that is otherwise granted, immediately before the
	// answer, so that a place can be reserved; a refusal other than the zero value is sent instead.
	// The catalog may be older than the server's exports, so that Admit is also where an export is
	// refused that has gone meanwhile. It may block. Nil admits every client.
	Admit func(export *Export) Refusal
}

// Refusal is an error reply to an option: one of RepErr..., and a message for people, cut at
// MaxString bytes. The zero value refuses nothing.
type Refusal struct {
	Reply   uint32
	Message string
}

// EventKind is how a negotiation ended.
type EventKind uint8

// The ends of a negotiation.
const (
	EventNone EventKind = iota // it has not ended
	// EventTransmit says that the transmission phase begins with the next byte, in both directions.
	EventTransmit
	EventClose // close the connection
)

// Event is the end of a negotiation.
type Event struct {
	Kind   EventKind
	Export Export      // as in the catalog, with EventTransmit
	Mode   Mode        // what was agreed on, with EventTransmit
	Reason CloseReason // with EventClose
}

// state says what the bytes being collected are.
type state uint8

// The states, in the order in which a negotiation reaches them.
const (
	onClientFlags state = iota
	onHeader
	onExportName
	onNameLength
	onName
	onInfoCount
	onInfoTypes
	onQueryCount
	onQueryLength
	onQuery
	onDrain // data of an option that is discarded: counted, not kept
)

// Negotiator is the server's side of one connection's negotiation. Not safe for concurrent use. The
// calling order is
//
//	for event == EventNone: send Out, tell Sent; or read up to Need bytes, tell Feed
type Negotiator struct {
	catalog  Catalog
	policy   Policy
	mode     Mode
	standing Refusal // set by Refuse: the answer to every option from then on
	event    Event

	state state
	have  int // bytes collected in scratch
	// bytes that the state needs, at most len(scratch); when have reaches it, step is called
	want    int
	scratch [MaxString]byte // what is being collected

	// The current option.
	option      uint32
	left        uint32 // bytes of its data still to come
	options     int    // options so far
	refusal     Refusal
	export      int        // export of INFO, GO and the two of meta contexts
	exportAsked string     // the name by which the client asked for it
	infos       uint16     // requested information types, as a bit set of the four that are known
	queries     uint32     // queries still to come
	matched     ContextSet // contexts that a query matched

	// What SET_META_CONTEXT selected, and the name of the export for which it did; for any other
	// export the selection does not count.
	selected ContextSet
	selector string

	out     []byte // answer
	sent    int    // bytes of it that were sent
	listing int    // next export of a LIST that is being answered, -1 outside of a LIST
}

// NewNegotiator begins a negotiation. The server speaks first: Out holds the banner at once.
func NewNegotiator(c Catalog, p Policy) *Negotiator {
	n := &Negotiator{catalog: c, policy: p, listing: -1}
	n.out = binary.BigEndian.AppendUint64(make([]byte, 0, 256), Magic)
	n.out = binary.BigEndian.AppendUint64(n.out, OptionMagic)
	n.out = binary.BigEndian.AppendUint16(n.out, FlagFixedNewstyle|FlagNoZeroes)
	n.collect(onClientFlags, ClientFlagsSize)
	return n
}

// Need returns how many bytes may be read from the client next. Reading more could consume bytes of
// the transmission phase. Zero means that there is something to send first, or that the negotiation
// is over.
func (n *Negotiator) Need() int {
	switch {
	case n.sent < len(n.out) || n.event.Kind != EventNone:
		return 0
	case n.left > 0:
		return int(n.left)
	}
	return n.want - n.have
}

// Feed takes bytes from the client, in pieces of any size, and returns how many of them it used. It
// stops at the first answer, which must be sent before the negotiation goes on, and at the end of
// the negotiation.
func (n *Negotiator) Feed(b []byte) (used int) {
	for used < len(b) {
		k := min(n.Need(), len(b)-used)
		if k == 0 {
			break
		}
		if n.state != onDrain {
			k = copy(n.scratch[n.have:n.want], b[used:used+k])
			n.have += k
		}
		if n.state > onHeader {
			n.left -= uint32(k)
		}
		used += k
		n.advance()
	}
	return used
}

// advance takes the next step once its bytes are complete.
func (n *Negotiator) advance() {
	switch {
	case n.state == onDrain && n.left == 0:
		n.answer()
	case n.state != onDrain && n.have == n.want:
		n.step()
	}
}

// step goes on from the state whose bytes are complete.
func (n *Negotiator) step() {
	data := n.scratch[:n.have]
	switch n.state {
	case onClientFlags:
		n.clientFlags(binary.BigEndian.Uint32(data))
	case onHeader:
		n.header(data)
	case onExportName:
		n.exportName(data)
	case onNameLength:
		n.nameLength(binary.BigEndian.Uint32(data))
	case onName:
		n.name(data)
	case onInfoCount:
		n.infoCount(binary.BigEndian.Uint16(data))
	case onInfoTypes:
		n.infoTypes(data)
	case onQueryCount:
		n.queryCount(binary.BigEndian.Uint32(data))
	case onQueryLength:
		n.queryLength(binary.BigEndian.Uint32(data))
	case onQuery:
		n.query(data)
	}
}

// collect enters a state that needs want bytes; with zero bytes its step is taken at once.
func (n *Negotiator) collect(s state, want int) {
	n.state, n.have, n.want = s, 0, want
	if want == 0 {
		n.step()
	}
}

// drain discards the rest of the option's data and then answers. If it answered first, both sides
// could wait for the other to read.
func (n *Negotiator) drain() {
	n.state, n.have, n.want = onDrain, 0, 0
	n.advance()
}

// refuse drains the option and answers with an error.
func (n *Negotiator) refuse(reply uint32, message string) {
	n.refusal = Refusal{reply, message}
	n.drain()
}

// clientFlags judges the first bytes of the client ("Client flags"): an unknown bit is something
// that the server does not understand, and the spec demands that the connection be closed.
func (n *Negotiator) clientFlags(flags uint32) {
	if flags&^(FlagClientFixedNewstyle|FlagClientNoZeroes) != 0 {
		n.close(CloseClientFlags)
		return
	}
	n.mode.FixedNewstyle = flags&FlagClientFixedNewstyle != 0
	n.mode.NoZeroes = flags&FlagClientNoZeroes != 0
	n.collect(onHeader, OptionSize)
}

// header begins an option. Its switch is the list of options served; all others are answered and
// skipped.
func (n *Negotiator) header(b []byte) {
	if binary.BigEndian.Uint64(b) != OptionMagic {
		n.close(CloseOptionMagic)
		return
	}
	n.option, n.left = binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	n.refusal = Refusal{}
	n.options++
	switch {
	case n.left > maxOptionDrain:
		n.close(CloseOptionLength)
		return
	case n.options > baseOptions+optionsPerExport*n.catalog.Len():
		n.close(CloseOptionCount)
		return
	case !n.mode.FixedNewstyle && n.option != OptExportName && n.option != OptAbort:
		n.refuse(RepErrInvalid,
			"the client did not ask for fixed newstyle: only NBD_OPT_EXPORT_NAME can follow")
		return
	}
	switch n.option {
	case OptExportName:
		n.beginExportName()
	case OptAbort:
		n.drain()
	case OptList:
		n.beginList()
	case OptInfo, OptGo:
		n.beginInfo()
	case OptStructuredReply, OptExtendedHeaders:
		n.beginFraming()
	case OptListMetaContext, OptSetMetaContext:
		n.beginMeta()
	default:
		n.refuse(RepErrUnsup, "option not supported")
	}
}

// answer replies to an option whose data has been read to the end, then goes to the next.
// EXPORT_NAME is not answered here: it has no replies.
func (n *Negotiator) answer() {
	switch {
	case n.option == OptAbort:
		n.answerAbort()
		return
	case n.standing.Reply != 0:
		n.reply(n.standing.Reply, clip(n.standing.Message, MaxString))
	case n.refusal.Reply != 0:
		n.reply(n.refusal.Reply, clip(n.refusal.Message, MaxString))
	case n.option == OptList:
		n.answerList()
	case n.option == OptStructuredReply || n.option == OptExtendedHeaders:
		n.answerFraming()
	case n.option == OptListMetaContext || n.option == OptSetMetaContext:
		n.answerMeta()
	default:
		n.answerInfo()
	}
	if n.event.Kind == EventNone {
		n.collect(onHeader, OptionSize)
	}
}

// admit reports whether the policy has a place on an export; if not, the reason is in refusal.
func (n *Negotiator) admit(export int) bool {
	if n.policy.Admit == nil {
		return true
	}
	e := n.catalog.At(export)
	n.refusal = n.policy.Admit(&e)
	return n.refusal.Reply == 0
}

// Refuse makes r the answer to every option from now on, except ABORT, which is always
// acknowledged, and EXPORT_NAME, which can only be answered by closing. A server that shuts down
// refuses with RepErrShutdown.
func (n *Negotiator) Refuse(r Refusal) {
	n.standing = r
}

// Out returns what must be sent to the client now, or nothing. It is valid until Sent is called,
// and at most about 16 KiB: long answers come in pieces.
func (n *Negotiator) Out() []byte {
	return n.out[n.sent:]
}

// Sent records that the first k bytes of Out were sent. It panics if Out has fewer bytes.
func (n *Negotiator) Sent(k int) {
	if k < 0 || k > len(n.out)-n.sent {
		panic("proto: Sent of more than Out")
	}
	n.sent += k
	if n.sent < len(n.out) {
		return
	}
	n.out, n.sent = n.out[:0], 0
	if n.listing >= 0 {
		n.listMore()
	}
}

// Event returns how the negotiation ended. Its kind is EventNone as long as the negotiation has not
// ended, or Out has bytes to send.
func (n *Negotiator) Event() Event {
	if n.sent < len(n.out) {
		return Event{}
	}
	return n.event
}

// settle fixes which meta contexts count when the transmission phase begins: those that were
// selected for an export of exactly this name.
func (n *Negotiator) settle(name string) {
	n.mode.Contexts = 0
	if name == n.selector {
		n.mode.Contexts = n.selected
	}
}

// transmit ends the negotiation with success.
func (n *Negotiator) transmit(export int) {
	n.left = 0
	n.event = Event{Kind: EventTransmit, Export: n.catalog.At(export), Mode: n.mode}
}

// close ends the negotiation; the connection must be closed.
func (n *Negotiator) close(reason CloseReason) {
	n.left = 0
	n.event = Event{Kind: EventClose, Reason: reason}
}

// head appends the header of a reply to the current option; length bytes of data follow.
func (n *Negotiator) head(kind uint32, length int) {
	n.out = binary.BigEndian.AppendUint64(n.out, OptionReplyMagic)
	n.out = binary.BigEndian.AppendUint32(n.out, n.option)
	n.out = binary.BigEndian.AppendUint32(n.out, kind)
	n.out = binary.BigEndian.AppendUint32(n.out, uint32(length))
}

// reply appends a reply whose data is a text, which may be empty.
func (n *Negotiator) reply(kind uint32, text string) {
	n.head(kind, len(text))
	n.out = append(n.out, text...)
}
