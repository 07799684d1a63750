// From an export of the file to what the stores below understand.
//
// Invariant: a tree that is written as tables and the same tree as text are the same spec.

package config

import (
	"path/filepath"
	"strings"

	"ringnbd/engine/backing"
	"ringnbd/engine/tree"
)

// Spec is an export as engine/backing opens it.
func (e *Export) Spec() backing.Spec {
	s := backing.Spec{Name: e.Name, Description: e.Description.V, ReadOnly: e.ReadOnly.V,
		Partitions: e.Partitions.V, Force: e.Force.V, Raw: e.Format.V == "raw"}
	s.SetPath(e.Store())
	if !s.ReadOnly {
		s.Create = uint64(e.Create.V)
	}
	switch e.Direct.V {
	case "on":
		s.Direct = backing.DirectOn
	case "off":
		s.Direct = backing.DirectOff
	}
	return s
}

// Specs are all exports, in their order.
func (c *Config) Specs() []backing.Spec {
	specs := make([]backing.Spec, len(c.Exports))
	for i, e := range c.Exports {
		specs[i] = e.Spec()
	}
	return specs
}

// Store is what the export serves: a path, or a tree as text.
func (e *Export) Store() string {
	n, wrong := e.tree()
	if wrong != nil || n == nil {
		return e.Path.V
	}
	return n.String()
}

// tree is the tree of an export, checked; nil for an export without a store.
func (e *Export) tree() (*tree.Node, *Mistake) {
	switch {
	case e.Overlay != nil:
		g := grower{}
		n := g.overlay(e.Overlay)
		return &n, g.mistake(tree.Check(&n))
	case e.Path.IsSet():
		n, err := tree.Parse(e.Path.V)
		return n, textMistake(err, e.Path)
	}
	return nil, nil
}

// textMistake is an error about the text of a tree, at its place in the file.
func textMistake(err error, text Value[string]) *Mistake {
	wrong, ok := err.(*tree.Error)
	if !ok {
		return nil
	}
	at := text.At
	if text.inner > 0 {
		at.Column += text.inner + wrong.Column() - 1
	}
	return &Mistake{At: at, Text: wrong.What}
}

// grower makes a tree from tables. A node's At is an index into the places.
type grower struct {
	places []Pos
	wrong  *Mistake // in a text that is part of the tree
}

func (g *grower) at(p Pos) int {
	g.places = append(g.places, p)
	return len(g.places) - 1
}

func (g *grower) overlay(o *Overlay) tree.Node {
	n := tree.Node{Layer: tree.Overlay, At: g.at(o.At), Parts: []tree.Node{g.node(&o.Origin)}}
	if o.Top.IsSet() {
		n.Parts = append(n.Parts, tree.Node{Path: o.Top.V, At: g.at(o.Top.At)})
	}
	add := func(key, value string, at Pos) {
		if at.IsSet() && value != "" {
			i := g.at(at)
			n.Options = append(n.Options, tree.Option{Key: key, Value: value, At: i, ValueAt: i})
		}
	}
	if o.Create.V == tree.IfMissing {
		add(tree.OptionCreate, string(o.Create.V), o.Create.At)
	}
	if o.Discard.V == tree.OnDisconnect {
		add(tree.OptionDiscard, string(o.Discard.V), o.Discard.At)
	}
	add(tree.OptionDir, o.Dir.V, o.Dir.At)
	return n
}

func (g *grower) node(n *Node) tree.Node {
	if n.Overlay != nil {
		return g.overlay(n.Overlay)
	}
	part, err := tree.Parse(n.Text.V)
	if err != nil {
		if g.wrong == nil {
			g.wrong = textMistake(err, n.Text)
		}
		return tree.Node{Path: n.Text.V, At: g.at(n.At)}
	}
	g.replant(part, n.At)
	return *part
}

// replant gives all nodes of a tree from a text the place of the text.
func (g *grower) replant(n *tree.Node, at Pos) {
	n.At = g.at(at)
	for i := range n.Options {
		n.Options[i].At, n.Options[i].ValueAt = n.At, n.At
	}
	for i := range n.Parts {
		g.replant(&n.Parts[i], at)
	}
}

// mistake is an error about the tree at its place in the file.
func (g *grower) mistake(err error) *Mistake {
	if g.wrong != nil {
		return g.wrong
	}
	wrong, ok := err.(*tree.Error)
	if !ok {
		return nil
	}
	return &Mistake{At: g.places[wrong.At], Text: wrong.What}
}

// settle makes the relative paths of a configuration relative to the directory of the file that
// they stand in.
func (c *Config) settle() {
	for _, e := range c.Exports {
		settleTree(&e.Path)
		settleOverlay(e.Overlay)
	}
	for _, l := range c.Listen {
		settleAddress(&l.Address)
	}
	settleAddress(&c.Debug)
	if c.Control != nil {
		if !strings.HasPrefix(c.Control.Socket.V, "unix:") { // which is a mistake
			settlePath(&c.Control.Socket)
		}
	}
}

func settleOverlay(o *Overlay) {
	if o == nil {
		return
	}
	settleTree(&o.Origin.Text)
	settleOverlay(o.Origin.Overlay)
	settlePath(&o.Top)
	settlePath(&o.Dir)
}

// settleTree settles a path, or all paths in the text of a tree.
func settleTree(v *Value[string]) {
	if !v.IsSet() || !tree.Is(v.V) {
		settlePath(v)
		return
	}
	n, err := tree.Parse(v.V)
	if err != nil {
		return
	}
	settleNode(n, v.At)
	if text := n.String(); text != v.V {
		v.V, v.inner = text, 0
	}
}

func settleNode(n *tree.Node, at Pos) {
	if n.Layer == "" {
		n.Path = inDirectory(n.Path, at)
	}
	for i := range n.Parts {
		settleNode(&n.Parts[i], at)
	}
	for i := range n.Options {
		if n.Options[i].Key == tree.OptionDir {
			n.Options[i].Value = inDirectory(n.Options[i].Value, at)
		}
	}
}

func settlePath(v *Value[string]) { v.V = inDirectory(v.V, v.At) }

// settleAddress settles the path of a socket.
func settleAddress(v *Value[string]) {
	if path, ok := strings.CutPrefix(v.V, "unix:"); ok {
		v.V = "unix:" + inDirectory(path, v.At)
	}
}

// inDirectory is a path as it is from here. A path that is written in a file is relative to the
// directory of the file, so that it means the same wherever the server is started.
func inDirectory(path string, at Pos) string {
	dir := filepath.Dir(at.File)
	if path == "" || !at.IsSet() || dir == "." || filepath.IsAbs(path) ||
		backing.Synthetic(path) {
		return path
	}
	return strings.TrimSuffix(dir, "/") + "/" + path
}
