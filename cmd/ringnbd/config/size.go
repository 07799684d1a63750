// The kinds of values: sizes, times, modes, choices, and lists of strings.
//
// Invariant: what a kind prints, it reads.

package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ringnbd/engine/units"
)

// Size is a number of bytes.
type Size uint64

// String is the size in the largest unit that divides it.
func (s Size) String() string { return strings.ReplaceAll(units.Exact(uint64(s)), " ", "") }

func (s *Size) read(n *node, _ []string) error {
	if n.kind != kindText && n.kind != kindInteger {
		return fmt.Errorf("must be a size, like \"10GiB\", or a number of bytes; it is %s",
			n.what())
	}
	size, err := units.ParseSize(n.text)
	if n.kind == kindInteger && err != nil {
		err = fmt.Errorf("size %s is not from 1 to 9223372036854775296 bytes", n.text)
	}
	if err == nil && size == 0 {
		err = fmt.Errorf("size must be more than 0")
	}
	*s = Size(size)
	return err
}

// Time is how long something may take.
type Time time.Duration

// String is the time with its unit.
func (t Time) String() string {
	text := time.Duration(t).String()
	if shorter, ok := strings.CutSuffix(text, "m0s"); ok {
		return shorter + "m"
	}
	return text
}

func (t *Time) read(n *node, _ []string) error {
	if n.kind != kindText && n.kind != kindInteger && n.kind != kindFloat {
		return fmt.Errorf("must be a time, like \"10s\", or a number of seconds; it is %s",
			n.what())
	}
	d, err := units.ParseDuration(n.text)
	if err == nil && d == 0 {
		err = fmt.Errorf("time must be more than 0")
	}
	*t = Time(d)
	return err
}

// MaxPoll bounds Poll: a loop that has had no work for longer gains nothing by polling.
const MaxPoll = 10 * time.Millisecond

// PollAuto is the poll time that the server finds for itself.
const PollAuto Poll = -1

// Poll is how long an idle loop polls for work before it sleeps.
type Poll time.Duration

// String is auto, or the time.
func (p Poll) String() string {
	if p == PollAuto {
		return "auto"
	}
	return time.Duration(p).String()
}

func (p *Poll) read(n *node, _ []string) error {
	if n.kind == kindText && n.text == "auto" {
		*p = PollAuto
		return nil
	}
	wrong := fmt.Errorf("must be \"auto\", or a time from 0 to %v, like \"50us\" or a number of "+
		"microseconds", MaxPoll)
	var d time.Duration
	switch n.kind {
	case kindInteger:
		us, err := strconv.ParseUint(n.text, 10, 32)
		if err != nil {
			return wrong
		}
		d = time.Duration(us) * time.Microsecond
	case kindText:
		var err error
		if d, err = time.ParseDuration(n.text); err != nil {
			return wrong
		}
	default:
		return fmt.Errorf("%w; it is %s", wrong, n.what())
	}
	if d < 0 || d > MaxPoll {
		return wrong
	}
	*p = Poll(d)
	return nil
}

// Mode is the mode of a file.
type Mode uint32

// String is the mode in octal digits.
func (m Mode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

func (m *Mode) read(n *node, _ []string) error {
	bits, err := strconv.ParseUint(n.text, 8, 32)
	switch {
	case n.kind != kindText:
		return fmt.Errorf("must be octal digits in quotes, like \"0660\"; it is %s", n.what())
	case err != nil || bits > 0o777:
		return fmt.Errorf("mode %q is not from \"0000\" to \"0777\", in octal digits", n.text)
	}
	*m = Mode(bits)
	return nil
}

// Choice is one of a few words, which the tag of its field has; the first of them is the default.
type Choice string

func (c *Choice) read(n *node, of []string) error {
	switch {
	case n.kind != kindText:
		return fmt.Errorf("must be one of %s; it is %s", quoted(of), n.what())
	case !slices.Contains(of, n.text):
		return fmt.Errorf("%q is not one of %s%s", n.text, quoted(of), didYouMean(n.text, of))
	}
	*c = Choice(n.text)
	return nil
}

// quoted is a list of words in quotes.
func quoted(words []string) string {
	list := make([]string, len(words))
	for i, word := range words {
		list[i] = strconv.Quote(word)
	}
	return strings.Join(list, ", ")
}

// Strings is a list of strings, each with its place.
type Strings []Value[string]

func (s *Strings) read(n *node, _ []string) error {
	if n.kind != kindArray {
		return fmt.Errorf("must be a list of strings in brackets, like [\"a\", \"b\"]; it is %s",
			n.what())
	}
	*s = make(Strings, 0, len(n.list))
	for _, one := range n.list {
		if one.kind != kindText {
			return placed{one.at, fmt.Errorf("must be a string in quotes; it is %s", one.what())}
		}
		*s = append(*s, Value[string]{V: one.text, At: one.at, inner: one.inner})
	}
	return nil
}

// Texts are the strings without their places.
func (s Strings) Texts() []string {
	list := make([]string, len(s))
	for i := range s {
		list[i] = s[i].V
	}
	return list
}
