// The rules of layers: how many parts each has, which options, and what excludes what.
//
// Invariant: a tree that passes Check can still fail to open, but never for its form. What passes
// for one file under two names can only be seen when it is opened.

package tree

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Options of an overlay.
const (
	// OptionDiscard says when what was written is thrown away: never, or OnDisconnect.
	OptionDiscard = "discard"
	// OptionDir is the directory of the files that hold what will be thrown away.
	OptionDir = "dir"
	// OptionCreate says whether a FILE that is missing is made: no, or IfMissing.
	OptionCreate = "create"

	OnDisconnect = "on-disconnect"
	IfMissing    = "if-missing"
)

// layers are the rules of each layer.
var layers = map[string]func(n *Node, text string) error{Overlay: checkOverlay}

// Layers returns the names of all layers.
func Layers() []string { return slices.Sorted(maps.Keys(layers)) }

// Check applies the rules to a tree that was not made by Parse. Error.At is Node.At, Option.At or
// Option.ValueAt of what is wrong.
func Check(n *Node) error {
	if n.Layer == "" {
		return nil
	}
	return check(n, "")
}

// check applies the rules to a layer and to all that is below it.
func check(n *Node, text string) error {
	if err := checkLayer(n, text, 1); err != nil {
		return err
	}
	// A path that is written to may stand in the tree once. Then a tree cannot contain itself: each
	// way around would pass its own FILE again.
	seen := make(map[string]bool)
	var err error
	n.visit(func(leaf *Node, written bool) {
		path := leaf.Path
		if !strings.Contains(path, ":") {
			path = filepath.Clean(path)
		}
		before, found := seen[path]
		if found && (before || written) && err == nil {
			err = &Error{text, leaf.At, leaf.Path + " stands in this tree twice, and is written " +
				"to; use another file for each"}
		}
		seen[path] = before || written
	}, false)
	return err
}

// visit calls f for every path, and says whether it is written to.
func (n *Node) visit(f func(leaf *Node, written bool), written bool) {
	if n.Layer == "" {
		f(n, written)
		return
	}
	for i := range n.Parts {
		n.Parts[i].visit(f, i == 1) // the FILE of an overlay
	}
}

func checkLayer(n *Node, text string, depth int) error {
	rules, ok := layers[n.Layer]
	switch {
	case !ok:
		return &Error{text, n.At, fmt.Sprintf("%q is not a layer; the layers are %s", n.Layer,
			strings.Join(Layers(), ", "))}
	case depth > MaxDepth:
		return &Error{text, n.At, fmt.Sprintf("more than %d layers stand on one another; use fewer",
			MaxDepth)}
	}
	if err := rules(n, text); err != nil {
		return err
	}
	for i := range n.Parts {
		part := &n.Parts[i]
		if part.Layer == "" {
			continue
		}
		if err := checkLayer(part, text, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// checkOverlay has the rules of overlay(ORIGIN, FILE) and overlay(ORIGIN, discard=on-disconnect).
func checkOverlay(n *Node, text string) error {
	for _, o := range n.Options {
		if err := checkOverlayOption(&o, text); err != nil {
			return err
		}
	}
	discard := n.Option(OptionDiscard) != ""
	switch {
	case len(n.Parts) == 0:
		return &Error{text, n.At, "an overlay needs an origin; write overlay(ORIGIN, FILE)"}
	case len(n.Parts) > 2:
		return &Error{text, n.Parts[2].At, "an overlay has an origin and one file; remove this, " +
			"or put a path that holds a comma into quotes"}
	case len(n.Parts) == 2 && n.Parts[1].Layer != "":
		return &Error{text, n.Parts[1].At, "what is written goes to a file, not to a layer; name " +
			"a file here"}
	case len(n.Parts) == 2 && discard:
		return &Error{text, n.Parts[1].At, "FILE keeps what is written and discard=on-disconnect " +
			"throws it away; to throw away what is written above both: overlay(overlay(ORIGIN, " +
			"FILE), discard=on-disconnect)"}
	case len(n.Parts) == 1 && !discard:
		return &Error{text, n.Parts[0].At, "an overlay needs a place for what is written; write " +
			"overlay(ORIGIN, FILE), or overlay(ORIGIN, discard=on-disconnect)"}
	}
	return checkOverlayPairs(n, discard, text)
}

// checkOverlayPairs checks the options that need, or exclude, another.
func checkOverlayPairs(n *Node, discard bool, text string) error {
	for _, o := range n.Options {
		switch {
		case o.Key == OptionDir && !discard:
			return &Error{text, o.At, "dir is for discard=on-disconnect; FILE has its place " +
				"already"}
		case o.Key == OptionCreate && discard:
			return &Error{text, o.At, "create is for an overlay with a FILE; remove it"}
		}
	}
	for i := range n.Parts {
		for _, o := range n.Parts[i].Options {
			switch {
			case i == 0 && o.Key == OptionDiscard:
				return &Error{text, o.At, "what is thrown away cannot be an origin: every client " +
					"has its own; discard stands in the outermost layer"}
			case i == 0 && o.Key == OptionCreate:
				return &Error{text, o.At, "an origin is only read, so its FILE is not made here; " +
					"remove create"}
			}
		}
	}
	return nil
}

func checkOverlayOption(o *Option, text string) error {
	one := map[string]string{OptionDiscard: OnDisconnect, OptionCreate: IfMissing}
	switch want, ok := one[o.Key]; {
	case o.Key == OptionDir:
		return nil
	case !ok:
		return &Error{text, o.At, fmt.Sprintf("an overlay has no option %q; there are "+
			"create=if-missing, dir=DIRECTORY and discard=on-disconnect, and a path that looks "+
			"like an option is written ./%s=...", o.Key, o.Key)}
	case o.Value != want:
		return &Error{text, o.ValueAt, fmt.Sprintf("must be %s=%s", o.Key, want)}
	}
	return nil
}
