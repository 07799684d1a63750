// The profile of a server: what it offers, and what the suite may do with it.
//
// Invariant: it is filled in before the first check (learn.go) and not changed after that.

package conform

import "ringnbd/proto"

// Profile is what the suite found out about a server before the first check. The JSON report has it
// as "facts".
type Profile struct {
	// What the server offers.
	Handshake  uint16   `json:"handshake_flags"`
	Go         bool     `json:"go"`
	List       bool     `json:"list"`
	Names      []string `json:"names,omitempty"` // from LIST, at most 1000
	AnyName    bool     `json:"any_name"`        // every name is accepted
	Structured bool     `json:"structured_replies"`
	Extended   bool     `json:"extended_headers"`
	Meta       bool     `json:"meta_contexts"`
	Allocation bool     `json:"base_allocation"`
	Contexts   []string `json:"contexts,omitempty"`

	// The export. It has transmission flags with simple replies, with structured replies if the
	// server has them, and with extended headers and a context (0 without).
	Size          uint64     `json:"size"`
	FlagsPlain    uint16     `json:"flags_plain"`
	Flags         uint16     `json:"flags"`
	FlagsExtended uint16     `json:"flags_extended"`
	Block         *blockSize `json:"block_size,omitempty"`
	Description   string     `json:"description,omitempty"`

	// What the suite may do. On the read-only export it may send requests that would change a
	// writable export only with ReadOnlyChange.
	Writable       bool   `json:"writable"`
	Pattern        bool   `json:"pattern"` // the export has the suite's own data
	ReadOnly       bool   `json:"read_only_export"`
	ReadOnlyChange bool   `json:"read_only_changes"`
	Spawned        bool   `json:"spawned"`
	Image          string `json:"-"` // path of the image under the server, "" if not known
	TCP            bool   `json:"tcp"`

	Problems []string `json:"problems,omitempty"` // what went wrong while the profile was taken

	group      int    // process group of a server that the suite started, 0 without
	setMeta    bool   // SET_META_CONTEXT is known, whatever LIST_META_CONTEXT says
	denial     string // the server's reply that it does not have the export, or not for us
	closed     string // why there is nothing to check: the export cannot be opened
	probe      []byte // the export's first bytes, which no check may write
	probeKnown bool   // probe could be read
}

// blockSize is the content of NBD_INFO_BLOCK_SIZE, in bytes.
type blockSize struct {
	Min       uint32 `json:"minimum"`
	Preferred uint32 `json:"preferred"`
	Max       uint32 `json:"maximum_payload"`
}

// minBlock returns the minimum block size, of which offsets and lengths must be multiples: 1 unless
// the server said otherwise.
func (p *Profile) minBlock() uint64 {
	if p.Block == nil || p.Block.Min == 0 {
		return 1
	}
	return uint64(p.Block.Min)
}

// maxPayload returns the length of the longest READ or WRITE that must work: 32 MiB unless the
// server said otherwise.
func (p *Profile) maxPayload() uint64 {
	if p.Block == nil || p.Block.Max == 0 {
		return proto.DefaultMaxPayload
	}
	return uint64(p.Block.Max)
}

// simplestMode returns the mode in which the least can go wrong.
func (p *Profile) simplestMode() mode {
	if p.Go {
		return modeGo
	}
	return modeExportName
}

// modes returns all modes that the server offers, from modeExportName to modeExtendedContexts.
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

// bestMode returns the richest mode with compact headers that the server offers.
func (p *Profile) bestMode() mode {
	switch {
	case p.Structured && p.Go:
		return modeStructured
	case p.Go:
		return modeGo
	}
	return modeExportName
}

// richModes returns a mode for each format that the server speaks, with base:allocation if it has
// that.
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
