// The text of an error: which request, of which export, and what is wrong with it. Clients that
// understand structured replies show it to people.
//
// Invariant: a complaint is UTF-8 without NUL and at most maxComplaint bytes, whatever the name of
// the export; writing a complaint does not allocate.

package proto

import (
	"strconv"
	"unicode/utf8"
)

// maxComplaint limits the text, in bytes; the spec allows 4096.
const maxComplaint = 320

// maxNameShown limits how much of an export's name a text shows, in bytes.
const maxNameShown = 64

// Complaint is an error and what is known about it.
type Complaint struct {
	Request *Request
	Export  string // its name
	Facts   *Facts
	Session Session
	Errno   Errno
	System  int32 // the kernel's positive errno; 0 if the error is not the kernel's
	Filter  bool  // the payload of a BLOCK_STATUS was wrong
	Ended   bool  // the storage has become shorter than the export
}

// Append appends the text to b, which should have room for maxComplaint bytes.
func (c *Complaint) Append(b []byte) []byte {
	from := len(b)
	r := c.Request
	if name := CommandName(r.Command); name != "" {
		b = append(b, name...)
	} else {
		b = append(b, "command "...)
		b = strconv.AppendUint(b, uint64(r.Command), 10)
	}
	if c.Export == "" {
		b = append(b, " of the default export"...)
	} else {
		b = append(b, ` of export "`...)
		b = appendPlain(b, clip(c.Export, maxNameShown))
		b = append(b, '"')
	}
	if r.Command != CmdFlush {
		b = append(b, ", "...)
		b = strconv.AppendUint(b, r.Length, 10)
		b = append(b, " bytes at offset "...)
		b = strconv.AppendUint(b, r.Offset, 10)
	}
	b = append(b, ": "...)
	b = c.reason(b)
	return b[:min(len(b), from+maxComplaint)]
}

// appendPlain appends s with a question mark for each rune that a terminal might obey, and for each
// byte that is not UTF-8, which would become three bytes.
func appendPlain(b []byte, s string) []byte {
	for _, r := range s {
		if !strconv.IsPrint(r) || r == utf8.RuneError {
			r = '?'
		}
		b = utf8.AppendRune(b, r)
	}
	return b
}

// reason appends what is wrong.
func (c *Complaint) reason(b []byte) []byte {
	switch {
	case c.System != 0:
		b = append(b, "the storage of the export failed with errno "...)
		b = strconv.AppendInt(b, int64(c.System), 10)
		if name := systemName(c.System); name != "" {
			b = append(b, " ("...)
			b = append(b, name...)
			b = append(b, ')')
		}
		return b
	case c.Ended:
		return append(b, "the storage of the export is shorter than when it was opened"...)
	case c.Filter:
		return append(b, "the payload names no context, a context that was not selected, or a "+
			"context twice"...)
	}
	_, cause := Judge(c.Request, c.Facts, c.Session)
	switch cause {
	case CauseNone: // the request was valid, and failed while it was done
		return append(b, c.failure()...)
	case CauseFlags:
		b = append(b, "flags 0x"...)
		b = strconv.AppendUint(b, uint64(c.Request.Flags), 16)
		return append(b, " are not for this command, or were not advertised"...)
	case CauseBeyond:
		b = append(b, "it ends beyond the export's "...)
		b = strconv.AppendUint(b, c.Facts.Size, 10)
		return append(b, " bytes"...)
	case CauseSize:
		b = append(b, "the maximum at once is "...)
		b = strconv.AppendUint(b, c.Facts.payloadLimit(), 10)
		return append(b, " bytes"...)
	case CauseAlignment:
		b = append(b, "offset and length must be multiples of "...)
		b = strconv.AppendUint(b, uint64(c.Facts.MinBlock), 10)
		return append(b, " bytes"...)
	}
	return append(b, plainCauses[cause]...)
}

// failure is what has become of a request that is valid as the export is now.
func (c *Complaint) failure() string {
	switch c.Errno {
	case ENOTSUP:
		return "it cannot be done faster than by writing zeroes"
	case ESHUTDOWN:
		return "the export is being removed from this server"
	case EOVERFLOW:
		return "the server has not the memory to answer it in one piece"
	case EPERM, EINVAL, ENOSPC:
		return "the export did not allow it when it came in, and has been changed since"
	}
	if c.Request.Command != CmdFlush && c.Request.Flags&CmdFlagFUA == 0 {
		return "the storage of the export failed"
	}
	return "a flush of this export, or a write that was to be durable, has failed before: data " +
		"may be lost"
}

// plainCauses has the texts of the causes that need no figures.
var plainCauses = [...]string{
	CauseUnknown:    "unknown command",
	CausePayload:    "the payload is not for this command, or of a wrong length",
	CauseReadOnly:   "the export is read-only",
	CauseAbsent:     "the export does not advertise it",
	CauseContext:    "no meta context was selected for this export",
	CauseFlushRange: "offset and length of a FLUSH must be zero",
	CauseEmpty:      "a length of zero has no status",
}
