// The terminal: how wide it is, whether it shows more than ASCII, and text of others (names, paths,
// messages of a server) on its way to a terminal or a log.
//
// Invariant: visible text has no control character, no character that changes the direction of the
// text around it, and no byte that is not UTF-8. Letters, marks and symbols of every script stay as
// they are.

package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// terminalWidth is the width in columns of the terminal that w writes to; 0 means w is not a
// terminal.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return max(width, 1) // a terminal may not know its size
}

// isTerminal reports whether w writes to a terminal.
func isTerminal(w io.Writer) bool { return terminalWidth(w) > 0 }

// localeHasUnicode reports whether a terminal of this locale shows more than ASCII.
func localeHasUnicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := os.Getenv(name); value != "" {
			value = strings.ToLower(strings.ReplaceAll(value, "-", ""))
			return strings.Contains(value, "utf8")
		}
	}
	return false
}

// visible escapes, as in a string of Go, the characters that a terminal would obey instead of show,
// and those that it cannot show.
func visible(text string) string {
	return escaped(text, func(r rune, raw string) string {
		if r == utf8.RuneError && len(raw) == 1 {
			return fmt.Sprintf(`\x%02x`, raw[0])
		}
		return strings.Trim(strconv.QuoteRune(r), "'")
	})
}

// escaped replaces every character that is not printable, and every byte that is not UTF-8.
func escaped(text string, escape func(r rune, raw string) string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if unicode.IsPrint(r) && (r != utf8.RuneError || n > 1) {
			b.WriteString(text[i : i+n])
		} else {
			b.WriteString(escape(r, text[i:i+n]))
		}
		i += n
	}
	return b.String()
}

// visibleError is an error with a visible text. Joined errors stay separate, each in a line of its
// own.
type visibleError struct{ error }

func (e visibleError) Unwrap() error { return e.error }

func (e visibleError) Error() string { return visibleText(e.error) }

// visibleText is the text of an error, made visible once. It has several lines only if the error is
// several joined errors.
func visibleText(err error) string {
	switch e := err.(type) {
	case visibleError:
		return visibleText(e.error)
	case interface{ Unwrap() error }:
		// the wrapper marks the error and adds no words
		if inner := e.Unwrap(); inner != nil && inner.Error() == err.Error() {
			return visibleText(inner)
		}
	case interface{ Unwrap() []error }:
		var raw, lines []string
		for _, each := range e.Unwrap() {
			raw, lines = append(raw, each.Error()), append(lines, visibleText(each))
		}
		if strings.Join(raw, "\n") == err.Error() { // joined, not several in one sentence
			return strings.Join(lines, "\n")
		}
	}
	return visible(err.Error())
}

// visibleJSON writes lines of JSON with every character that is not printable as a \u escape, which
// means the same to a reader of JSON. encoding/json escapes the control characters below the space,
// but not those above, and not the characters that change the direction of text.
type visibleJSON struct{ io.Writer }

func (w visibleJSON) Write(line []byte) (int, error) {
	text := escaped(string(line), func(r rune, raw string) string {
		switch {
		case r == '\n':
			return raw
		case r > 0xffff:
			r -= 0x10000
			return fmt.Sprintf(`\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
		// a byte that is not UTF-8 becomes the replacement character
		return fmt.Sprintf(`\u%04x`, r)
	})
	if _, err := io.WriteString(w.Writer, text); err != nil {
		return 0, err
	}
	return len(line), nil
}
