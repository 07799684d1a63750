// The numbers of the NBD protocol under the spec's names: magics, options, replies, commands, flags
// and sizes.
//
// Invariant: every number that goes over the wire is named here once; all integers are big-endian.

package proto

// Magic numbers ("Protocol phases" and the header layouts of doc/proto.md).
const (
	Magic            uint64 = 0x4e42444d41474943 // "NBDMAGIC", first word of the server
	OptionMagic      uint64 = 0x49484156454F5054 // "IHAVEOPT", second word, and head of options
	OptionReplyMagic uint64 = 0x0003e889045565a9
	RequestMagic     uint32 = 0x25609513
	SimpleReplyMagic uint32 = 0x67446698
	ChunkMagic       uint32 = 0x668e33ef // of a structured reply
	ExtRequestMagic  uint32 = 0x21e41c71
	ExtReplyMagic    uint32 = 0x6e8a278c
	OldstyleMagic    uint64 = 0x0000420281861253 // second word of an oldstyle server
)

// DefaultPort is the TCP port that IANA has assigned to NBD.
const DefaultPort = 10809

// Limits and defaults, in bytes.
const (
	MaxString         = 4096     // every string of the protocol ("String values")
	DefaultMaxPayload = 32 << 20 // without block size information ("Block size constraints")
	DefaultPreferred  = 4096     // same source
)

// Sizes on the wire, in bytes.
const (
	BannerSize      = 18 // magic, option magic, handshake flags
	ClientFlagsSize = 4
	OptionSize      = 16 // header of an option: magic, number, length of the data
	OptionReplySize = 20 // header of an option reply: magic, option, type, length of the data
	// ExportNameReplySize is size and flags; then ExportNamePadding zeroes follow, unless the
	// client opted out of them.
	ExportNameReplySize = 10
	ExportNamePadding   = 124
	RequestSize         = 28
	SimpleReplySize     = 16
	ChunkSize           = 20  // header of a structured reply chunk
	ExtRequestSize      = 32  // header of a request with extended headers
	ExtReplySize        = 32  // header of a reply chunk with extended headers
	OldstyleBannerSize  = 152 // all that an oldstyle server says before the first request
)

// Handshake flags, 16 bit, from the server.
const (
	FlagFixedNewstyle uint16 = 1 << 0
	FlagNoZeroes      uint16 = 1 << 1
)

// Client flags, 32 bit.
const (
	FlagClientFixedNewstyle uint32 = 1 << 0
	FlagClientNoZeroes      uint32 = 1 << 1
)

// Transmission flags: what an export can do.
const (
	FlagHasFlags           uint16 = 1 << 0
	FlagReadOnly           uint16 = 1 << 1
	FlagSendFlush          uint16 = 1 << 2
	FlagSendFUA            uint16 = 1 << 3
	FlagRotational         uint16 = 1 << 4
	FlagSendTrim           uint16 = 1 << 5
	FlagSendWriteZeroes    uint16 = 1 << 6
	FlagSendDF             uint16 = 1 << 7
	FlagCanMultiConn       uint16 = 1 << 8
	FlagSendResize         uint16 = 1 << 9
	FlagSendCache          uint16 = 1 << 10
	FlagSendFastZero       uint16 = 1 << 11
	FlagBlockStatusPayload uint16 = 1 << 12
)

// Options.
const (
	OptExportName      uint32 = 1
	OptAbort           uint32 = 2
	OptList            uint32 = 3
	OptPeekExport      uint32 = 4 // withdrawn
	OptStartTLS        uint32 = 5
	OptInfo            uint32 = 6
	OptGo              uint32 = 7
	OptStructuredReply uint32 = 8
	OptListMetaContext uint32 = 9
	OptSetMetaContext  uint32 = 10
	OptExtendedHeaders uint32 = 11
)

// Option replies. Bit 31 marks an error.
const (
	RepAck              uint32 = 1
	RepServer           uint32 = 2
	RepInfo             uint32 = 3
	RepMetaContext      uint32 = 4
	RepErrorBit         uint32 = 1 << 31
	RepErrUnsup         uint32 = RepErrorBit | 1
	RepErrPolicy        uint32 = RepErrorBit | 2
	RepErrInvalid       uint32 = RepErrorBit | 3
	RepErrPlatform      uint32 = RepErrorBit | 4
	RepErrTLSReqd       uint32 = RepErrorBit | 5
	RepErrUnknown       uint32 = RepErrorBit | 6
	RepErrShutdown      uint32 = RepErrorBit | 7
	RepErrBlockSizeReqd uint32 = RepErrorBit | 8
	RepErrTooBig        uint32 = RepErrorBit | 9
	RepErrExtHeaderReqd uint32 = RepErrorBit | 10
)

// Information types of INFO and GO.
const (
	InfoExport      uint16 = 0 // 12 bytes with the type: size, transmission flags
	InfoName        uint16 = 1
	InfoDescription uint16 = 2
	InfoBlockSize   uint16 = 3 // 14 bytes with the type: minimum, preferred, maximum payload
)

// Commands.
const (
	CmdRead        uint16 = 0
	CmdWrite       uint16 = 1
	CmdDisc        uint16 = 2
	CmdFlush       uint16 = 3
	CmdTrim        uint16 = 4
	CmdCache       uint16 = 5
	CmdWriteZeroes uint16 = 6
	CmdBlockStatus uint16 = 7
	CmdResize      uint16 = 8 // of an extension that no server is known to have
)

// commandNames has the spec's names of the commands, by number.
var commandNames = [...]string{
	CmdRead: "READ", CmdWrite: "WRITE", CmdDisc: "DISC", CmdFlush: "FLUSH", CmdTrim: "TRIM",
	CmdCache: "CACHE", CmdWriteZeroes: "WRITE_ZEROES", CmdBlockStatus: "BLOCK_STATUS",
	CmdResize: "RESIZE",
}

// CommandName returns the spec's name of a command, or "" if it has none.
func CommandName(command uint16) string {
	if int(command) < len(commandNames) {
		return commandNames[command]
	}
	return ""
}

// Command flags.
const (
	CmdFlagFUA        uint16 = 1 << 0
	CmdFlagNoHole     uint16 = 1 << 1
	CmdFlagDF         uint16 = 1 << 2
	CmdFlagReqOne     uint16 = 1 << 3
	CmdFlagFastZero   uint16 = 1 << 4
	CmdFlagPayloadLen uint16 = 1 << 5
)

// ReplyFlagDone marks the last chunk of a structured reply.
const ReplyFlagDone uint16 = 1 << 0

// Chunk types of structured replies. Bit 15 marks an error.
const (
	ChunkNone        uint16 = 0
	ChunkOffsetData  uint16 = 1 // offset of 8 bytes, then data
	ChunkOffsetHole  uint16 = 2 // offset of 8 bytes, length of 4
	ChunkBlockStatus uint16 = 5 // context of 4 bytes, then extents of 4 + 4
	// ChunkBlockStatusExt has context and number of extents of 4 bytes each, then extents of 8 + 8;
	// with extended headers only.
	ChunkBlockStatusExt uint16 = 6
	ChunkErrorBit       uint16 = 1 << 15
	ChunkError          uint16 = ChunkErrorBit | 1 // error of 4 bytes, length of text of 2, text
	ChunkErrorOffset    uint16 = ChunkErrorBit | 2 // the same, then an offset of 8
)

// The only meta context that the spec itself defines, and its status bits ("base:allocation
// metadata context").
const (
	ContextAllocation        = "base:allocation"
	StatusHole        uint32 = 1 << 0 // a write may fail for want of space
	StatusZero        uint32 = 1 << 1 // reads as zeroes
)

// MaxExtents limits the descriptors of a chunk of BLOCK_STATUS ("NBD_REPLY_TYPE_BLOCK_STATUS").
const MaxExtents = 1 << 20

// Sizes of the payloads of chunks, in bytes.
const (
	HoleSize      = 12                 // of an OFFSET_HOLE
	MaxErrorChunk = 4 + 2 + 8 + 64<<10 // of an error: the length of its text has 16 bits
)

// StatusSizes returns the size of the head of a block status chunk and of each descriptor after it,
// in bytes, by the type of the chunk.
func StatusSizes(kind uint16) (head, extent int) {
	if kind == ChunkBlockStatusExt {
		return 8, 16
	}
	return 4, 8
}
