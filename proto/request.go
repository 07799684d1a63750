// Requests of the transmission phase: taking the 28 or 32 bytes apart, and every rule about what
// may be asked, in one place.
// Invariant: a request that passed Check lies inside the export, is aligned, fits, and is one the
// export does; nobody after it checks again. Nothing here allocates.

package proto

import "encoding/binary"

// DrainLimit is the longest payload, in bytes, of a refused WRITE that is read and thrown away so
// that the connection stays usable; beyond it the connection is closed. The spec calls 32 MiB the
// least that is no denial of service; twice that leaves room for clients that know no limit, and
// costs nobody memory.
const DrainLimit = 64 << 20

// Request is one request, in host byte order.
type Request struct {
	Cookie  uint64 // opaque; goes back bit for bit
	Offset  uint64 // bytes
	Length  uint64 // bytes; 64 bits because extended headers have as many
	Command uint16 // Cmd...
	Flags   uint16 // CmdFlag...
	// Extended says that it came with extended headers: PAYLOAD_LEN then says of any command that a
	// payload follows.
	Extended bool
}

// HeaderSize is the length of a request's header in bytes.
func (f Framing) HeaderSize() uint32 {
	if f == Extended {
		return ExtRequestSize
	}
	return RequestSize
}

// ParseRequest takes apart the first RequestSize bytes of b ("Request message"). b must be that
// long. False means a wrong magic: the stream is out of step and only closing it is safe.
func ParseRequest(b []byte) (Request, bool) {
	_ = b[RequestSize-1]
	return Request{
		Flags:   binary.BigEndian.Uint16(b[4:]),
		Command: binary.BigEndian.Uint16(b[6:]),
		Cookie:  binary.BigEndian.Uint64(b[8:]),
		Offset:  binary.BigEndian.Uint64(b[16:]),
		Length:  uint64(binary.BigEndian.Uint32(b[24:])),
	}, binary.BigEndian.Uint32(b) == RequestMagic
}

// ParseRequest takes apart the first HeaderSize bytes of b.
func (f Framing) ParseRequest(b []byte) (Request, bool) {
	if f == Extended {
		return ParseExtRequest(b)
	}
	return ParseRequest(b)
}

// ParseExtRequest takes apart the first ExtRequestSize bytes of b ("Extended request message").
func ParseExtRequest(b []byte) (Request, bool) {
	_ = b[ExtRequestSize-1]
	return Request{
		Flags:    binary.BigEndian.Uint16(b[4:]),
		Command:  binary.BigEndian.Uint16(b[6:]),
		Cookie:   binary.BigEndian.Uint64(b[8:]),
		Offset:   binary.BigEndian.Uint64(b[16:]),
		Length:   binary.BigEndian.Uint64(b[24:]),
		Extended: true,
	}, binary.BigEndian.Uint32(b) == ExtRequestMagic
}

// PutRequest writes the RequestSize bytes of a request to b, which must be that long. Only the
// lower 32 bits of the length have room in this header. A WRITE's data follows it.
func PutRequest(b []byte, r *Request) {
	_ = b[RequestSize-1]
	binary.BigEndian.PutUint32(b, RequestMagic)
	binary.BigEndian.PutUint16(b[4:], r.Flags)
	binary.BigEndian.PutUint16(b[6:], r.Command)
	binary.BigEndian.PutUint64(b[8:], r.Cookie)
	binary.BigEndian.PutUint64(b[16:], r.Offset)
	binary.BigEndian.PutUint32(b[24:], uint32(r.Length))
}

// PutExtRequest writes the ExtRequestSize bytes of a request with extended headers to b, which must
// be that long. A WRITE's data follows it; its flags should have CmdFlagPayloadLen, which the spec
// demands ("Extended request message").
func PutExtRequest(b []byte, r *Request) {
	_ = b[ExtRequestSize-1]
	binary.BigEndian.PutUint32(b, ExtRequestMagic)
	binary.BigEndian.PutUint16(b[4:], r.Flags)
	binary.BigEndian.PutUint16(b[6:], r.Command)
	binary.BigEndian.PutUint64(b[8:], r.Cookie)
	binary.BigEndian.PutUint64(b[16:], r.Offset)
	binary.BigEndian.PutUint64(b[24:], r.Length)
}

// Payload is how many bytes follow the header on the stream. Those of a WRITE always do. The spec
// wants PAYLOAD_LEN on it with extended headers, but QEMU since 8.2 sends its writes without, and
// whoever takes their data for headers loses step. Of all other commands the length is none of a
// payload, unless the flag, which extended headers alone have, says so: waiting for the length of a
// command that is not known would hang the connection.
func (r *Request) Payload() uint64 {
	if r.Command == CmdWrite || r.Extended && r.Flags&CmdFlagPayloadLen != 0 {
		return r.Length
	}
	return 0
}

// Filtered says that this is a BLOCK_STATUS with a payload: what it asks about is in there
// (ParseFilter), and Length is the payload's.
func (r *Request) Filtered() bool {
	return r.Command == CmdBlockStatus && r.Extended && r.Flags&CmdFlagPayloadLen != 0
}

// Undrainable says whether the payload of a refused request is too long to be read and thrown away,
// so that the connection must end. With extended headers the spec wants that beyond the maximum
// payload already.
func (r *Request) Undrainable(f *Facts) bool {
	if r.Extended {
		return r.Payload() > f.payloadLimit()
	}
	return r.Payload() > DrainLimit
}

// FilterSize is how long the payload of a BLOCK_STATUS is that names n contexts, in bytes: the
// length asked about, and the contexts.
func FilterSize(n int) uint64 { return 8 + 4*uint64(n) }

// ParseFilter takes apart the payload of a BLOCK_STATUS ("NBD_CMD_BLOCK_STATUS", extended headers):
// how many bytes it asks about, and which of the selected contexts, by number. A context that was
// not selected, or one named twice, is EINVAL; the length is what was asked about all the same. b
// has been checked by Check to have a possible length.
func ParseFilter(b []byte, selected ContextSet) (length uint64, filter ContextSet, e Errno) {
	length = binary.BigEndian.Uint64(b)
	for b = b[8:]; len(b) > 0; b = b[4:] {
		i := binary.BigEndian.Uint32(b) - 1
		if i >= MaxContexts || selected&(1<<i) == 0 || filter&(1<<i) != 0 {
			return length, 0, EINVAL
		}
		filter |= 1 << i
	}
	return length, filter, Success
}

// rule is what the spec says about one command.
type rule struct {
	needs   uint16 // transmission flag that must be advertised; 0 if the command is baseline
	flags   uint16 // command flags it may carry beside FUA
	extra   uint16 // one more of them, if the export advertises unlock
	unlock  uint16
	changes bool // changes data, so that a read-only export refuses it
	// what a length beyond the maximum payload is called; Success where the length is none of a
	// payload
	payload Errno
	beyond  Errno // what a range beyond the end is called
}

// rules is the table of "Request types" and "Error values", by command.
var rules = [...]rule{
	CmdRead:  {extra: CmdFlagDF, unlock: FlagSendDF, payload: EOVERFLOW, beyond: EINVAL},
	CmdWrite: {changes: true, payload: EINVAL, beyond: ENOSPC},
	CmdDisc:  {},
	CmdFlush: {needs: FlagSendFlush},
	CmdTrim:  {needs: FlagSendTrim, changes: true, beyond: EINVAL},
	CmdCache: {needs: FlagSendCache, beyond: EINVAL},
	CmdWriteZeroes: {needs: FlagSendWriteZeroes, flags: CmdFlagNoHole, extra: CmdFlagFastZero,
		unlock: FlagSendFastZero, changes: true, beyond: ENOSPC},
	CmdBlockStatus: {flags: CmdFlagReqOne, beyond: EINVAL},
}

// Cause is why a request was refused, for the text that goes with the error.
type Cause uint8

// The causes, in the order in which Check looks for them.
const (
	CauseNone Cause = iota
	CauseUnknown
	CauseFlags
	CausePayload
	CauseReadOnly
	CauseAbsent
	CauseContext
	CauseFlushRange
	CauseBeyond
	CauseAlignment
	CauseSize
	CauseEmpty
)

// Check says whether the request may be done on an export with these facts in this session, and if
// not, what to answer. DISC passes always, as it has no answer. Of a BLOCK_STATUS with a payload
// the range is not known yet: CheckRange follows when the payload is there.
//
// Rules in order: known, flags, payload, read-only, advertised, contexts, range, alignment, size,
// nothing to answer. Read-only stands before advertised so that a TRIM of a read-only export, which
// had better not advertise it, is told the reason (EPERM) and not only the fact (EINVAL).
func Check(r *Request, f *Facts, s Session) Errno {
	e, _ := Judge(r, f, s)
	return e
}

// Judge is Check with the cause.
func Judge(r *Request, f *Facts, s Session) (Errno, Cause) {
	if r.Command == CmdDisc {
		return Success, CauseNone
	}
	if int(r.Command) >= len(rules) {
		return EINVAL, CauseUnknown
	}
	c := &rules[r.Command]
	flags := f.Flags | s.flags()
	if r.Flags&^c.permitted(flags, r.Extended) != 0 {
		return EINVAL, CauseFlags
	}
	if r.Extended && !r.payloadFits(flags) {
		return EINVAL, CausePayload
	}
	if c.changes && f.Flags&FlagReadOnly != 0 {
		return EPERM, CauseReadOnly
	}
	if f.Flags&c.needs != c.needs {
		return EINVAL, CauseAbsent
	}
	switch {
	case r.Command == CmdBlockStatus && s.Contexts == 0:
		return EINVAL, CauseContext
	case r.Filtered():
		if n := r.Length - FilterSize(0); r.Length < FilterSize(0) || n%4 != 0 ||
			n > 4*MaxContexts {
			return EINVAL, CausePayload
		}
		return Success, CauseNone
	case r.Command == CmdFlush && r.Offset|r.Length != 0:
		// "MUST be zero"; kept free for a FLUSH of a range
		return EINVAL, CauseFlushRange
	}
	return CheckRange(r, f)
}

// CheckRange is the part of Check about offset and length.
func CheckRange(r *Request, f *Facts) (Errno, Cause) {
	c := &rules[r.Command]
	switch {
	case r.Offset > f.Size || r.Length > f.Size-r.Offset:
		return c.beyond, CauseBeyond
	case f.MinBlock > 1 && (r.Offset|r.Length)&uint64(f.MinBlock-1) != 0:
		return EINVAL, CauseAlignment
	case c.payload != Success && r.Length > f.payloadLimit():
		return c.payload, CauseSize
	case r.Command == CmdBlockStatus && r.Length == 0:
		// nothing could be answered: a chunk has one extent at least, and none is empty
		return EINVAL, CauseEmpty
	}
	return Success, CauseNone
}

// payloadFits says whether a request with extended headers has a payload only where one may be:
// with WRITE, which has it flag or not, and with BLOCK_STATUS.
func (r *Request) payloadFits(flags uint16) bool {
	switch {
	case r.Flags&CmdFlagPayloadLen == 0, r.Command == CmdWrite:
		return true
	}
	return r.Command == CmdBlockStatus && flags&FlagBlockStatusPayload != 0
}

// permitted is the set of command flags the command may carry on an export with these transmission
// flags. FUA is for every command once it is advertised ("NBD_CMD_FLAG_FUA"), even where it means
// nothing.
func (c *rule) permitted(export uint16, extended bool) uint16 {
	flags := c.flags
	if export&FlagSendFUA != 0 {
		flags |= CmdFlagFUA
	}
	if export&c.unlock != 0 {
		flags |= c.extra
	}
	if extended {
		flags |= CmdFlagPayloadLen // payloadFits judges it
	}
	return flags
}
