// The profile of a server: what it offers, and what the suite may do with it.
//
// Invariant: it is filled in before the first check (learn.go) and not changed after that.

package conform

import "ringnbd/proto"

// Profile is what the suite found out about a server before the first check.
type Profile struct {
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

// minBlock is what offsets and lengths must be multiples of: 1 unless the server said otherwise.
func (p *Profile) minBlock() uint64 {
	if p.Block == nil || p.Block.Min == 0 {
		return 1
	}
	return uint64(p.Block.Min)
}

// maxPayload is the longest READ or WRITE that must work: 32 MiB unless the server said otherwise.
func (p *Profile) maxPayload() uint64 {
	if p.Block == nil || p.Block.Max == 0 {
		return proto.DefaultMaxPayload
	}
	return uint64(p.Block.Max)
}

// simplestMode is the mode in which the least can be wrong.
func (p *Profile) simplestMode() mode {
	if p.Go {
		return modeGo
	}
	return modeExportName
}

// modes are those that the server can do, modeExportName to modeExtendedContexts.
func (p *Profile) modes() []mode {
	list := []mode{modeExportName}
	if p.Go {
		list = append(list, modeGo)
	}
	if p.Structured && p.Go {
		list = append(list, modeStructured)
	}
	if p.Structured && p.Allocation {
		list = append(list, modeContexts)
	}
	if p.Extended {
		list = append(list, modeExtended)
	}
	if p.Extended && p.Allocation {
		list = append(list, modeExtendedContexts)
	}
	return list
}

// bestMode is the richest mode with compact headers that the server can do.
func (p *Profile) bestMode() mode {
	switch {
	case p.Structured && p.Go:
		return modeStructured
	case p.Go:
		return modeGo
	}
	return modeExportName
}

// richModes are the formats that the server speaks, each with a context if it has one.
func (p *Profile) richModes() []mode {
	list := []mode{modeGo}
	if !p.Go {
		list[0] = modeExportName
	}
	if p.Structured && p.Go {
		list = append(list, pick(p.Allocation, modeContexts, modeStructured))
	}
	if p.Extended {
		list = append(list, pick(p.Allocation, modeExtendedContexts, modeExtended))
	}
	return list
}
