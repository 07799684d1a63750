// Requests of the transmission phase: taking the 28 bytes apart, and every rule about what may be asked, in one place.
// Invariant: a request that passed Check lies inside the export, is aligned, fits, and is one the export does; nobody
// after it checks again. Nothing here allocates.

package proto

import "encoding/binary"

// DrainLimit is the longest payload, in bytes, of a refused WRITE that is read and thrown away so that the connection
// stays usable; beyond it the connection is closed. The spec calls 32 MiB the least that is no denial of service; twice
// that leaves room for clients that know no limit, and costs nobody memory.
const DrainLimit = 64 << 20

// Request is one request, in host byte order.
type Request struct {
	Cookie  uint64 // opaque; goes back bit for bit
	Offset  uint64 // bytes
	Length  uint64 // bytes; 64 bits because extended headers have as many
	Command uint16 // Cmd...
	Flags   uint16 // CmdFlag...
}

// ParseRequest takes apart the first RequestSize bytes of b ("Request message"). b must be that long. False means a
// wrong magic: the stream is out of step and only closing it is safe.
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

// Payload is how many bytes follow the header on the stream. Only WRITE has any: the length of a command that is not
// known means nothing, and waiting for that many bytes would hang the connection.
func (r *Request) Payload() uint64 {
	if r.Command == CmdWrite {
		return r.Length
	}
	return 0
}

// rule is what the spec says about one command.
type rule struct {
	needs   uint16 // transmission flag that must be advertised; 0 if the command is baseline
	flags   uint16 // command flags it may carry beside FUA
	extra   uint16 // one more of them, if the export advertises unlock
	unlock  uint16
	changes bool  // changes data, so that a read-only export refuses it
	payload Errno // what a length beyond the maximum payload is called; Success where no data goes over the wire
	beyond  Errno // what a range beyond the end is called
}

// rules is the table of "Request types" and "Error values", by command. BLOCK_STATUS is not in it: it is EINVAL unless
// a context was negotiated, and none can be.
var rules = [...]rule{
	CmdRead:        {extra: CmdFlagDF, unlock: FlagSendDF, payload: EOVERFLOW, beyond: EINVAL},
	CmdWrite:       {changes: true, payload: EINVAL, beyond: ENOSPC},
	CmdDisc:        {},
	CmdFlush:       {needs: FlagSendFlush},
	CmdTrim:        {needs: FlagSendTrim, changes: true, beyond: EINVAL},
	CmdCache:       {needs: FlagSendCache, beyond: EINVAL},
	CmdWriteZeroes: {needs: FlagSendWriteZeroes, flags: CmdFlagNoHole, extra: CmdFlagFastZero, unlock: FlagSendFastZero, changes: true, beyond: ENOSPC},
}

// Check says whether the request may be done on an export with these facts, and if not, what to answer. Rules in order:
// flags, read-only, known and advertised, range, alignment, size. DISC passes always, as it has no answer.
//
// Read-only stands before advertised so that a TRIM of a read-only export, which had better not advertise it, is told
// the reason (EPERM) and not only the fact (EINVAL).
func Check(r *Request, f *Facts) Errno {
	if r.Command == CmdDisc {
		return Success
	}
	if int(r.Command) >= len(rules) {
		return EINVAL
	}
	c := &rules[r.Command]
	if r.Flags&^c.permitted(f.Flags) != 0 {
		return EINVAL
	}
	if c.changes && f.Flags&FlagReadOnly != 0 {
		return EPERM
	}
	if f.Flags&c.needs != c.needs {
		return EINVAL
	}
	if r.Command == CmdFlush {
		if r.Offset|r.Length != 0 { // "MUST be zero"; kept free for a FLUSH of a range
			return EINVAL
		}
		return Success
	}
	if r.Offset > f.Size || r.Length > f.Size-r.Offset {
		return c.beyond
	}
	if f.MinBlock > 1 && (r.Offset|r.Length)&uint64(f.MinBlock-1) != 0 {
		return EINVAL
	}
	if r.Length > f.payloadLimit() {
		return c.payload
	}
	return Success
}

// permitted is the set of command flags the command may carry on an export with these transmission flags. FUA is for
// every command once it is advertised ("NBD_CMD_FLAG_FUA"), even where it means nothing.
func (c *rule) permitted(export uint16) uint16 {
	flags := c.flags
	if export&FlagSendFUA != 0 {
		flags |= CmdFlagFUA
	}
	if export&c.unlock != 0 {
		flags |= c.extra
	}
	return flags
}
