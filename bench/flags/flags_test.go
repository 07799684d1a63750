// Tests of the command lines.

package flags

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestFlagsAreThoseOfTheProduct(t *testing.T) {
	var help bytes.Buffer
	f := New("make x", &help)
	quick := f.Bool("quick", false, "in a hurry")
	sections := f.StringSlice("sections", nil, "only these `SECTIONS`")
	if err := Parse(f, []string{"--quick", "--sections", "a,b", "--sections=c"}); err != nil ||
		!*quick || len(*sections) != 3 {
		t.Errorf("%v, %v, %v", err, *quick, *sections)
	}
	for argument, want := range map[string]string{
		"-quick":      "-quick: write --quick",
		"-sections=a": "-sections=a: write --sections",
		"--quack":     "unknown flag: --quack (--help lists the flags)",
		"-q":          "unknown shorthand flag: 'q' in -q (--help lists the flags)",
		"quick":       `"quick" is not a flag`,
	} {
		if err := Parse(f, []string{argument}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", argument, err, want)
		}
	}
	if err := Parse(f, []string{"-h"}); !errors.Is(err, ErrHelp) {
		t.Errorf("-h: %v", err)
	}
	if text := help.String(); !strings.HasPrefix(text, "usage: make x [flags]\n") ||
		!strings.Contains(text, "--sections SECTIONS") || !strings.Contains(text, "--quick  ") {
		t.Errorf("help: %s", text)
	}
}
