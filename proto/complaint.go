// The text of an error: what was asked, of which export, and what is wrong with it. Clients that
// understand structured replies show it to people.
//
// Invariant: a complaint is UTF-8 without NUL and at most MaxComplaint bytes, whatever the export
// is called; writing one does not allocate.

package proto

import (
	"strconv"
	"unicode/utf8"
)

// MaxComplaint is the longest text in bytes; the spec allows 4096.
const MaxComplaint = 320

// longestName is how much of an export's name a text shows, in bytes.
const longestName = 64

// Complaint is an error about to be explained.
type Complaint struct {
	Request *Request
	Export  string // its name
	Facts   *Facts
	Session Session
	Errno   Errno
	System  int32 // what the kernel said, as a positive errno; 0 if it was not asked
	Filter  bool  // the payload of a BLOCK_STATUS was wrong
	Ended   bool  // the storage behind it has become shorter than the export
}

// Append appends the text to b, which should have room for MaxComplaint bytes.
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
		b = appendPlain(b, clip(c.Export, longestName))
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
	return b[:min(len(b), from+MaxComplaint)]
}

// appendPlain leaves out what a terminal might obey, and what is no character, which would take
// three bytes for one.
func appendPlain(b []byte, s string) []byte {
	for _, r := range s {
		if !strconv.IsPrint(r) || r == utf8.RuneError {
			r = '?'
		}
		b = utf8.AppendRune(b, r)
	}
	return b
}

func (c *Complaint) reason(b []byte) []byte {
	switch {
	case c.System != 0:
		b = append(b, "the storage behind it failed with errno "...)
		b = strconv.AppendInt(b, int64(c.System), 10)
		if name := systemName(c.System); name != "" {
			b = append(b, " ("...)
			b = append(b, name...)
			b = append(b, ')')
		}
		return b
	case c.Ended:
		return append(b, "the storage behind it is shorter than when it was opened"...)
	case c.Filter:
		return append(b, "the payload names no context, one that was not selected, or one twice"...)
	}
	_, cause := Judge(c.Request, c.Facts, c.Session)
	switch cause {
	case CauseNone: // found out while the request was done
		if c.Errno == ENOTSUP {
			return append(b, "it cannot be done faster than by writing zeroes"...)
		}
		return append(b,
			"a flush of this export, or a write that was to be durable, has failed before: data "+
				"may be lost"...)
	case CauseFlags:
		b = append(b, "flags 0x"...)
		b = strconv.AppendUint(b, uint64(c.Request.Flags), 16)
		return append(b, " are not for this command, or were not advertised"...)
	case CauseBeyond:
		b = append(b, "it ends beyond the export's "...)
		b = strconv.AppendUint(b, c.Facts.Size, 10)
		return append(b, " bytes"...)
	case CauseSize:
		b = append(b, "the most at once is "...)
		b = strconv.AppendUint(b, c.Facts.payloadLimit(), 10)
		return append(b, " bytes"...)
	case CauseAlignment:
		b = append(b, "offset and length must be multiples of "...)
		b = strconv.AppendUint(b, uint64(c.Facts.MinBlock), 10)
		return append(b, " bytes"...)
	}
	return append(b, plainCauses[cause]...)
}

var plainCauses = [...]string{
	CauseUnknown:    "no such command",
	CausePayload:    "the payload is not for this command, or of a wrong length",
	CauseReadOnly:   "the export is read-only",
	CauseAbsent:     "the export does not advertise it",
	CauseContext:    "no meta context was selected for this export",
	CauseFlushRange: "offset and length of a FLUSH must be zero",
	CauseEmpty:      "a length of zero has no status",
}
