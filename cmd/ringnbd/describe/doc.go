// Package describe tells what a server says about its exports: what ringnbd info does.
//
//	facts.go    one export: size, flags, block sizes, contexts, as text and as JSON
//	list.go     what is asked for, and one export
//	rows.go     all exports of a server
//	table.go    how they look: columns that fit the terminal
//	map.go      the extents of an export, as they come
//	picture.go  the same as a bar of one line, with totals
//
// Invariants: texts of the server are quoted before they go to a terminal; a map is never kept,
// only counted or printed, so a million extents cost no more memory than one answer has.
package describe
