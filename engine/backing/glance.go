// Looking at stores without using them: what a server would say if it opened them now.
//
// Invariant: nothing is locked and nothing is opened for writing, so that a server which has the
// stores, or is about to open them, does not notice.

package backing

import (
	"errors"

	"golang.org/x/sys/unix"

	"ringnbd/engine/tree"
)

// Glanced is what was seen of a spec.
type Glanced struct {
	Notes []string
	Err   error
}

// Glance looks at the stores of specs. Locks of other programs are not looked at: the server whose
// stores these are may be running. Of a tree it looks at each store by itself.
func Glance(specs []Spec) []Glanced {
	seen := make([]Glanced, len(specs))
	users := map[identity][]int{}
	for i := range specs {
		seen[i] = glance(specs[i])
		if id, err := identify(&specs[i]); err == nil && seen[i].Err == nil &&
			id.kind != idNone && !tree.Is(specs[i].Path) {
			for _, k := range users[id] {
				if other := &specs[k]; other.Partition == specs[i].Partition &&
					!(other.ReadOnly && specs[i].ReadOnly) {
					seen[i].Err = &SharedError{Path: specs[i].Path, Name: specs[i].Name,
						Other: other.Name}
				}
			}
			users[id] = append(users[id], i)
		}
	}
	return seen
}

// glance looks at what a spec is made of.
func glance(s Spec) Glanced {
	if err := Check([]Spec{s}); err != nil {
		return Glanced{Err: err}
	}
	n, err := s.layers()
	if err != nil || n == nil {
		return glanceStore(s, err)
	}
	var all Glanced
	glanceTree(s, n, func(one Glanced) {
		all.Notes = append(all.Notes, one.Notes...)
		all.Err = errors.Join(all.Err, one.Err)
	})
	return all
}

// glanceTree looks at the stores of a tree: an origin is read, and the file of an overlay written.
func glanceTree(s Spec, n *tree.Node, tell func(Glanced)) {
	origin := s
	origin.ReadOnly, origin.still, origin.Tree = true, true, nil
	if below := &n.Parts[0]; below.Layer != "" {
		glanceTree(origin, below, tell)
	} else {
		origin.SetPath(below.String())
		tell(glanceStore(origin, nil))
	}
	if len(n.Parts) < 2 {
		return
	}
	top := s
	top.Raw, top.top, top.Tree = true, true, nil
	top.SetPath(n.Parts[1].String())
	if n.Option(tree.OptionCreate) != "" {
		top.Create = minimalFile
	}
	tell(glanceStore(top, nil))
}

// glanceStore looks at a store.
func glanceStore(s Spec, err error) Glanced {
	if err != nil {
		return Glanced{Err: err}
	}
	Reach(s.Path)
	id, err := identify(&s)
	if err != nil {
		return Glanced{Err: err}
	}
	switch id.kind {
	case idMissing:
		return Glanced{Notes: []string{s.Path + ": does not exist, and will be made"}}
	case idNone:
		return Glanced{}
	}
	if err := glanceUse(&s); err != nil {
		return Glanced{Err: err}
	}
	if s.top {
		s.Create = 0 // it exists, with the size of its origin
	}
	writes := !s.ReadOnly
	s.ReadOnly, s.glance, s.top = true, true, false
	var r Stores
	all, err := r.Prepare([]Spec{s})
	var notes []string
	for _, b := range all {
		notes = append(notes, b.Notes...)
		err = errors.Join(err, b.Close())
	}
	if writes && err == nil {
		err = glanceWrite(s)
	}
	return Glanced{Notes: notes, Err: err}
}

// glanceUse looks for uses of the kernel that would keep a server from the store.
func glanceUse(s *Spec) error {
	var st unix.Stat_t
	if err := unix.Stat(s.Path, &st); err != nil {
		return explain(s, err)
	}
	c := Claim{Path: s.Path, Write: !s.ReadOnly, Still: s.still}
	_, err := c.unoccupied(&st)
	var held *HeldError
	if errors.As(err, &held) && s.Force && !held.Final {
		return nil
	}
	return err
}

// glanceWrite looks whether the store could be opened for writing.
func glanceWrite(s Spec) error {
	s.ReadOnly = false
	err := unix.Faccessat(unix.AT_FDCWD, s.Path, unix.W_OK, unix.AT_EACCESS)
	if err != nil {
		return explain(&s, err)
	}
	return nil
}
