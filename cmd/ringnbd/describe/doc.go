// Package describe shows what a server says about its exports, for ringnbd info.
//
//	export.go   one export: size, flags, block sizes, contexts, as text and as JSON
//	list.go     the options, and the choice of what is shown
//	rows.go     all exports of a server
//	table.go    the rows as a table whose columns fit the terminal
//	map.go      the extents of an export, as they arrive
//	picture.go  the map as a bar of one line
//
// Invariant: texts of the server are quoted before they go to a terminal; a map is never kept, only
// counted or printed, so a million extents need no more memory than one reply.
package describe
