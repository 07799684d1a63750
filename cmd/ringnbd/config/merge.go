// One tree from the trees of all files.
//
// Invariant: a key and a table stand in one file only; of exports, each is a table of its own, and
// of addresses, each is one.

package config

import "strconv"

// merge adds the tree of a file to the tree of the files before it.
func merge(into, from *node, path string) (wrong []Mistake) {
	for _, name := range from.names {
		sub, here := from.named[name], into.named[name]
		where := join(path, name)
		switch {
		case path == "" && name == "include": // of its own file
		case here == nil:
			into.add(name, sub)
		case where == "export" && here.kind == kindTable && sub.kind == kindTable:
			wrong = append(wrong, merge(here, sub, where)...)
		case here.kind == kindTables && sub.kind == kindTables:
			here.list = append(here.list, sub.list...)
		case sub.kind == kindTable:
			wrong = append(wrong, Mistake{sub.key, where, twice("["+where+"]", here.key,
				sub.key.File)})
		default:
			wrong = append(wrong, Mistake{sub.key, where, twice(strconv.Quote(where), here.key,
				sub.key.File)})
		}
	}
	return wrong
}
