// Exports that are made of several stores: their parts are opened like any store, in the order of
// the text, and a layer is made when its parts are open.
//
// Invariant: a Backing has either a store or parts. The parts of a layer are closed with it, and no
// part is an export of its own. What is an origin is open for reading only, locked against writers,
// and no export of this process can write to any byte of it.

package backing

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"ringnbd/engine/layer/overlay"
	"ringnbd/engine/tree"
)

// minimalFile is the size with which a missing FILE is asked for, in bytes, until the size of its
// origin is known.
const minimalFile = 4096

// Layered reports whether an export is made of others.
func (s *Spec) Layered() bool { return s.Tree != nil && s.Tree.Layer != "" || tree.Is(s.Path) }

// layers returns the tree that a spec asks for, or nil for a plain store.
func (s *Spec) layers() (*tree.Node, error) {
	switch {
	case s.Tree != nil && s.Tree.Layer == "":
		return nil, nil
	case s.Tree != nil:
		return s.Tree, tree.Check(s.Tree)
	case !tree.Is(s.Path):
		return nil, nil
	}
	return tree.Parse(s.Path)
}

// checkLayers applies the rules for an export that is a tree.
func (s *Spec) checkLayers(n *tree.Node) error {
	switch {
	case s.Create > 0:
		return fmt.Errorf("%s: an overlay has the size of its origin, so it is not made with a "+
			"size; its FILE is made by %s=%s in the tree", s.Path, tree.OptionCreate,
			tree.IfMissing)
	case s.Partitions || s.Partition != "":
		return fmt.Errorf("%s: the partitions of an overlay are not exported; an overlay over a "+
			"partition is: overlay(%s, FILE)", s.Path, WritePath("PATH", "N"))
	case s.ReadOnly && n.Option(tree.OptionDiscard) != "":
		return fmt.Errorf("%s: clients that only read have nothing to throw away; serve %s itself "+
			"read-only", s.Path, n.Parts[0].String())
	}
	var err error
	n.Paths(func(leaf *tree.Node) {
		part := Spec{Name: s.Name}
		part.SetPath(leaf.String())
		if err == nil {
			err = part.check()
		}
	})
	return err
}

// plant makes the Backings of a spec, none of which is open: one for each layer, and one for each
// store, which is appended to leaves.
func (r *Stores) plant(s Spec, n *tree.Node, leaves *[]*Backing) *Backing {
	if n == nil || n.Layer == "" {
		if n != nil {
			s.Tree = nil
			s.SetPath(n.String())
		}
		b := &Backing{spec: s, stores: r}
		*leaves = append(*leaves, b)
		return b
	}
	s.Path = n.String()
	b := &Backing{spec: s, stores: r, tree: n}
	origin := s
	origin.ReadOnly, origin.still = true, true
	if b.Discards() && s.Direct == DirectAuto {
		// what one client has read, the next finds in the page cache
		origin.Direct, origin.cached = DirectOff, true
	}
	b.parts = append(b.parts, r.plant(origin, &n.Parts[0], leaves))
	if !b.Discards() {
		top := s
		top.Raw, top.still, top.top = true, false, true
		var st unix.Stat_t
		if n.Option(tree.OptionCreate) != "" &&
			unix.Stat(n.Parts[1].String(), &st) == unix.ENOENT {
			top.Create = minimalFile
		}
		b.parts = append(b.parts, r.plant(top, &n.Parts[1], leaves))
	}
	for _, part := range b.parts {
		part.within(b)
	}
	return b
}

// within records the export that a part belongs to.
func (b *Backing) within(whole *Backing) {
	b.whole = whole
	for _, part := range b.parts {
		part.within(whole)
	}
}

// export returns the export that a Backing is, or is a part of.
func (b *Backing) export() *Backing {
	if b.whole != nil {
		return b.whole
	}
	return b
}

// raise opens what a Backing is made of.
func (b *Backing) raise(leaving []*Backing, tell []func(path string) (on bool)) error {
	if b.tree == nil {
		if err := on(b.spec.Path, tell); err != nil {
			return err
		}
		b.pending = b.asked.id.kind == idMissing
		return b.join(b.asked.id, b.asked.as, leaving)
	}
	for i, part := range b.parts {
		if i == 1 {
			if err := b.fit(part); err != nil {
				return err
			}
		}
		if err := part.raise(leaving, tell); err != nil {
			return err
		}
		b.pending = b.pending || part.pending
	}
	if b.pending {
		return nil
	}
	return b.assemble()
}

// fit makes the spec of a FILE agree with the origin, which is open.
func (b *Backing) fit(top *Backing) error {
	l, err := overlay.Lay(b.parts[0].window.size)
	if err != nil {
		return &TopError{Path: b.tree.Parts[0].String(), Err: err}
	}
	for _, s := range []*Spec{&top.spec, &top.asked.as} {
		if s.Create > 0 {
			s.Create = l.FileLen
		}
		if l.Block < maxBlock && s.Direct == DirectAuto {
			s.Direct = DirectOff // O_DIRECT may need larger units
		}
	}
	if k := top.asked.id.kind; k != idFile && k != idMissing || top.spec.Partition != "" {
		return &TopError{Path: top.spec.Path, NotFile: true}
	}
	return nil
}

// closeLayer closes a layer: what it is made of now, or when the last throw-away overlay that uses
// it is closed.
func (b *Backing) closeLayer() error {
	b.stores.mu.Lock()
	b.closed = true
	lent := b.lent
	b.stores.mu.Unlock()
	if lent > 0 {
		return nil
	}
	return b.closeParts()
}

// closeParts closes what a layer is made of.
func (b *Backing) closeParts() error {
	var err error
	for _, part := range slices.Backward(b.parts) {
		err = errors.Join(err, part.Close())
	}
	return err
}

// createParts makes the FILE of a layer that is missing, and then the layer.
func (b *Backing) createParts() error {
	for _, part := range b.parts {
		if err := part.Create(); err != nil {
			return err
		}
	}
	return b.assemble()
}
