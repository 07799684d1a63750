// Exports that a program saves, and configurations as text.

package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTextIsReadAsTheSame(t *testing.T) {
	from := issueFile + `
[export.""]
path = "/a \"b\"\\\u0007.img"
[export.nested.overlay]
top = "/top"
[export.nested.overlay.origin.overlay]
origin = "/base"
top = "/middle"
`
	c, wrong := load(t, map[string]string{"main.toml": from})
	if len(wrong) > 0 {
		t.Fatal(strings.Join(wrong, "\n"))
	}
	text, err := c.Text()
	if err != nil {
		t.Fatal(err)
	}
	again, wrong := load(t, map[string]string{"main.toml": text})
	if len(wrong) > 0 {
		t.Fatalf("%s\n%s", strings.Join(wrong, "\n"), text)
	}
	for _, d := range Diff(c, again, nil) {
		t.Error(d.String())
	}
	if second, err := again.Text(); err != nil || second != text {
		t.Errorf("written again: %v\n%s\nbefore\n%s", err, second, text)
	}
	if len(again.Exports) != 5 ||
		again.Exports[4].Store() != "overlay(overlay(/base, /middle), /top)" {
		t.Errorf("%d exports, the last %s", len(again.Exports), again.Exports[4].Store())
	}
}

func TestSaveAndUnsave(t *testing.T) {
	const comment = "# mine\n[export.vm1]\npath = \"/dev/vm1\" # also mine\n"
	dir := write(t, map[string]string{"main.toml": "include = [\"d/*.toml\"]\n",
		"d/vm.toml": comment})
	main := filepath.Join(dir, "main.toml")
	for _, name := range []string{"", "new", "a/b c.toml", strings.Repeat("ディスク", 300)} {
		e := &Export{Name: name, Path: Given("ctl", "/dev/x"+name), ReadOnly: Given("ctl", true)}
		file, err := Save(main, e)
		if err != nil {
			t.Fatal(err)
		}
		c, mistakes := Load(main)
		if len(mistakes) > 0 || len(c.Exports) != 2 {
			t.Fatalf("%v, %d exports", mistakes, len(c.Exports))
		}
		at := c.Exports[0]
		if at.Name == "vm1" {
			at = c.Exports[1]
		}
		if at.Name != name || at.Path.V != "/dev/x"+name || !at.ReadOnly.V || at.At.File != file {
			t.Errorf("%q is read as %q %q, from %s, not %s", name, at.Name, at.Path.V, at.At.File,
				file)
		}
		e.ReadOnly.V = false
		if again, err := Save(main, e); err != nil || again != file {
			t.Errorf("again: %s, %v", again, err)
		}
		if saved, err := Unsave(main, name); err != nil || !saved {
			t.Errorf("%t %v", saved, err)
		}
		if saved, err := Unsave(main, name); err != nil || saved {
			t.Errorf("once more: %t %v", saved, err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, "d"))
	if text, _ := os.ReadFile(filepath.Join(dir, "d/vm.toml")); err != nil || len(entries) != 1 ||
		string(text) != comment {
		t.Errorf("%v %v %s", err, entries, text)
	}
}

func TestSaveRefuses(t *testing.T) {
	dir := write(t, map[string]string{"main.toml": "include = [\"d/*.toml\"]\n",
		"d/vm.toml":  "[export.vm1]\npath = \"/dev/vm1\"\n",
		"none.toml":  "[export.vm1]\npath = \"/dev/vm1\"\n",
		"wrong.toml": "include = [\"d/*.toml\"]\nlops = 3\n",
		"gone.toml":  "include = [\"e/*.toml\"]\n[export.a]\npath = \"/a\"\n"})
	var place *PlaceError
	e := &Export{Name: "vm1", Path: Given("ctl", "/dev/other")}
	if _, err := Save(filepath.Join(dir, "main.toml"), e); !errors.As(err, &place) ||
		place.At.Line != 1 {
		t.Error(err)
	}
	if _, err := Unsave(filepath.Join(dir, "main.toml"), "vm1"); !errors.As(err, &place) {
		t.Error(err)
	}
	e.Name = "vm2"
	for file, want := range map[string]string{"none.toml": "includes no directory",
		"wrong.toml": "unknown key", "gone.toml": "no such directory; create it",
		"missing.toml": "no such file"} {
		if _, err := Save(filepath.Join(dir, file), e); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", file, err)
		}
	}
	e.Path.V = "/dev/\xff"
	if _, err := Save(filepath.Join(dir, "main.toml"), e); err == nil ||
		!strings.Contains(err.Error(), "not UTF-8") {
		t.Error(err)
	}
}
