// What is wrong with a table, as a text that stands after the path of the disk.
//
// Invariant: no text says what a program's options are; the caller knows what it was asked.

package partition

import "fmt"

// NoneError is about a disk without a partition table.
type NoneError struct {
	// Instead is what the disk seems to hold, with its article: "a FAT file system"; or "".
	Instead string
}

func (e *NoneError) Error() string {
	if e.Instead == "" {
		return "has no partition table"
	}
	return "has no partition table: it is " + e.Instead + " as a whole"
}

// TableError is about a partition table that makes no sense.
type TableError struct {
	Kind Kind
	What string // "partitions 1 and 2 overlap: ..."
}

func (e *TableError) Error() string {
	return "its " + e.Kind.String() + " cannot be used: " + e.What
}

// wrong makes a TableError.
func wrong(kind Kind, format string, arguments ...any) error {
	return &TableError{Kind: kind, What: fmt.Sprintf(format, arguments...)}
}
