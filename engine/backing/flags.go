// What clients are told about an export: transmission flags and block sizes. This is the one place
// where they are decided, so that a flag and the ability that it promises cannot drift apart.
//
// Invariant: no flag without the ability; describe is called once, when the Device is complete.

package backing

import (
	"ringnbd/engine"
	"ringnbd/proto"
)

// minPreferred is the preferred block when the store reports none, in bytes: a page, and the block
// of most file systems.
const minPreferred = 4096

// describe fills in the Export from the finished store.
func (b *Backing) describe() {
	o := b.store
	b.Export = proto.Export{
		Facts: proto.Facts{
			Size: b.window.size,
			// any offset and length is served: the engine reads, modifies and writes where the
			// store is coarser
			MinBlock:   1,
			MaxPayload: engine.MaxRequest,
			Flags: transmissionFlags(&o.device, o.device.ReadOnly || b.spec.ReadOnly,
				o.traits.rotational),
		},
		Name:           b.spec.Name,
		Description:    b.spec.Description,
		PreferredBlock: b.preferred(),
		Contexts:       []proto.Context{{Name: proto.ContextAllocation}},
	}
}

// Engine returns what the engine needs to serve the export.
func (b *Backing) Engine() engine.Export {
	if b.tree != nil {
		x := engine.Export{Facts: b.Export.Facts, Device: b.Device, Name: b.Export.Name,
			Contexts: b.layerContexts()}
		if b.Discards() && b.lender == nil {
			x.Base = b.parts[0].window.base // it is never served itself
		}
		return x
	}
	return engine.Export{Facts: b.Export.Facts, Device: b.Device, Base: b.window.base,
		Name: b.Export.Name, Contexts: []engine.Context{allocationOf(b.Device)}}
}

// transmissionFlags returns what the engine can do with a device, for an export that may be
// read-only although its device is not (NBD spec, "Transmission flags").
func transmissionFlags(d *engine.Device, readOnly, rotational bool) uint16 {
	// Every connection reaches the store through the same descriptor and nothing is cached per
	// connection, so a FLUSH on one covers writes answered on all: CAN_MULTI_CONN. FLUSH and FUA
	// are promised on read-only exports too, where they have nothing to do and succeed.
	flags := proto.FlagHasFlags | proto.FlagSendFlush | proto.FlagSendFUA | proto.FlagCanMultiConn
	if rotational {
		flags |= proto.FlagRotational
	}
	// CACHE reads ahead into the page cache.
	if (d.Kind == engine.File || d.Kind == engine.Block) && !d.Direct {
		flags |= proto.FlagSendCache
	}
	if readOnly {
		return flags | proto.FlagReadOnly
	}
	// Zeroes can always be written; FAST_ZERO is offered only where that costs less than sending
	// them.
	flags |= proto.FlagSendWriteZeroes
	if d.FastZero {
		flags |= proto.FlagSendFastZero
	}
	if d.Punch || d.Discard || d.Kind == engine.Null || d.Kind == engine.Memory {
		flags |= proto.FlagSendTrim
	}
	return flags
}
