// Package tree reads and writes the text of trees: exports that are made of other stores, such as
// overlay(base.img, top.cow). It is pure: it opens nothing and looks at no file.
//
//	node.go   says what a tree is made of, and writes it as text
//	parse.go  reads text
//	check.go  applies the rules of layers to a tree, however it came to be
//	errors.go has the error, with its place in the text
//
// The syntax:
//
//	tree     = layer | path
//	layer    = NAME "(" argument { "," argument } ")"
//	argument = tree | KEY "=" value
//	path     = bare text | "quoted" | 'quoted'
//
// Blanks around arguments mean nothing. Bare text ends at a comma or a parenthesis, and may hold
// blanks inside. In double quotes \" and \\ are a quote and a backslash; in single quotes all is
// literal. Text that does not begin with the name of a layer and a parenthesis is a path as a
// whole, whatever it holds, so every path that was good before there were layers still is; a file
// called overlay(x) is written ./overlay(x).
//
// Invariants:
//   - What Parse accepts, String writes so that Parse reads the same tree.
//   - Parse and Check answer any text, of any length, with a tree or with an Error that points into
//     it; neither recurses deeper than MaxDepth.
package tree
