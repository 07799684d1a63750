// Trees: what is read, what is refused and where, and that what is written is read again.

package tree_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"ringnbd/engine/tree"
)

// strip removes the places, which differ between two spellings of one tree.
func strip(n tree.Node) tree.Node {
	n.At = 0
	for i := range n.Parts {
		n.Parts[i] = strip(n.Parts[i])
	}
	for i := range n.Options {
		n.Options[i].At, n.Options[i].ValueAt = 0, 0
	}
	return n
}

func TestTreesAreRead(t *testing.T) {
	leaf := func(path string) tree.Node { return tree.Node{Path: path} }
	over := func(parts ...tree.Node) tree.Node {
		return tree.Node{Layer: tree.Overlay, Parts: parts}
	}
	thrown := over(leaf("/srv/golden.img"))
	thrown.Options = []tree.Option{{Key: "discard", Value: "on-disconnect"}}
	dir := over(leaf("a b"))
	dir.Options = []tree.Option{{Key: "discard", Value: "on-disconnect"},
		{Key: "dir", Value: "/var/lib/x, (y)"}}
	for text, want := range map[string]tree.Node{
		"base.img":                          leaf("base.img"),
		"./overlay(x)":                      leaf("./overlay(x)"),
		"disk(1).img, old":                  leaf("disk(1).img, old"),
		" overlay(a, b)":                    leaf(" overlay(a, b)"),
		`"a"`:                               leaf(`"a"`),
		"overlay(base.img, top.cow)":        over(leaf("base.img"), leaf("top.cow")),
		"overlay( base.img ,\n\ttop.cow ) ": over(leaf("base.img"), leaf("top.cow")),
		"overlay(a b, c  d)":                over(leaf("a b"), leaf("c  d")),
		`overlay("a,(b)\"\\", 'c\,"d')`:     over(leaf(`a,(b)"\`), leaf(`c\,"d`)),
		"overlay(disk?partition=2, t)":      over(leaf("disk?partition=2"), leaf("t")),
		"overlay(null:1T, ./size=1)":        over(leaf("null:1T"), leaf("./size=1")),
		"overlay(overlay(a, b), c)":         over(over(leaf("a"), leaf("b")), leaf("c")),
		"overlay(./overlay, ディスク)":          over(leaf("./overlay"), leaf("ディスク")),
		"overlay(a, a/b)":                   over(leaf("a"), leaf("a/b")),
		"overlay(overlay(a,b),overlay)":     over(over(leaf("a"), leaf("b")), leaf("overlay")),

		"overlay(/srv/golden.img, discard=on-disconnect)":                thrown,
		`overlay(a b, discard = "on-disconnect", dir="/var/lib/x, (y)")`: dir,
	} {
		got, err := tree.Parse(text)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if !reflect.DeepEqual(strip(*got), want) {
			t.Errorf("%s: read as %+v", text, *got)
		}
		again, err := tree.Parse(got.String())
		if err != nil || !reflect.DeepEqual(strip(*again), want) {
			t.Errorf("%s: written as %s: %v", text, got, err)
		}
	}
}

// mistakes are texts with the place of the mistake, marked by a |, and a part of the answer.
var mistakes = []struct{ text, what string }{
	{"overlay|(base.img, top.cow", "never closed"},
	{"overlay|(base.img,", "never closed"},
	{"overlay(|)", "a path is missing"},
	{"overlay(|, b)", "a path is missing"},
	{"overlay(a, |)", "a path is missing"},
	{"overlay(a, b) |x", "ends before this"},
	{"overlay(a, b)|)", "ends before this"},
	{"|overlay(discard=on-disconnect)", "needs an origin"},
	{"overlay(|a)", "needs a place for what is written"},
	{"overlay(a, b, |c)", "one file; remove this"},
	{"overlay(a, |b, discard=on-disconnect)", "throws it away"},
	{"overlay(a, |overlay(b, c))", "goes to a file"},
	{"overlay(overlay(a, |discard=on-disconnect), c)", "cannot be an origin"},
	{"overlay(overlay(a, b, |create=if-missing), c)", "only read"},
	{"overlay(a, |mirror(b, c))", `"mirror" is not a layer; the layers are overlay`},
	{"overlay(a|(b), c)", "stands in quotes"},
	{"overlay(a|\"b\", c)", "in quotes as a whole"},
	{"overlay(\"a\" |b, c)", "comma or a )"},
	{"overlay(|\"a, b)", "quote is never closed"},
	{"overlay(|'', b)", "nothing stands between"},
	{`overlay("a|\n", b)`, `written \\`},
	{"overlay(a, b, |size=1)", "no option \"size\""},
	{"overlay(a, discard=|never)", "must be discard=on-disconnect"},
	{"overlay(a, b, create=|yes)", "must be create=if-missing"},
	{"overlay(a, b, |dir=/tmp)", "dir is for discard"},
	{"overlay(a, discard=on-disconnect, |discard=on-disconnect)", "given twice"},
	{"overlay(a, discard=on-disconnect, |b)", "before the options"},
	{"overlay(a, |./a)", "twice"},
	{"overlay(overlay(a, b), |b)", "twice"},
	{"overlay(overlay(b, a), |b)", "twice"},
	{"overlay(ディスク, |./ディスク)", "twice"},
	{"overlay(a, |b\x00)", "NUL"},
	{strings.Repeat("overlay(", 8) + "|" + "overlay(", "more than 8 layers"},
}

func TestMistakesArePointedAt(t *testing.T) {
	for _, m := range mistakes {
		before, after, _ := strings.Cut(m.text, "|")
		if strings.HasPrefix(m.what, "stands in quotes") {
			before, after = "overlay(", "a(b), c)" // the whole word is meant
		}
		text := before + after
		_, err := tree.Parse(text)
		var e *tree.Error
		switch {
		case !errors.As(err, &e):
			t.Errorf("%q: %v", text, err)
		case e.At != len(before) || !strings.Contains(e.What, m.what):
			t.Errorf("%q: at byte %d, not %d: %v", text, e.At, len(before), err)
		case strings.Contains(err.Error(), "\n"):
			t.Errorf("%q: more than a line: %v", text, err)
		}
	}
	_, err := tree.Parse("overlay(ディスク, ./ディスク)")
	if want := `overlay(ディスク, ./ディスク): column 15 ("./ディスク)"): `; err == nil ||
		!strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, not %s...", err, want)
	}
}

// TestHugeTextsAreRefused gives texts that would take long, or much stack, if they were read.
func TestHugeTextsAreRefused(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("overlay(", 1<<20),
		"overlay(" + strings.Repeat("a,", 1<<20) + ")",
		"overlay(" + strings.Repeat("(", 1<<20),
		`overlay("` + strings.Repeat(`\\`, 1<<20),
	} {
		if _, err := tree.Parse(text); err == nil || len(err.Error()) > 1000 {
			t.Errorf("%.20s...: %.1000v", text, err)
		}
	}
}

func TestBuiltTreesFollowTheSameRules(t *testing.T) {
	deep := tree.Node{Path: "a"}
	for i := range 9 {
		deep = tree.Node{Layer: tree.Overlay, Parts: []tree.Node{deep, {Path: "top" +
			string(rune('0'+i))}}}
	}
	for name, n := range map[string]tree.Node{
		"unknown layer": {Layer: "mirror", At: 7},
		"too deep":      deep,
		"same file": {Layer: tree.Overlay, Parts: []tree.Node{{Path: "a"},
			{Path: "a", At: 7}}},
	} {
		var e *tree.Error
		if err := tree.Check(&n); !errors.As(err, &e) || e.At != 7 && name != "too deep" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := tree.Check(&tree.Node{Path: "overlay(x)"}); err != nil {
		t.Errorf("a path: %v", err)
	}
}

func TestPrefixEndsWithTheTree(t *testing.T) {
	n, end, err := tree.Prefix("overlay(a, b),ro,description=x")
	if err != nil || end != len("overlay(a, b)") || n.String() != "overlay(a, b)" {
		t.Errorf("%v, %d, %v", n, end, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, m := range mistakes {
		f.Add(m.text)
	}
	f.Add(`overlay("a,(b)\"\\", 'c\,"d', create=if-missing)`)
	f.Fuzz(func(t *testing.T, text string) {
		n, err := tree.Parse(text)
		if err != nil {
			var e *tree.Error
			if !errors.As(err, &e) || e.At < 0 || e.At > len(text) || e.Column() < 1 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		again, err := tree.Parse(n.String())
		if err != nil || !reflect.DeepEqual(strip(*again), strip(*n)) {
			t.Fatalf("%q: written as %q: %v", text, n, err)
		}
	})
}
