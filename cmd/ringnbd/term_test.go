// What a terminal or a log gets to see of names that others chose.

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode"
)

// tricks are texts that would move the cursor, change colours, or turn the text around them.
var tricks = map[string]string{
	"\x1b[31mred\x07":         `\x1b[31mred\a`,
	"a\rb\nc\td":              `a\rb\nc\td`,
	"invoice\u202egpj.exe":    `invoice\u202egpj.exe`,
	"\u2066isolate\u2069":     `\u2066isolate\u2069`,
	"\u200ezero\u200bwidth":   `\u200ezero\u200bwidth`,
	"c1\u009b31m\x7f":         `c1\u009b31m\u007f`,
	"\xff\xc3\xa9\xe9":        `\xffé\xe9`,
	"line\u2028and\u2029page": `line\u2028and\u2029page`,
	"tag\U000e0041":           `tag\U000e0041`,
}

// plain are texts that have to stay as they are.
var plain = []string{"", "disk.img", "it's \"quoted\" \\ 100%", "ディスク壱", "قرص",
	"cafe\u0301", "💾", "हिन्दी", "\ufffd"}

func TestVisible(t *testing.T) {
	for text, want := range tricks {
		got := visible(text)
		if strings.ReplaceAll(got, `\x7f`, `\u007f`) != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	for _, text := range plain {
		if got := visible(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestVisibleError(t *testing.T) {
	first, second := errors.New("a\x1b\nb"), failure{errors.New("c")}
	joined := errors.Join(first, fmt.Errorf("d: %w", errors.Join(second, io.EOF)))
	err := error(visibleError{joined})
	for _, each := range []error{err, visibleError{err}, visibleError{failure{joined}},
		failure{visibleError{failure{err}}}, visibleError{errors.Join(err)}} {
		if got, want := visibleText(each), "a\\x1b\\nb\nd: c\\nEOF"; got != want {
			t.Errorf("%#v: %q, want %q", each, got, want)
		}
	}
	if two := fmt.Errorf("%w and\n%w", first, second); visibleText(two) != `a\x1b\nb and\nc` {
		t.Errorf("%q", visibleText(two))
	}
	if f := new(failure); !errors.As(err, f) || !errors.Is(err, io.EOF) {
		t.Error("what is inside is lost")
	}
}

func TestLogLinesAreVisible(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var b bytes.Buffer
		log := newLog(&options{logFormat: format}, &b)
		for text := range tricks {
			log.Info(text, "name", text, text, 1, "error", errors.New(text))
		}
		for _, text := range plain {
			log.Info("plain", "name", text)
		}
		log.backlog.close()
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if len(lines) != len(tricks)+len(plain) {
			t.Fatalf("%s: %d lines", format, len(lines))
		}
		for _, line := range lines {
			if i := strings.IndexFunc(line, func(r rune) bool {
				return !unicode.IsPrint(r)
			}); i >= 0 {
				t.Errorf("%s: at %d: %q", format, i, line)
			}
		}
		if format == "json" {
			checkJSON(t, lines)
		}
	}
}

// checkJSON sees that nothing was lost on the way through JSON but bytes that are not UTF-8.
func checkJSON(t *testing.T, lines []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, line := range lines {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%v: %s", err, line)
			continue
		}
		seen[fields["name"].(string)] = true
	}
	for _, text := range plain {
		if !seen[text] {
			t.Errorf("%q is lost", text)
		}
	}
	for text := range tricks {
		if !seen[strings.ToValidUTF8(text, "\ufffd")] {
			t.Errorf("%q is lost", text)
		}
	}
}
