// The server's side of the negotiation, without a socket and without a clock: bytes in, bytes and
// one event out.
//
// Invariant: at any time exactly one of three things is due, and Need, Out and Event say which:
// bytes to read, bytes to send, or the end. Bytes are taken only up to the end of the option being
// read, so nothing of the transmission phase is ever swallowed, and an answer is complete before
// the next option is looked at. Memory is fixed: one string, and one chunk of output.

package proto

import "encoding/binary"

// Limits that keep a client from holding a server's memory or time. The spec leaves them to the
// server.
const (
	// OptionDrainLimit is the longest data of an option, in bytes, that is read and thrown away;
	// beyond it the connection is closed. No option in use needs more than 132 KiB.
	OptionDrainLimit = 32 << 20
	// OptionsBase and OptionsPerExport bound the options of one handshake: a client that lists
	// exports asks each of them a few things (qemu-nbd -L), any other is done after less than ten
	// options.
	OptionsBase      = 64
	OptionsPerExport = 8
	// chunk is where a piece of LIST's answer ends; an entry may still pass it by its own length,
	// at most 8 KiB.
	chunk = 8 << 10
)

// Policy is what the server decides beside the exports. The zero value is open to all.
type Policy struct {
	HideExports bool // LIST is answered with ERR_POLICY
	// Admit is asked once per GO or EXPORT_NAME that is otherwise granted, immediately before the
	// answer, so that a place can be reserved; a refusal other than the zero one is sent instead.
	// Nil admits everybody.
	Admit func(export int) Refusal
}

// Refusal is an error reply to an option: one of RepErr..., and a message for people, cut at
// MaxString bytes. The zero value is no refusal.
type Refusal struct {
	Reply   uint32
	Message string
}

// EventKind is how a negotiation ended.
type EventKind uint8

// The ends of a negotiation.
const (
	EventNone EventKind = iota // not yet
	// the transmission phase begins with the next byte, in both directions
	EventTransmit
	EventClose // close the connection
)

// Event is the end of a negotiation.
type Event struct {
	Kind   EventKind
	Export int         // index in the catalog, with EventTransmit
	Mode   Mode        // what was agreed on, with EventTransmit
	Reason CloseReason // with EventClose
}

// state is what the bytes being collected are.
type state uint8

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
	onRest // data of an option that nobody reads: counted, not kept
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
	// bytes that the state needs, at most len(scratch); step is due when have reaches it
	want    int
	scratch [MaxString]byte // what is being collected

	// The option being read.
	option  uint32
	left    uint32 // bytes of its data still to come
	options int    // options so far
	refusal Refusal
	export  int        // export of INFO, GO and the two of meta contexts
	asked   string     // the name that it was asked for by
	infos   uint16     // information types asked for, as a bit set of the four we know
	queries uint32     // queries still to come
	matched ContextSet // contexts that a query matched

	// What SET_META_CONTEXT selected, and the name of the export it did so for: for another it does
	// not count.
	selected ContextSet
	selector string

	out     []byte // answer
	sent    int    // bytes of it that were sent
	listing int    // next export of a LIST being answered, -1 outside of one
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

// Need is how many bytes may be read from the client next. Reading more could swallow what belongs
// to the transmission phase. Zero means that there is something to send first, or that the
// negotiation is over.
func (n *Negotiator) Need() int {
	switch {
	case n.sent < len(n.out) || n.event.Kind != EventNone:
		return 0
	case n.left > 0:
		return int(n.left)
	}
	return n.want - n.have
}

// Feed takes bytes from the client, in pieces of any size, and says how many of them it used. It
// stops at the first answer, which has to be sent before it goes on, and at the end of the
// negotiation.
func (n *Negotiator) Feed(b []byte) (used int) {
	for used < len(b) {
		k := min(n.Need(), len(b)-used)
		if k == 0 {
			break
		}
		if n.state != onRest {
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

// advance does what is due once the bytes for it are complete.
func (n *Negotiator) advance() {
	switch {
	case n.state == onRest && n.left == 0:
		n.answer()
	case n.state != onRest && n.have == n.want:
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

// collect goes to a state that needs so many bytes; at once through it if that is none.
func (n *Negotiator) collect(s state, want int) {
	n.state, n.have, n.want = s, 0, want
	if want == 0 {
		n.step()
	}
}

// rest throws away what is left of the option's data and answers then. Answering first could have
// both sides waiting for the other to read.
func (n *Negotiator) rest() {
	n.state, n.have, n.want = onRest, 0, 0
	n.advance()
}

// refuse is rest with an error as the answer.
func (n *Negotiator) refuse(reply uint32, message string) {
	n.refusal = Refusal{reply, message}
	n.rest()
}

// clientFlags judges the first bytes of the client ("Client flags"): an unknown bit is something we
// do not understand and the spec wants the connection closed.
func (n *Negotiator) clientFlags(flags uint32) {
	if flags&^(FlagClientFixedNewstyle|FlagClientNoZeroes) != 0 {
		n.close(CloseClientFlags)
		return
	}
	n.mode.FixedNewstyle = flags&FlagClientFixedNewstyle != 0
	n.mode.NoZeroes = flags&FlagClientNoZeroes != 0
	n.collect(onHeader, OptionSize)
}

// header begins an option. This switch is the list of options served; all others are answered and
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
	case n.left > OptionDrainLimit:
		n.close(CloseOptionLength)
		return
	case n.options > OptionsBase+OptionsPerExport*n.catalog.Len():
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
		n.rest()
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
// EXPORT_NAME does not come here: it has no replies.
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

// admit asks the policy for a place on an export; false leaves the reason in refusal.
func (n *Negotiator) admit(export int) bool {
	if n.policy.Admit == nil {
		return true
	}
	n.refusal = n.policy.Admit(export)
	return n.refusal.Reply == 0
}

// Refuse makes r the answer to every option from now on, except ABORT, which is always
// acknowledged, and EXPORT_NAME, which has no answer but closing. A server that shuts down sends
// RepErrShutdown so.
func (n *Negotiator) Refuse(r Refusal) {
	n.standing = r
}

// Out is what has to be sent to the client now, empty if nothing. It is valid until Sent is called,
// and at most some 16 KiB: long answers come in pieces.
func (n *Negotiator) Out() []byte {
	return n.out[n.sent:]
}

// Sent says that the first k bytes of Out were sent. More than Out held is a mistake of the caller.
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

// Event is how the negotiation ended, of kind EventNone as long as it has not, or as long as Out
// has bytes to send.
func (n *Negotiator) Event() Event {
	if n.sent < len(n.out) {
		return Event{}
	}
	return n.event
}

// settle fixes, for a connection about to transmit, which meta contexts count: those that were
// selected for an export of exactly this name.
func (n *Negotiator) settle(name string) {
	n.mode.Contexts = 0
	if name == n.selector {
		n.mode.Contexts = n.selected
	}
}

// transmit ends the negotiation well.
func (n *Negotiator) transmit(export int) {
	n.left = 0
	n.event = Event{Kind: EventTransmit, Export: export, Mode: n.mode}
}

// close ends the negotiation.
func (n *Negotiator) close(reason CloseReason) {
	n.left = 0
	n.event = Event{Kind: EventClose, Reason: reason}
}

// head appends the header of a reply to the current option with so many bytes of data to follow.
func (n *Negotiator) head(kind uint32, length int) {
	n.out = binary.BigEndian.AppendUint64(n.out, OptionReplyMagic)
	n.out = binary.BigEndian.AppendUint32(n.out, n.option)
	n.out = binary.BigEndian.AppendUint32(n.out, kind)
	n.out = binary.BigEndian.AppendUint32(n.out, uint32(length))
}

// reply appends a reply whose data is a text, or none.
func (n *Negotiator) reply(kind uint32, text string) {
	n.head(kind, len(text))
	n.out = append(n.out, text...)
}
