// What a tree is made of. Parse makes it from text; a program may also build it from tables of its
// own, and gives it to Check.
//
// Invariant: a Node has either a Layer, with parts, or a Path.

package tree

import "strings"

const (
	// MaxDepth is how many layers may stand on one another: each costs a step for every request.
	MaxDepth = 8
	// maxText is the longest text, in bytes: sixteen paths of the longest kind.
	maxText = 64 << 10
)

// Overlay is the layer that keeps writes away from its origin: overlay(ORIGIN, FILE).
const Overlay = "overlay"

// Node is a layer over other nodes, or the path of a store.
type Node struct {
	Layer   string // "": a path
	Path    string // as a store is named elsewhere: a file, a device, null:SIZE, PATH?partition=N
	Parts   []Node // of a layer, in the order of the text
	Options []Option
	// At is where it begins: the byte of the text, or any number that the program which built the
	// node can find its place by.
	At int
}

// Option is KEY=VALUE in a layer.
type Option struct {
	Key, Value  string
	At, ValueAt int // where it and its value begin, as Node.At
}

// Option returns the value of an option of a layer, or "".
func (n *Node) Option(key string) string {
	for _, o := range n.Options {
		if o.Key == key {
			return o.Value
		}
	}
	return ""
}

// Paths calls visit for every path below a node, in the order of the text, with the node that has
// it.
func (n *Node) Paths(visit func(leaf *Node)) {
	if n.Layer == "" {
		visit(n)
		return
	}
	for i := range n.Parts {
		n.Parts[i].Paths(visit)
	}
}

// String writes a tree as Parse reads it.
func (n *Node) String() string {
	if n.Layer == "" {
		if Is(n.Path) {
			return "./" + n.Path
		}
		return n.Path
	}
	var b strings.Builder
	n.write(&b)
	return b.String()
}

func (n *Node) write(b *strings.Builder) {
	if n.Layer == "" {
		b.WriteString(Quote(n.Path))
		return
	}
	b.WriteString(n.Layer + "(")
	for i := range n.Parts {
		if i > 0 {
			b.WriteString(", ")
		}
		n.Parts[i].write(b)
	}
	for i, o := range n.Options {
		if i > 0 || len(n.Parts) > 0 {
			b.WriteString(", ")
		}
		b.WriteString(o.Key + "=" + Quote(o.Value))
	}
	b.WriteString(")")
}

// Quote writes a path as an argument of a layer: as it is, or in double quotes.
func Quote(path string) string {
	_, _, option := cutOption(path)
	if path != "" && !strings.ContainsAny(path, `,()"'`) && !option &&
		strings.Trim(path, blanks) == path {
		return path
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(path) + `"`
}
