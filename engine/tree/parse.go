// From text to a tree.
//
// Invariant: the parser moves forward only, so its time is linear in the length of the text; a path
// at the top is never taken apart.

package tree

import (
	"fmt"
	"strings"
)

// blanks separate arguments and mean nothing.
const blanks = " \t\r\n"

// Is reports whether a text is a tree with a layer, rather than a path: whether it begins with the
// name of a layer and a parenthesis.
func Is(text string) bool {
	_, ok := layerOf(text)
	return ok
}

// layerOf returns the name of the layer that a text begins with.
func layerOf(text string) (name string, ok bool) {
	name, _, found := strings.Cut(text, "(")
	_, known := layers[name]
	return name, found && known
}

// Parse reads a tree and checks it. Text that is not a tree (see Is) is a path as a whole.
func Parse(text string) (*Node, error) {
	node, end, err := Prefix(text)
	if err != nil {
		return nil, err
	}
	if rest := strings.TrimLeft(text[end:], blanks); rest != "" {
		return nil, &Error{text, len(text) - len(rest),
			"the tree ends before this; remove it, or put what belongs to a path into quotes"}
	}
	return node, nil
}

// Prefix reads the tree that a text begins with, checks it, and returns where it ends. Text that is
// not a tree is a path as a whole.
func Prefix(text string) (node *Node, end int, err error) {
	if !Is(text) {
		return &Node{Path: text}, len(text), nil
	}
	if len(text) > maxText {
		return nil, 0, &Error{text, maxText, fmt.Sprintf("a tree has at most %d bytes; this has %d",
			maxText, len(text))}
	}
	p := parser{text: text}
	n, err := p.layer(1)
	if err != nil {
		return nil, 0, err
	}
	if err := check(&n, text); err != nil {
		return nil, 0, err
	}
	return &n, p.at, nil
}

// parser is a text and how far it was read.
type parser struct {
	text string
	at   int
}

func (p *parser) fail(at int, what string, details ...any) error {
	return &Error{p.text, at, fmt.Sprintf(what, details...)}
}

func (p *parser) skipBlanks() {
	for p.at < len(p.text) && strings.IndexByte(blanks, p.text[p.at]) >= 0 {
		p.at++
	}
}

// next returns the next byte, or 0 at the end.
func (p *parser) next() byte {
	if p.at == len(p.text) {
		return 0
	}
	return p.text[p.at]
}

// layer reads a layer, of which the name is known to stand here.
func (p *parser) layer(depth int) (Node, error) {
	name, _ := layerOf(p.text[p.at:])
	n := Node{Layer: name, At: p.at}
	if depth > MaxDepth {
		return n, p.fail(p.at, "more than %d layers stand on one another; use fewer", MaxDepth)
	}
	open := p.at + len(name)
	p.at = open + 1
	for {
		p.skipBlanks()
		if p.next() == 0 {
			return n, p.fail(open, "this parenthesis is never closed; add a )")
		}
		if err := p.argument(&n, depth); err != nil {
			return n, err
		}
		p.skipBlanks()
		switch p.next() {
		case ',':
			p.at++
		case ')':
			p.at++
			return n, nil
		case 0:
			return n, p.fail(open, "this parenthesis is never closed; add a )")
		default:
			return n, p.fail(p.at, "a comma or a ) is missing before this; a path that holds "+
				"commas, parentheses or quotes stands in quotes as a whole")
		}
	}
}

// argument reads a part or an option of a layer.
func (p *parser) argument(n *Node, depth int) error {
	at := p.at
	if _, ok := layerOf(p.text[at:]); ok {
		part, err := p.layer(depth + 1)
		n.Parts = append(n.Parts, part)
		return err
	}
	rest := p.text[at:]
	if key, before, ok := cutOption(rest); ok {
		if len(n.Options) > 0 && n.Option(key) != "" {
			return p.fail(at, "%s is given twice; remove one", key)
		}
		p.at += before
		p.skipBlanks()
		valueAt := p.at
		value, err := p.word("the value of " + key)
		n.Options = append(n.Options, Option{Key: key, Value: value, At: at, ValueAt: valueAt})
		return err
	}
	path, err := p.word("a path")
	if err != nil {
		return err
	}
	if len(n.Options) > 0 {
		return p.fail(at, "paths stand before the options; move it")
	}
	n.Parts = append(n.Parts, Node{Path: path, At: at})
	return nil
}

// word reads a path or a value, quoted or bare.
func (p *parser) word(what string) (string, error) {
	at := p.at
	switch quote := p.next(); quote {
	case '"', '\'':
		return p.quoted(quote)
	}
	for p.at < len(p.text) && strings.IndexByte(`,()"'`, p.text[p.at]) < 0 {
		p.at++
	}
	word := strings.TrimRight(p.text[at:p.at], blanks)
	switch c := p.next(); {
	case c == '(' && word != "":
		return "", p.fail(at, "%q is not a layer; the layers are %s, and a path that holds a "+
			"parenthesis stands in quotes", word, strings.Join(Layers(), ", "))
	case c == '(' || c == '"' || c == '\'':
		return "", p.fail(p.at, "a path that holds %q stands in quotes as a whole", c)
	case word == "":
		return "", p.fail(at, "%s is missing here", what)
	case strings.IndexByte(word, 0) >= 0:
		return "", p.fail(at, "a NUL byte cannot be in a path")
	}
	return word, nil
}

// quoted reads a word in quotes.
func (p *parser) quoted(quote byte) (string, error) {
	open := p.at
	var b strings.Builder
	for p.at++; p.at < len(p.text); p.at++ {
		c := p.text[p.at]
		switch {
		case c == quote:
			p.at++
			if b.Len() == 0 {
				return "", p.fail(open, "nothing stands between these quotes; name a path")
			}
			return b.String(), nil
		case c == 0:
			return "", p.fail(p.at, "a NUL byte cannot be in a path")
		case c == '\\' && quote == '"':
			p.at++
			if next := p.next(); next != '"' && next != '\\' {
				return "", p.fail(p.at-1, `in double quotes a backslash is written \\ and a quote `+
					`\"; single quotes take both as they are`)
			}
			b.WriteByte(p.text[p.at])
		default:
			b.WriteByte(c)
		}
	}
	return "", p.fail(open, "this quote is never closed; close it")
}

// cutOption returns the key of an option that a text begins with, and the length up to its value.
// A path that looks like an option is written ./KEY=REST, or in quotes.
func cutOption(text string) (key string, length int, ok bool) {
	n := 0
	for n < len(text) && (text[n] >= 'a' && text[n] <= 'z' || text[n] == '-') {
		n++
	}
	rest := strings.TrimLeft(text[n:], blanks)
	if n == 0 || !strings.HasPrefix(rest, "=") {
		return "", 0, false
	}
	return text[:n], len(text) - len(rest) + 1, true
}
