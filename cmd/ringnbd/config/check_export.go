// What the values of exports mean, alone and together.
//
// Invariant: no two exports write to one disk, as far as paths show: a link, or another name of the
// same device, is seen when they are opened.

package config

import (
	"errors"
	"path/filepath"
	"strings"

	"ringnbd/engine/backing"
	"ringnbd/engine/tree"
)

// exports checks each export, then all together.
func (k *checker) exports(c *Config) {
	disks := map[string]user{}
	for _, e := range c.Exports {
		if k.export(e) {
			k.disk(e, disks)
		}
	}
}

// export checks an export, and reports whether it has a store.
func (k *checker) export(e *Export) bool {
	before := len(k.mistakes)
	where := join("export", e.Name)
	if wrong := specError(backing.Spec{Name: e.Name}); wrong != "" {
		k.wrong(e.At, where, "%s", wrong)
	}
	if wrong := specError(backing.Spec{Description: e.Description.V}); wrong != "" {
		k.wrong(e.Description.At, where+".description", "%s", wrong)
	}
	if at := e.Create.At; at.IsSet() && e.ReadOnly.V {
		k.wrong(at, where+".create", "a new image that cannot be written has no use; remove "+
			"create or read-only")
	}
	switch {
	case e.Path.IsSet() && e.Overlay != nil:
		k.wrong(e.Overlay.At, where, "an export has a path or an overlay, not both; the path is "+
			"at %s; remove one of the two", e.Path.At.Where())
		return false
	case e.Overlay != nil && !k.overlay(e.Overlay, where):
		return false
	case e.Overlay != nil:
	case !e.Path.IsSet():
		k.lacks(e.At, where, "this export has no path; write path = \"...\"")
		return false
	}
	n, wrong := e.tree()
	if wrong != nil {
		wrong.Field = where + ".path"
		k.mistakes = append(k.mistakes, *wrong)
		return false
	}
	good := true
	n.Paths(func(leaf *tree.Node) {
		part := backing.Spec{Partitions: e.Partitions.V && n.Layer == ""}
		part.SetPath(leaf.Path)
		text := specError(part)
		if leaf.Path == "" {
			text = "the path is empty; name a file, a device, null:SIZE or memory:SIZE"
		}
		if text != "" {
			k.wrong(e.StoreAt(), where+".path", "%s", text)
			good = false
		}
	})
	if n.Layer != "" && e.Partitions.V {
		k.wrong(e.Partitions.At, where+".partitions", "the partitions of an overlay are not "+
			"exported; lay the overlay over a partition, or remove partitions")
	}
	if at := e.Create.At; at.IsSet() && n.Layer != "" {
		k.wrong(at, where+".create", "create is for images; an overlay makes its file with "+
			"create = \"if-missing\" (create=if-missing in a path)")
	} else if at.IsSet() && backing.Synthetic(n.Path) {
		k.wrong(at, where+".create", "%s has its size in its name; remove create", n.Path)
	}
	if wrong := specError(e.Spec()); wrong != "" && good && len(k.mistakes) == before {
		k.wrong(e.StoreAt(), where, "%s", wrong) // what does not go together
	}
	return good
}

// StoreAt is the place of the store of an export.
func (e *Export) StoreAt() Pos {
	if e.Path.IsSet() {
		return e.Path.At
	}
	return e.Overlay.At
}

// specError is what the rules for stores say about a part of a spec.
func specError(s backing.Spec) string {
	const any = "null:1"
	if s.Path == "" {
		s.Path = any
	}
	err := backing.Check([]backing.Spec{s})
	var name *backing.NameError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &name):
		return "the export's name " + name.Wrong + "; choose another"
	}
	return strings.TrimPrefix(err.Error(), any+": ")
}

// overlay checks that the tables of an overlay have what they need, and reports whether they have.
func (k *checker) overlay(o *Overlay, where string) bool {
	switch n := &o.Origin; {
	case !n.At.IsSet():
		k.lacks(o.At, where+".overlay", "an overlay needs an origin; write origin = \"PATH\"")
	case n.Overlay != nil:
		return k.overlay(n.Overlay, where+".overlay.origin")
	case !n.Text.IsSet():
		k.lacks(n.At, where+".overlay.origin", "an origin is a path, or a table with overlay")
	default:
		return true
	}
	return false
}

// user is an export that uses a disk.
type user struct {
	export *Export
	writes bool
}

// disk checks that an export shares no disk that is written to.
func (k *checker) disk(e *Export, disks map[string]user) {
	n, _ := e.tree()
	visit(n, !e.ReadOnly.V, func(path string, writes bool) {
		if backing.Synthetic(path) {
			return
		}
		key := filepath.Clean(path)
		before, found := disks[key]
		if found && before.export != e && (before.writes || writes) {
			k.wrong(e.StoreAt(), join("export", e.Name)+".path", "%s is used by export %q "+
				"already, at %s, and written to; serve it read-only in both, or remove one of "+
				"the two", path, before.export.Name, before.export.StoreAt().Where())
			return
		}
		if !found || writes {
			disks[key] = user{e, writes}
		}
	})
}

// visit calls f for every path of a tree, and says whether it is written to: of an overlay, its
// file is, and the origin is not.
func visit(n *tree.Node, writes bool, f func(path string, writes bool)) {
	if n.Layer == "" {
		f(n.Path, writes)
		return
	}
	for i := range n.Parts {
		visit(&n.Parts[i], writes && i == 1, f)
	}
}
