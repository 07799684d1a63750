// Errors of syntax, in words, and where to go on after one.
//
// Invariant: a file with an error of syntax is read on where a new expression begins for certain:
// at the next line, if the value that is wrong ends in its line, else at the next header.

package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

var (
	// headerLine is a line that is a header whatever stands before it, but for texts of many lines.
	headerLine = regexp.MustCompile(`(?m)^[ \t]*\[{1,2}[^\[\]\n]*[^\[\]\n,]\]{1,2}[ \t]*(#.*)?\r?$`)
	// bareValue is a key whose value lacks its quotes, or is another short mistake.
	bareValue = regexp.MustCompile(`^[ \t]*([^\s=\[#"']+|"[^"]*"|'[^']*')[ \t]*=` +
		`[ \t]*([^\s"'\[{#][^"'\[{#]*)`)
)

// recover words an error of syntax, and gives the parser what follows. It reports whether anything
// does.
func (s *source) recover(err error) bool {
	var wrong *unstable.ParserError
	if !errors.As(err, &wrong) {
		s.wrong(s.pos(0), "", err.Error())
		return false
	}
	at := s.base
	if cap(wrong.Highlight) <= cap(s.text) { // a part of the text, as all are
		at = cap(s.text) - cap(wrong.Highlight)
	}
	at = min(at, len(s.text))
	place := s.place(at)
	begin := s.lines[place.Line-1]
	line, _, more := strings.Cut(string(s.text[begin:]), "\n")
	next := begin + len(line) + 1
	bare := bareValue.FindStringSubmatchIndex(line)
	switch {
	case bare != nil && at >= begin+bare[4]:
		value := strings.TrimSpace(line[bare[4]:bare[5]])
		s.wrong(s.place(begin+bare[4]), "", fmt.Sprintf("%s is not a value; if it is text, write "+
			"%s = \"%s\"", value, line[bare[2]:bare[3]], strings.ReplaceAll(value, `\`, `\\`)))
	default:
		s.wrong(place, "", syntaxText(wrong.Message))
		if begin > s.base && headerLine.MatchString(line) {
			next, more = begin, true // what was not closed before has run into it
		}
		if loc := headerLine.FindIndex(s.text[min(next, len(s.text)):]); loc == nil {
			more = false
		} else {
			next += loc[0]
		}
		s.here = nil
	}
	if !more || next >= len(s.text) {
		return false
	}
	s.base = next
	s.parser.Reset(s.text[s.base:])
	return true
}

// syntaxText words an error of the parser: what, and what to do.
func syntaxText(message string) string {
	for _, known := range []struct{ part, text string }{
		{"after key", "no = after the key; write KEY = VALUE"},
		{"start of value", "no value after the =; write text in quotes, like \"text\""},
		{"expected value", "no value after the =; write text in quotes, like \"text\""},
		{"array is incomplete", "this list has no end; close it with ]"},
		{"after array value", "the list goes on without a comma; write a comma between its " +
			"values, and ] at its end"},
		{"inline table is incomplete", "this table has no end; close it with }"},
		{"after inline table", "the table goes on without a comma; write a comma " +
			"between its keys, and } at its end"},
		{"expected newline", "there is more in this line than a key and its value; begin a " +
			"new line"},
		{"close table name", "this header has no end; write [NAME]"},
		{"close array table name", "this header has no end; write [[NAME]]"},
		{"string", message + "; close it with the quote that began it"},
	} {
		if strings.Contains(message, known.part) {
			return known.text
		}
	}
	return message + "; write [TABLE], or KEY = VALUE"
}
