// The top of an overlay: the file that holds what was written over an origin. It is formatted when
// it is new, and its map is loaded, without what the file has no data for.
//
// Invariant: a top is used with the origin that it was made over, and with no other. What is not
// the top of an overlay is never written to.

package backing

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/layer"
	"ringnbd/engine/layer/overlay"
	"ringnbd/engine/tree"
	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// laid is an overlay that was made over its parts.
type laid struct {
	plan   *overlay.Overlay
	layout overlay.Layout
	super  overlay.Super // of a top that stays
	device engine.Device
}

// loadChunk is how much of a map is read at a time, in bytes.
const loadChunk = 1 << 20

// assemble makes the layer when its parts are open. The layer of clients that throw away what they
// write has no top yet: thrown.go makes one for each of them.
func (b *Backing) assemble() error {
	origin := b.parts[0]
	l, err := overlay.Lay(origin.window.size)
	if err != nil {
		return &TopError{Path: b.tree.Parts[0].String(), Err: err}
	}
	if err := b.alignedOrigin(l); err != nil {
		return err
	}
	for _, part := range b.parts {
		b.Notes = append(b.Notes, part.Notes...)
	}
	b.window = window{0, l.Size}
	if b.Discards() {
		b.laid = &laid{layout: l}
		b.Device = origin.Device
		b.describeLayer()
		return b.tryThrowAway()
	}
	m, err := b.openTop(l)
	if err != nil {
		return err
	}
	kind := overlay.Persistent
	if b.spec.ReadOnly {
		kind = overlay.ThrowAway // nothing will have to be saved
	}
	b.lay(m, kind, b.parts[1].Device)
	b.describeLayer()
	return nil
}

// alignedOrigin returns an error for an origin that begins where its device cannot be read.
func (b *Backing) alignedOrigin(l overlay.Layout) error {
	origin := b.parts[0]
	unit := origin.Device.Block
	if origin.window.base%uint64(unit) == 0 && unit <= l.Block {
		return nil
	}
	return &DirectError{Path: origin.spec.Path, Why: fmt.Sprintf("it begins or ends inside a "+
		"block of %d bytes, so an overlay can read it through the page cache only", unit)}
}

// lay makes the plan and its device.
func (b *Backing) lay(m *overlay.Map, kind overlay.Kind, top *engine.Device) {
	b.laid.plan = overlay.New(m, kind)
	b.laid.plan.Shift(b.parts[0].window.base)
	b.laid.device = engine.Device{Kind: engine.Planned, FD: -1, Size: b.laid.layout.Size,
		Block: b.laid.layout.Block, ReadOnly: b.spec.ReadOnly, FastZero: true,
		Plan: b.laid.plan, Needs: b.laid.plan.Needs(),
		Below: []*engine.Device{overlay.Below: b.parts[0].Device, overlay.Top: top},
		Waits: b.parts[0].Device.Waits || top.Waits}
	b.Device = &b.laid.device
}

// openTop formats the top if it is new, checks that it belongs to the origin, and loads its map.
func (b *Backing) openTop(l overlay.Layout) (*overlay.Map, error) {
	top := b.parts[1]
	fd, err := reopen(top.Device.FD, !b.spec.ReadOnly)
	if err != nil {
		return nil, explain(&top.spec, err)
	}
	defer unix.Close(fd)
	identity, err := b.parts[0].fingerprint()
	if err != nil {
		return nil, err
	}
	is := overlay.Origin{Size: l.Size, Identity: identity, Name: b.tree.Parts[0].String()}
	super, err := b.readSuper(fd, is)
	if err != nil {
		return nil, &TopError{Path: top.spec.Path, Err: err}
	}
	b.laid = &laid{layout: l, super: super}
	m, err := newMap(l)
	if err != nil {
		return nil, &TopError{Path: top.spec.Path, Err: err}
	}
	if super.Emptying {
		if !b.spec.ReadOnly {
			err = b.clearTop(fd)
		}
		return m, err
	}
	err = eachData(fd, l.MapAt, l.MapLen, loadChunk, func(at uint64, p []byte) error {
		return m.Load(at-l.MapAt, p)
	})
	if err != nil {
		return nil, &TopError{Path: top.spec.Path, Err: err}
	}
	return m, nil
}

// newMap returns an empty map, whose memory is taken as it is written to.
func newMap(l overlay.Layout) (*overlay.Map, error) {
	words, err := uring.NewWords(l.Words())
	if err != nil {
		return nil, fmt.Errorf("no memory for the map of an overlay: %w", err)
	}
	m := overlay.NewMap(l, words.Slice())
	uring.Owned(words, m)
	return m, nil
}

// readSuper reads the superblock of a top, or writes that of a new top, and checks it.
func (b *Backing) readSuper(fd int, is overlay.Origin) (overlay.Super, error) {
	top := b.parts[1]
	head := make([]byte, overlay.HeadLen)
	n, err := readFull(fd, head, 0)
	if err != nil {
		return overlay.Super{}, err
	}
	super, err := overlay.Parse(head[:n])
	var not *overlay.NotOverlayError
	if errors.As(err, &not) && not.Blank && b.tree.Option(tree.OptionCreate) != "" &&
		!b.spec.ReadOnly && empty(fd) {
		return formatTop(fd, is)
	}
	if err != nil {
		return overlay.Super{}, err
	}
	if super.Committing {
		// The origin is not what it was, and will be what the overlay shows when that is complete.
		b.Notes = append(b.Notes, top.spec.Path+": it was being written into its origin, and that "+
			"was cut off; commit it again, before anything else uses the origin")
		is.Identity = super.Origin.Identity
	}
	if err := super.Check(is); err != nil {
		return overlay.Super{}, err
	}
	return super, super.CheckLength(top.Device.Size)
}

// formatTop makes an empty file an overlay without anything in it.
func formatTop(fd int, is overlay.Origin) (overlay.Super, error) {
	var uuid [16]byte
	_, _ = rand.Read(uuid[:]) // never fails
	l, err := overlay.Lay(is.Size)
	if err != nil {
		return overlay.Super{}, err
	}
	head, err := overlay.Format(uuid, is)
	if err == nil {
		err = unix.Ftruncate(fd, int64(l.FileLen))
	}
	if err == nil {
		err = writeFull(fd, head, 0)
	}
	reserveMap(fd, l)
	if err == nil {
		err = unix.Fsync(fd)
	}
	if err != nil {
		return overlay.Super{}, fmt.Errorf("cannot be made an overlay: %w", err)
	}
	return overlay.Parse(head)
}

// maxReserved is the longest map that is reserved, in bytes: that of 1 TiB in blocks of 4 KiB.
const maxReserved = 64 << 20

// reserveMap takes the space of the map, so that on a full disk writes fail and flushes do not. It
// reads as a hole until it is written. Where that is not possible, a flush that finds no space
// fails, and the next tries again.
func reserveMap(fd int, l overlay.Layout) {
	if l.MapLen <= maxReserved {
		_ = unix.Fallocate(fd, 0, int64(l.MapAt), int64(l.MapLen))
	}
}

// empty reports whether a file has no data at all, not even zeroes.
func empty(fd int) bool {
	_, err := seek(fd, 0, unix.SEEK_DATA)
	return err == unix.ENXIO
}

// eachData reads the parts of a range of a file that have data, widened to whole units of 4 KiB and
// cut into pieces; holes are left out.
func eachData(fd int, from, length, most uint64, use func(at uint64, p []byte) error) error {
	const unit = 4096
	buffer := make([]byte, most)
	end := from + length
	for at := from; at < end; {
		data, err := seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO || err == nil && data >= end {
			return nil
		}
		if err != nil {
			return err
		}
		hole, err := seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		at = max(at, data&^(unit-1))
		until := min(end, (hole+unit-1)&^(unit-1))
		for at < until {
			p := buffer[:min(most, until-at)]
			n, err := readFull(fd, p, int64(at))
			if err != nil {
				return err
			}
			clear(p[n:])
			if err := use(at, p); err != nil {
				return err
			}
			at += uint64(len(p))
		}
	}
	return nil
}

// reopen opens an open file once more, through the page cache and without a lock.
func reopen(fd int, write bool) (int, error) {
	flags := unix.O_CLOEXEC | unix.O_RDONLY
	if write {
		flags = unix.O_CLOEXEC | unix.O_RDWR
	}
	return openRetry("/proc/self/fd/"+strconv.Itoa(fd), flags, 0)
}

// readFull reads until p is full or the file ends.
func readFull(fd int, p []byte, at int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := preadRetry(fd, p[done:], at+int64(done))
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, nil
		}
		done += n
	}
	return done, nil
}

// writeFull writes all of p.
func writeFull(fd int, p []byte, at int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, at)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return io.ErrShortWrite
		}
		p, at = p[max(n, 0):], at+int64(max(n, 0))
	}
	return nil
}

// describeLayer fills in the Export of a layer.
func (b *Backing) describeLayer() {
	flags := proto.FlagHasFlags | proto.FlagSendFlush | proto.FlagSendFUA
	if !b.Discards() {
		flags |= proto.FlagCanMultiConn // one loop serves all connections, and nothing is cached
	}
	if b.spec.ReadOnly {
		flags |= proto.FlagReadOnly
	} else {
		flags |= proto.FlagSendTrim | proto.FlagSendWriteZeroes | proto.FlagSendFastZero
	}
	preferred := uint32(minPreferred)
	for _, part := range b.parts {
		flags |= part.Export.Flags & proto.FlagRotational
		preferred = max(preferred, part.Export.PreferredBlock)
	}
	b.Export = proto.Export{
		Facts: proto.Facts{Size: b.laid.layout.Size, MinBlock: 1, MaxPayload: engine.MaxRequest,
			Flags: flags},
		Name: b.spec.Name, Description: b.spec.Description, PreferredBlock: preferred,
		Contexts: []proto.Context{{Name: proto.ContextAllocation}, {Name: contextDepth}},
	}
}

var _ layer.Plan = (*overlay.Overlay)(nil)
