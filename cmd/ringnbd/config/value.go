// Places in files, mistakes at places, and values that know their place.
//
// Invariant: the zero place is nowhere: the value is a default.

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// Pos is a place in a file. Lines and columns begin at 1, and columns are characters.
type Pos struct {
	File         string
	Line, Column int
}

// elsewhere is the line of values that come from no file.
const elsewhere = -1

// Given is a value that does not come from a file, with the name of where it comes from.
func Given[T any](from string, v T) Value[T] {
	return Value[T]{V: v, At: Pos{File: from, Line: elsewhere}}
}

// IsSet reports whether there is a place: the value is not a default.
func (p Pos) IsSet() bool { return p.Line != 0 }

// String is FILE:LINE:COLUMN, FILE alone for a file that could not be read and for what comes from
// elsewhere, or "default".
func (p Pos) String() string {
	if p.Line > 0 {
		return p.Where() + ":" + strconv.Itoa(p.Column)
	}
	return p.Where()
}

// Where is the place without its column.
func (p Pos) Where() string {
	switch {
	case p.Line > 0:
		return p.File + ":" + strconv.Itoa(p.Line)
	case p.File != "":
		return p.File
	}
	return "default"
}

// Mistake is what is wrong at a place: "what; what to do".
type Mistake struct {
	At    Pos
	Field string // the key, with all tables that it is in: export.vm1.path; "" for none
	Text  string
}

// Error is FILE:LINE:COLUMN: what; what to do.
func (m Mistake) Error() string { return m.At.String() + ": " + m.Text }

// SortMistakes puts mistakes into the order of the files, and in each file of its lines.
func SortMistakes(list []Mistake, files []string) {
	slices.SortStableFunc(list, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(slices.Index(files, a.At.File), slices.Index(files, b.At.File)),
			cmp.Compare(a.At.Line, b.At.Line), cmp.Compare(a.At.Column, b.At.Column))
	})
}

// Value is a value of a file. Without a place it is the default, which is the zero value where the
// default depends on the machine.
type Value[T any] struct {
	V     T
	At    Pos
	inner int // characters from the place to the text, if the text is written as it is; else 0
}

// IsSet reports whether a file has the value.
func (v *Value[T]) IsSet() bool { return v.At.IsSet() }

// Or is the value of the file, or without one the given value.
func (v *Value[T]) Or(other T) T {
	if v.IsSet() {
		return v.V
	}
	return other
}

// Text is the value as text.
func (v *Value[T]) Text() string { return fmt.Sprint(v.V) }
