// The oldstyle handshake, which was the only handshake until 2011, and is all that clients of the
// kernel 2.6 era know: the server sends size and flags at once, the client sends nothing, and
// requests follow ("Oldstyle negotiation"). There is no name, no TLS, no option, and no way to
// refuse except to close.
//
// Invariant: reserved bytes are sent as zero, and ignored when received.

package proto

import (
	"encoding/binary"
	"errors"
)

// errOldstyleBanner is the error of a server whose first bytes are not an oldstyle banner.
// ParseBanner may still understand them.
var errOldstyleBanner = errors.New("no NBD server of the oldstyle handshake at this address")

// PutOldstyleBanner writes to b, which must have OldstyleBannerSize bytes, what an oldstyle server
// tells about an export: its size, and those of its transmission flags that hold on a connection
// that agreed on nothing.
func PutOldstyleBanner(b []byte, e *Export) {
	b = b[:OldstyleBannerSize]
	clear(b)
	binary.BigEndian.PutUint64(b, Magic)
	binary.BigEndian.PutUint64(b[8:], OldstyleMagic)
	binary.BigEndian.PutUint64(b[16:], e.Size)
	// the upper half is where newstyle servers had their handshake flags
	binary.BigEndian.PutUint32(b[24:], uint32(e.flags(Session{})))
}

// ParseOldstyleBanner parses the first OldstyleBannerSize bytes of a server and puts size and
// transmission flags into e. Servers older than the flags have zeroes or worse in their place:
// without HAS_FLAGS there are no flags. The first 16 bytes are enough to recognize a server of
// another handshake.
func ParseOldstyleBanner(b []byte, e *Export) error {
	if len(b) < OldstyleBannerSize || binary.BigEndian.Uint64(b) != Magic ||
		binary.BigEndian.Uint64(b[8:]) != OldstyleMagic {
		return errOldstyleBanner
	}
	e.Size, e.Flags = binary.BigEndian.Uint64(b[16:]), uint16(binary.BigEndian.Uint32(b[24:]))
	if e.Flags&FlagHasFlags == 0 {
		e.Flags = 0
	}
	return nil
}
