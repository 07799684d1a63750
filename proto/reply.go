// Replies of the transmission phase, written into memory of the caller. Invariant: nothing here allocates or keeps what
// it was given. Structured chunks will stand beside the simple reply; which of them a connection uses is in its Mode.

package proto

import "encoding/binary"

// PutSimpleReply writes the SimpleReplySize bytes of a simple reply to b, which must be that long. The data of a READ
// follows it if, and only if, e is Success ("Simple reply message").
func PutSimpleReply(b []byte, cookie uint64, e Errno) {
	_ = b[SimpleReplySize-1]
	binary.BigEndian.PutUint32(b, SimpleReplyMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(e))
	binary.BigEndian.PutUint64(b[8:], cookie)
}
