// From the bytes of a file to a tree of nodes, each with its place.
//
// Invariant: the tree has what TOML allows and nothing else: a key stands once in a table, and a
// table is written once. Everything else is a mistake, and left out.

package config

import (
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2/unstable"
)

// kind is what a node is.
type kind uint8

const (
	kindTable kind = iota
	kindTables
	kindArray
	kindText
	kindInteger
	kindFloat
	kindBool
	kindDate
)

// origin is how a table came to be, which decides what may be added to it.
type origin uint8

const (
	implied origin = iota // by the header of a table in it: it may still get a header
	headed                // by its own header
	dotted                // by dotted keys
	inline                // in braces: complete
)

// node is a value, or a table.
type node struct {
	kind  kind
	from  origin
	at    Pos    // of the value, or of the header of a table
	key   Pos    // of its key
	text  string // of a value
	bad   bool   // a table with a mistake in it, which may be what it lacks
	inner int    // of a text: characters from its place to its first character; 0: not as written
	names []string
	named map[string]*node // of a table
	list  []*node          // of an array, or of an array of tables
}

// what names the kind of a node for an error.
func (n *node) what() string {
	return [...]string{kindTable: "a table", kindTables: "an array of tables",
		kindArray: "an array", kindText: "a string", kindInteger: "a number",
		kindFloat: "a number with a fraction",
		kindBool:  "true or false without quotes", kindDate: "a date or time of day"}[n.kind]
}

// add puts a node into a table.
func (n *node) add(name string, sub *node) {
	if n.named == nil {
		n.named = map[string]*node{}
	}
	n.names = append(n.names, name)
	n.named[name] = sub
}

// source is a file that is being read.
type source struct {
	name     string
	text     []byte
	lines    []int // offset of the first byte of each line
	base     int   // offset of the part that the parser has now
	parser   unstable.Parser
	root     *node
	here     *node  // the table that keys go to; nil after a header that is wrong
	path     string // of that table
	mistakes []Mistake
	// The last place that was asked for: the next is mostly behind it, in the same line, and a long
	// line is not counted from its beginning for each.
	lastOffset int
	last       Pos
}

// parse makes the tree of a file.
func parse(name string, text []byte) (*node, []Mistake) {
	s := &source{name: name, text: text, root: &node{kind: kindTable, from: headed}}
	s.root.at = Pos{name, 1, 1}
	s.here = s.root
	s.lines = []int{0}
	for i, c := range text {
		if c == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	if strings.HasPrefix(string(text[:min(len(text), len(byteOrderMark))]), byteOrderMark) {
		s.base = len(byteOrderMark)
	}
	s.parser.Reset(text[s.base:])
	for s.read() {
	}
	return s.root, s.mistakes
}

// byteOrderMark is what some editors put before UTF-8.
const byteOrderMark = "\ufeff"

// read reads the next expression: a header, or a key with its value. It reports whether there was
// one.
func (s *source) read() bool {
	if !s.parser.NextExpression() {
		return s.parser.Error() != nil && s.recover(s.parser.Error())
	}
	e := s.parser.Expression()
	switch e.Kind {
	case unstable.Table:
		s.header(e, false)
	case unstable.ArrayTable:
		s.header(e, true)
	case unstable.KeyValue:
		if s.here != nil {
			s.keyValue(s.here, s.path, e)
		}
	}
	return true
}

// pos is the place of an offset in the part that the parser has.
func (s *source) pos(offset int) Pos { return s.place(s.base + offset) }

// place is the place of an offset in the file.
func (s *source) place(offset int) Pos {
	line := sort.SearchInts(s.lines, offset+1) - 1
	from, column := s.lines[line], 1
	if s.last.Line == line+1 && s.lastOffset <= offset {
		from, column = s.lastOffset, s.last.Column
	}
	s.lastOffset = offset
	s.last = Pos{s.name, line + 1, column + utf8.RuneCount(s.text[from:offset])}
	return s.last
}

func (s *source) wrong(at Pos, field, text string) {
	s.mistakes = append(s.mistakes, Mistake{at, field, text})
	if s.here != nil {
		s.here.bad = true
	}
}

// keys are the parts of a key, and their places.
func (s *source) keys(it unstable.Iterator) (names []string, at []Pos) {
	for it.Next() {
		names = append(names, string(it.Node().Data))
		at = append(at, s.pos(int(it.Node().Raw.Offset)))
	}
	return names, at
}

// tooLong reports, as a mistake, a key with more parts than any key has.
func (s *source) tooLong(names []string, at []Pos) bool {
	const most = 64 // parts: an overlay over some thirty others
	if len(names) > most {
		s.wrong(at[0], "", "this key has "+strconv.Itoa(len(names))+" parts, and none has more "+
			"than "+strconv.Itoa(most)+"; see ringnbd config example")
	}
	return len(names) > most
}

// header begins a table.
func (s *source) header(e *unstable.Node, many bool) {
	names, at := s.keys(e.Key())
	last := len(names) - 1
	table, path := s.root, ""
	s.here = nil
	if s.tooLong(names, at) {
		return
	}
	table, path = s.descend(table, path, names[:last], at, implied)
	if table == nil {
		return
	}
	name := names[last]
	path = join(path, name)
	before := table.named[name]
	fresh := &node{kind: kindTable, from: headed, at: at[last], key: at[last]}
	switch {
	case many && before == nil:
		table.add(name, &node{kind: kindTables, from: headed, at: at[last], key: at[last],
			list: []*node{fresh}})
	case many && before.kind == kindTables:
		before.list = append(before.list, fresh)
	case many:
		s.wrong(at[last], path, path+" is "+before.whole()+" already, in line "+
			strconv.Itoa(before.key.Line)+"; write all in [["+path+"]], or none")
		return
	case before == nil:
		table.add(name, fresh)
	case before.kind == kindTable && before.from == implied:
		before.from, before.at, fresh = headed, at[last], before
	default:
		s.wrong(at[last], path, twice("["+path+"]", before.at, s.name))
		return
	}
	s.here, s.path = fresh, path
}

// descend goes to the table in a table that some names lead to, and makes what is missing. from is
// implied for the names of a header and dotted for those of a key: a header also leads into the
// last table of a list, and into one that has a header. It returns nil after a mistake.
func (s *source) descend(table *node, path string, names []string, at []Pos,
	from origin) (*node, string) {
	advice := "a table cannot be added to it"
	if from == dotted {
		advice = "write its keys there"
	}
	for i, name := range names {
		path = join(path, name)
		sub := table.named[name]
		switch {
		case sub == nil:
			sub = &node{kind: kindTable, from: from, at: at[i], key: at[i]}
			table.add(name, sub)
		case sub.kind == kindTables && from == implied:
			sub = sub.list[len(sub.list)-1]
		case sub.kind != kindTable || sub.from == inline || sub.from == headed && from == dotted:
			s.wrong(at[i], path, path+" is "+sub.whole()+" already, in line "+
				strconv.Itoa(sub.key.Line)+"; "+advice)
			return nil, path
		}
		table = sub
	}
	return table, path
}

// whole names what a node is, for an error about what cannot be added to it.
func (n *node) whole() string {
	if n.kind == kindTable && n.from == inline {
		return "a table in braces"
	}
	return n.what()
}

// twice is the mistake that something stands at another place already.
func twice(what string, other Pos, file string) string {
	where := "in line " + strconv.Itoa(other.Line)
	if other.File != file {
		where = "at " + other.Where()
	}
	return what + " stands already " + where + "; remove one of the two"
}

// keyValue puts a value into a table, or into the tables in it that its key names.
func (s *source) keyValue(table *node, path string, e *unstable.Node) {
	names, at := s.keys(e.Key())
	last := len(names) - 1
	if s.tooLong(names, at) {
		return
	}
	if table, path = s.descend(table, path, names[:last], at, dotted); table == nil {
		return
	}
	path = join(path, names[last])
	if before := table.named[names[last]]; before != nil {
		s.wrong(at[last], path, twice(strconv.Quote(names[last]), before.key, s.name))
		return
	}
	table.add(names[last], s.value(e.Value(), path, at[last], s.afterKey(e)))
}

// afterKey is the place of the value of a key.
func (s *source) afterKey(e *unstable.Node) Pos {
	end := 0
	for it := e.Key(); it.Next(); {
		end = s.base + int(it.Node().Raw.Offset+it.Node().Raw.Length)
	}
	for end < len(s.text) && strings.IndexByte(" \t=", s.text[end]) >= 0 {
		end++
	}
	return s.place(end)
}

// value makes the node of a value.
func (s *source) value(v *unstable.Node, path string, key, at Pos) *node {
	n := &node{key: key, at: at, text: string(v.Data)}
	switch v.Kind {
	case unstable.Array:
		n.kind = kindArray
		for it := v.Children(); it.Next(); {
			at := n.at // of an array in an array there is no better place
			if it.Node().Kind != unstable.Array {
				at = s.pos(int(it.Node().Raw.Offset))
			}
			n.list = append(n.list, s.value(it.Node(), path, at, at))
		}
	case unstable.InlineTable:
		n.kind, n.from = kindTable, inline
		for it := v.Children(); it.Next(); {
			s.keyValue(n, path, it.Node())
		}
		n.close()
	case unstable.String:
		n.kind = kindText
		if int(v.Raw.Length) == len(v.Data)+2 { // quotes around the text as it is
			n.inner = 1
		}
	case unstable.Bool:
		n.kind = kindBool
	case unstable.Integer:
		n.kind = kindInteger
		plain := strings.TrimPrefix(strings.ReplaceAll(n.text, "_", ""), "+")
		if i, err := strconv.ParseInt(plain, 0, 64); err == nil {
			plain = strconv.FormatInt(i, 10)
		}
		n.text = plain
	case unstable.Float:
		n.kind = kindFloat
		n.text = strings.ReplaceAll(n.text, "_", "")
	default:
		n.kind = kindDate
	}
	return n
}

// close makes tables that dotted keys in braces have made complete.
func (n *node) close() {
	for _, sub := range n.named {
		if sub.kind == kindTable {
			sub.from = inline
			sub.close()
		}
	}
}

// join is the path of a key in a table.
func join(path, name string) string {
	if !isBare(name) {
		name = new(writer).quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// isBare reports whether a key needs no quotes.
func isBare(name string) bool {
	return name != "" && strings.Trim(name,
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}
