// The error of this package: what is wrong, and where.
//
// Invariant: every error of Parse and Check is an *Error.

package tree

import (
	"fmt"
	"unicode/utf8"
)

// Error is what is wrong with a tree, and the place.
type Error struct {
	Text string // the text that was parsed; "" if the tree was built otherwise
	At   int    // the byte of the text, or Node.At of what is wrong
	What string // what is wrong; what to do
}

// Column counts characters from 1, as editors do.
func (e *Error) Column() int {
	return utf8.RuneCountInString(e.Text[:min(max(e.At, 0), len(e.Text))]) + 1
}

func (e *Error) Error() string {
	if e.Text == "" {
		return e.What
	}
	return fmt.Sprintf("%s: column %d%s: %s", shorten(e.Text), e.Column(), e.near(), e.What)
}

// near quotes the beginning of what stands at the place.
func (e *Error) near() string {
	rest := e.Text[min(max(e.At, 0), len(e.Text)):]
	if rest == "" {
		return " (the end)"
	}
	return fmt.Sprintf(" (%q)", first(rest, 16))
}

// shorten keeps a message about a long text readable.
func shorten(text string) string {
	const most = 120 // a line and a half: the column says the rest
	if short := first(text, most); short != text {
		return short + "..."
	}
	return text
}

// first returns the first n characters of a text.
func first(text string, n int) string {
	for at := range text {
		if n == 0 {
			return text[:at]
		}
		n--
	}
	return text
}
