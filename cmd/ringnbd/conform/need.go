// What checks can need of a server, by name.
//
// Invariant: needs are about what the server said of itself when the suite began (Facts), or about
// how the suite was started.

package conform

import "ringnbd/proto"

// What a server may offer, and what a check may need of the way the suite was started.
var (
	NeedFixed = Need{"fixed newstyle (FIXED_NEWSTYLE)", func(f *Facts) bool {
		return f.Handshake&proto.FlagFixedNewstyle != 0
	}}
	NeedNoZeroes = Need{"the handshake flag NO_ZEROES", func(f *Facts) bool {
		return f.Handshake&proto.FlagNoZeroes != 0
	}}
	NeedGo    = Need{"NBD_OPT_GO", func(f *Facts) bool { return f.Go }}
	NeedNames = Need{"a server that refuses names it does not know", func(f *Facts) bool {
		return !f.AnyName
	}}
	NeedList       = Need{"NBD_OPT_LIST", func(f *Facts) bool { return f.List }}
	NeedStructured = Need{"structured replies", func(f *Facts) bool { return f.Structured }}
	NeedExtended   = Need{"extended headers", func(f *Facts) bool { return f.Extended }}
	NeedContexts   = Need{"the context base:allocation", func(f *Facts) bool {
		return f.Allocation
	}}
	NeedMeta      = Need{"meta contexts", func(f *Facts) bool { return f.Meta }}
	NeedBlockSize = Need{"block size information", func(f *Facts) bool { return f.Block != nil }}
	NeedFlush     = flag("SEND_FLUSH", proto.FlagSendFlush)
	NeedFUA       = flag("SEND_FUA", proto.FlagSendFUA)
	NeedTrim      = flag("SEND_TRIM", proto.FlagSendTrim)
	NeedZeroes    = flag("SEND_WRITE_ZEROES", proto.FlagSendWriteZeroes)
	NeedDF        = flag("SEND_DF", proto.FlagSendDF)
	NeedCache     = flag("SEND_CACHE", proto.FlagSendCache)
	NeedFastZero  = flag("SEND_FAST_ZERO", proto.FlagSendFastZero)
	NeedMultiConn = flag("CAN_MULTI_CONN", proto.FlagCanMultiConn)
	NeedPayload   = Need{"BLOCK_STATUS_PAYLOAD", func(f *Facts) bool {
		return f.FlagsExtended&proto.FlagBlockStatusPayload != 0
	}}

	NeedWrite = Need{"permission to write (--writable, or --spawn) on an export that can be " +
		"written and is 32 MiB or more", func(f *Facts) bool {
		return f.Writable
	}}
	NeedPattern = Need{"the suite's own data in the export (--writable, or --spawn)",
		func(f *Facts) bool {
			return f.Pattern
		}}
	NeedReadOnly = Need{"a read-only export (--spawn-read-only, or one that is)",
		func(f *Facts) bool {
			return f.ReadOnly
		}}
	NeedReadOnlyChange = Need{"permission to try changes on the read-only export (--writable, " +
		"or {img} in the command that starts it)", func(f *Facts) bool {
		return f.ReadOnly && f.ReadOnlyChange
	}}
	NeedImage = Need{"the image under the server at hand (--spawn with {img})",
		func(f *Facts) bool {
			return f.Image != ""
		}}
	NeedTCP      = Need{"TCP", func(f *Facts) bool { return f.TCP }}
	NeedByteUnit = Need{"a minimum block size of 1", func(f *Facts) bool {
		return f.MinBlock() == 1
	}}
	NeedBlocks = Need{"a minimum block size of more than 1", func(f *Facts) bool {
		return f.MinBlock() > 1
	}}
)

// Facts is what the suite found out about a server before the first check.
type Facts struct {
	Handshake  uint16   `json:"handshake_flags"`
	Go         bool     `json:"go"`
	List       bool     `json:"list"`
	Names      []string `json:"names,omitempty"` // of LIST, at most 1000
	AnyName    bool     `json:"any_name"`        // every name is accepted
	Structured bool     `json:"structured_replies"`
	Extended   bool     `json:"extended_headers"`
	Meta       bool     `json:"meta_contexts"`
	Allocation bool     `json:"base_allocation"`
	Contexts   []string `json:"contexts,omitempty"`
	Size       uint64   `json:"size"`
	FlagsPlain uint16   `json:"flags_plain"` // transmission flags with simple replies
	// with structured replies, if the server has them
	Flags uint16 `json:"flags"`
	// with extended headers and a context, 0 without
	FlagsExtended uint16     `json:"flags_extended"`
	Block         *BlockSize `json:"block_size,omitempty"`
	Description   string     `json:"description,omitempty"`
	Writable      bool       `json:"writable"`
	Pattern       bool       `json:"pattern"`
	ReadOnly      bool       `json:"read_only_export"`
	// the read-only export may be sent what would change it, if it is not what it says
	ReadOnlyChange bool   `json:"read_only_changes"`
	Spawned        bool   `json:"spawned"`
	Image          string `json:"-"`
	group          int    // of the processes of a server of our own, 0 if there is none
	TCP            bool   `json:"tcp"`
	// what went wrong while the facts were found
	Problems   []string `json:"problems,omitempty"`
	setMeta    bool     // SET_META_CONTEXT is known, whatever LIST_META_CONTEXT says
	denial     string   // the server's word that it does not have the export, or not for us
	closed     string   // why there is nothing to check: no way leads into the export
	probe      []byte   // the export's first bytes, which no check may write
	probeKnown bool     // they could be read
}

// BlockSize is what NBD_INFO_BLOCK_SIZE says, in bytes.
type BlockSize struct {
	Min       uint32 `json:"minimum"`
	Preferred uint32 `json:"preferred"`
	Max       uint32 `json:"maximum_payload"`
}

// MinBlock is what offsets and lengths must be multiples of: 1 unless the server said otherwise.
func (f *Facts) MinBlock() uint64 {
	if f.Block == nil || f.Block.Min == 0 {
		return 1
	}
	return uint64(f.Block.Min)
}

// MaxPayload is the longest READ or WRITE that must work: 32 MiB unless the server said otherwise.
func (f *Facts) MaxPayload() uint64 {
	if f.Block == nil || f.Block.Max == 0 {
		return proto.DefaultMaxPayload
	}
	return uint64(f.Block.Max)
}
