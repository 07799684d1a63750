// Package config is the configuration file of the server: TOML, with every mistake in it at once,
// each with its place.
//
//	value.go     is a place in a file, and values that know theirs
//	types.go     is what a file can say, as Go types
//	size.go      has the kinds of values: sizes, times, modes
//	toml.go      turns a file into a tree of nodes with places
//	syntax.go    words errors of syntax, and finds where to go on after one
//	merge.go     makes one tree of all files
//	bind.go      fills the types from the tree
//	words.go     has other names of keys, for the answer to a key that does not exist
//	load.go      reads a file and all that it includes
//	check.go     checks what values mean, alone and together
//	check_export.go  does so for exports
//	address.go   checks the text of addresses
//	spec.go      makes of an export what engine/backing opens
//	diff.go      compares two configurations
//	text.go      writes a configuration as a file
//	about.go     has a text for every key
//	schema.go    makes the JSON schema
//	example.go   makes a file with every key
//	show.go      shows what is in force
//	dropin.go    adds an export to the files, and removes it
//
// The types are the one description of the file: what is read, the schema, the example, the
// comparison of two files and the listing of what is in force all walk over them.
//
// Invariants:
//   - Loading only reads. It opens configuration files, and nothing that they name.
//   - A mistake hides no other: what follows a mistake is read, up to the next table where the
//     syntax is broken.
//   - Every value knows the file, line and column that it comes from; a value without a place is a
//     default.
//   - What was loaded without a mistake is complete: no caller has to check it again, except
//     against the machine.
package config
