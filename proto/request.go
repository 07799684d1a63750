// Requests of the transmission phase: their headers of 28 or 32 bytes, and every rule about which
// requests are valid.
//
// Invariant: a request that passed Check lies inside the export, is aligned, fits, and is a command
// that the export serves; nothing after Check tests that again. Nothing here allocates.

package proto

import "encoding/binary"

// MaxDrain limits the payload, in bytes, of a refused WRITE that is read and discarded so that the
// connection stays usable; beyond it the connection is closed. The spec names 32 MiB as the
// smallest limit that a server may set; twice that leaves room for clients that know no limit, and
// costs no memory.
const MaxDrain = 64 << 20

// Request is one request, in host byte order.
type Request struct {
	Cookie  uint64 // opaque; goes back bit for bit
	Offset  uint64 // bytes
	Length  uint64 // bytes; extended headers have all 64 bits
	Command uint16 // Cmd...
	Flags   uint16 // CmdFlag...
	// Extended says that the request has an extended header: a payload follows any command that has
	// PAYLOAD_LEN.
	Extended bool
}

// HeaderSize returns the length of a request's header, in bytes.
func (f Framing) HeaderSize() uint32 {
	if f == Extended {
		return ExtRequestSize
	}
	return RequestSize
}

// ParseRequest parses the first RequestSize bytes of b ("Request message"), which must be that
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

// ParseRequest parses the first HeaderSize bytes of b.
func (f Framing) ParseRequest(b []byte) (Request, bool) {
	if f == Extended {
		return parseExtRequest(b)
	}
	return ParseRequest(b)
}

// parseExtRequest parses the first ExtRequestSize bytes of b ("Extended request message").
func parseExtRequest(b []byte) (Request, bool) {
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
// lower 32 bits of the length fit into this header. A WRITE's data follows it.
func PutRequest(b []byte, r *Request) {
	_ = b[RequestSize-1]
	binary.BigEndian.PutUint32(b, RequestMagic)
	binary.BigEndian.PutUint16(b[4:], r.Flags)
	binary.BigEndian.PutUint16(b[6:], r.Command)
	binary.BigEndian.PutUint64(b[8:], r.Cookie)
	binary.BigEndian.PutUint64(b[16:], r.Offset)
	binary.BigEndian.PutUint32(b[24:], uint32(r.Length))
}

// PutExtRequest writes the ExtRequestSize bytes of a request with an extended header to b, which
// must be that long. A WRITE's data follows it; its flags should have CmdFlagPayloadLen, which the
// spec demands ("Extended request message").
func PutExtRequest(b []byte, r *Request) {
	_ = b[ExtRequestSize-1]
	binary.BigEndian.PutUint32(b, ExtRequestMagic)
	binary.BigEndian.PutUint16(b[4:], r.Flags)
	binary.BigEndian.PutUint16(b[6:], r.Command)
	binary.BigEndian.PutUint64(b[8:], r.Cookie)
	binary.BigEndian.PutUint64(b[16:], r.Offset)
	binary.BigEndian.PutUint64(b[24:], r.Length)
}

// Payload returns how many bytes follow the header on the stream. The data of a WRITE always does.
// The spec demands PAYLOAD_LEN on it with extended headers, but QEMU since 8.2 sends its writes
// without, and a server that takes their data for headers is out of step. The length of any other
// command is not that of a payload, unless the flag, which only extended headers have, says so:
// waiting for the length of an unknown command would hang the connection.
func (r *Request) Payload() uint64 {
	if r.Command == CmdWrite || r.Extended && r.Flags&CmdFlagPayloadLen != 0 {
		return r.Length
	}
	return 0
}

// Filtered reports whether this is a BLOCK_STATUS with a payload: the payload says what it asks
// about (ParseFilter), and Length is the length of the payload.
func (r *Request) Filtered() bool {
	return r.Command == CmdBlockStatus && r.Extended && r.Flags&CmdFlagPayloadLen != 0
}

// Undrainable reports whether the payload of a refused request is too long to be read and
// discarded, so that the connection must end. With extended headers the spec demands that for every
// payload beyond the maximum.
func (r *Request) Undrainable(f *Facts) bool {
	if r.Extended {
		return r.Payload() > f.payloadLimit()
	}
	return r.Payload() > MaxDrain
}

// FilterSize returns the length of the payload of a BLOCK_STATUS that names n contexts, in bytes:
// the length asked about, and the contexts.
func FilterSize(n int) uint64 { return 8 + 4*uint64(n) }

// ParseFilter parses the payload of a BLOCK_STATUS ("NBD_CMD_BLOCK_STATUS", extended headers): how
// many bytes it asks about, and which of the selected contexts, by number. A context that was not
// selected, or that is named twice, is EINVAL; the length is valid all the same. Check must have
// accepted the length of b.
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
	flags   uint16 // command flags it may carry, apart from FUA
	extra   uint16 // another flag, allowed if the export advertises unlock
	unlock  uint16
	changes bool  // changes data, so that a read-only export refuses it
	payload Errno // error of a length beyond the maximum payload; Success if there is no payload
	beyond  Errno // error of a range beyond the end
}

// rules has "Request types" and "Error values" as a table, by command.
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

// Check returns Success if the request may be done on an export with these facts in this session,
// or the error to answer it with. DISC always passes, because it has no answer. The range of a
// BLOCK_STATUS with a payload is not known yet: the caller calls CheckRange when the payload is
// there.
//
// Rules in order: known, flags, payload, read-only, advertised, contexts, range, alignment, size,
// nothing to answer. Read-only comes before advertised so that a TRIM of a read-only export, which
// should not advertise it, is answered with the reason (EPERM) and not only the fact (EINVAL).
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

// CheckRange does the part of Check about offset and length.
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
		// there is no possible answer: a chunk has at least one extent, and no extent is empty
		return EINVAL, CauseEmpty
	}
	return Success, CauseNone
}

// payloadFits reports whether a request with an extended header has a payload only where it may:
// with WRITE, which has a payload with the flag or without, and with BLOCK_STATUS.
func (r *Request) payloadFits(flags uint16) bool {
	switch {
	case r.Flags&CmdFlagPayloadLen == 0, r.Command == CmdWrite:
		return true
	}
	return r.Command == CmdBlockStatus && flags&FlagBlockStatusPayload != 0
}

// permitted returns the command flags that the command may carry on an export with these
// transmission flags. FUA is allowed with every command once it is advertised ("NBD_CMD_FLAG_FUA"),
// even where it has no meaning.
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
