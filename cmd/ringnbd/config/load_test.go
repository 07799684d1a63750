// Loading: what is read, from where, and every mistake with its place.

package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write makes files in a directory, and returns the directory.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// load loads main.toml of a directory, and returns its mistakes as lines, with the names of files
// in the directory.
func load(t *testing.T, files map[string]string) (*Config, []string) {
	t.Helper()
	dir := write(t, files)
	c, mistakes := Load(filepath.Join(dir, "main.toml"))
	var lines []string
	for _, m := range mistakes {
		lines = append(lines, strings.ReplaceAll(m.Error(), dir+"/", ""))
	}
	return c, lines
}

// issueFile is the file of the design, whose shape the server has to read.
const issueFile = `include         = ["ringnbd.d/*.toml"]     # in order of name; a table may stand in one file only
memory          = "640MiB"
loops           = 4
max-connections = 2048
log             = { level = "info", format = "json" }

[[listen]]
address   = "0.0.0.0:10809"
freebind  = true                           # the address may come later: a virtual IP
keepalive = { idle = "60s", interval = "15s", user-timeout = "5m" }

[[listen]]
address = "unix:/run/ringnbd/nbd.sock"
mode    = "0660"
group   = "kvm"

[export.vm1]
path        = "/dev/vg0/vm1"
description = "root disk of vm1"

[export.golden]
path      = "overlay(/srv/golden.img, discard=on-disconnect)"
[export."スクラッチ"]
path   = "/srv/scratch.img?partition=2"
create = "10GiB"

[control]
socket  = "/run/ringnbd/control"
admins  = ["uid:0", "gid:ringnbd-admin"]
viewers = ["gid:adm"]
`

func TestLoadReadsEveryValueWithItsPlace(t *testing.T) {
	c, wrong := load(t, map[string]string{"main.toml": issueFile,
		"ringnbd.d/b.toml": "[export.b]\npath = \"/b\"\n",
		"ringnbd.d/a.toml": "[export.a]\n  path = \"/a\"\nread-only = true\n"})
	if len(wrong) > 0 {
		t.Fatal(strings.Join(wrong, "\n"))
	}
	var names []string
	for _, e := range c.Exports {
		names = append(names, e.Name)
	}
	if got := strings.Join(names, " "); got != "vm1 golden スクラッチ a b" {
		t.Errorf("exports %s", got)
	}
	for _, row := range []struct {
		got          string
		at           Pos
		want         string
		line, column int
	}{
		{c.Memory.Text(), c.Memory.At, "640MiB", 2, 19},
		{c.Loops.Text(), c.Loops.At, "4", 3, 19},
		{c.Log.Format.Text(), c.Log.Format.At, "json", 5, 46},
		{c.Listen[0].Keepalive.UserTimeout.Text(), c.Listen[0].Keepalive.UserTimeout.At, "5m", 10,
			62},
		{c.Listen[1].Mode.Text(), c.Listen[1].Mode.At, "0660", 14, 11},
		{c.Exports[0].Path.V, c.Exports[0].Path.At, "/dev/vg0/vm1", 18, 15},
		{c.Exports[2].Create.Text(), c.Exports[2].Create.At, "10GiB", 25, 10},
		{c.Exports[3].Path.V, c.Exports[3].Path.At, "/a", 2, 10},
		{c.Control.Admins.V[1].V, c.Control.Admins.V[1].At, "gid:ringnbd-admin", 29, 21},
	} {
		if row.got != row.want || row.at.Line != row.line || row.at.Column != row.column {
			t.Errorf("%s at %v, want %s at %d:%d", row.got, row.at, row.want, row.line, row.column)
		}
	}
}

func TestEveryMistakeHasItsLine(t *testing.T) {
	_, wrong := load(t, map[string]string{
		"main.toml": `include = ["more.toml"]
memory = 640MiB
lops = 4
max-connections = "2048"

[[listen]]
adress = "localhost:0"
keepalive = { idle = "60 parsecs" }

[export.vm1]
path = 5
[export.vm2]
path = "/a"
[export.vm2]
path = "/b"
`,
		"more.toml": `tls = true
[export."ディスク"]
path = "/x"; read-only = true
[export.vm1]
path = "/y"
[export.vm3]
path = "/z"
path = "/z2"
create = -5
`})
	want := []string{
		`main.toml:2:10: 640MiB is not a value; if it is text, write memory = "640MiB"`,
		`main.toml:3:1: unknown key "lops" at the top of the file; did you mean loops?`,
		`main.toml:4:19: max-connections: must be a whole number, without quotes; it is a string`,
		`main.toml:7:1: unknown key "adress" in [listen]; did you mean address?`,
		`main.toml:8:22: listen.keepalive.idle: time "60 parsecs" is not understood; write seconds, or a number with a unit, like 10s, 2m or 500ms`,
		`main.toml:11:8: export.vm1.path: must be text in quotes; it is a number`,
		`main.toml:14:9: [export.vm2] stands already in line 12; remove one of the two`,
		`more.toml:1:1: "tls" comes with a later version; remove it until then`,
		`more.toml:3:12: there is more in this line than a key and its value; begin a new line`,
		`more.toml:4:9: [export.vm1] stands already at main.toml:10; remove one of the two`,
		`more.toml:8:1: "path" stands already in line 7; remove one of the two`,
		`more.toml:9:10: export.vm3.create: size -5 is not from 1 to 9223372036854775296 bytes`,
	}
	compare(t, wrong, want)
}

// compare compares lines.
func compare(t *testing.T, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		g, w := "", ""
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("line %d is\n\t%s\nwant\n\t%s", i+1, g, w)
		}
	}
}

// TestLinksThatLeadBackAreReadOnce checks that links to folders above do not make ever more names
// of the same files.
func TestLinksThatLeadBackAreReadOnce(t *testing.T) {
	dir := write(t, map[string]string{"main.toml": "include = [\"d/*.toml\"]\n",
		"d/a.toml": "include = [\"*/a.toml\"]\n[export.a]\npath = \"null:1M\"\n"})
	for _, link := range []string{"d/x", "d/y", "d/z"} {
		if err := os.Symlink(".", filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a.toml", filepath.Join(dir, "d/b.toml")); err != nil {
		t.Fatal(err)
	}
	c, mistakes := Load(filepath.Join(dir, "main.toml"))
	if len(c.Files) != 2 || len(c.Exports) != 1 || len(mistakes) != 3 {
		t.Errorf("%q, %d exports, %q", c.Files, len(c.Exports), mistakes)
	}
	for _, m := range mistakes {
		if !strings.Contains(m.Text, "includes itself") {
			t.Error(m)
		}
	}
}

// TestLengthIsBounded checks that neither one file nor many may be longer than what is read.
func TestLengthIsBounded(t *testing.T) {
	dir := write(t, map[string]string{"main.toml": "include = [\"d/*.toml\"]\n"})
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d/a.toml", "d/b.toml"} {
		text := strings.Repeat("#\n", maxLength/2*2/3)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, mistakes := Load(filepath.Join(dir, "main.toml"))
	if len(mistakes) == 0 || !strings.Contains(mistakes[0].Text, "d/b.toml: this is too long") {
		t.Errorf("%q", mistakes)
	}
}

// TestLongLinesAreReadInOneGo checks places in lines of a hundred thousand values and parts, which
// took many seconds when each was counted from the beginning of the line.
func TestLongLinesAreReadInOneGo(t *testing.T) {
	const n = 100_000
	text := "[control]\nsocket = \"/c\"\nadmins = [" + strings.Repeat("\"é\", ", n) + "]\n" +
		strings.Repeat("a.", n) + "a = 1\n"
	dir := write(t, map[string]string{"main.toml": text})
	_, mistakes := Load(filepath.Join(dir, "main.toml"))
	places := map[int]int{} // the last column of each line that a mistake is in
	for _, m := range mistakes {
		places[m.At.Line] = max(places[m.At.Line], m.At.Column)
	}
	if last := len("admins = [") + 5*(n-1) + 1; places[3] != last || places[4] != 1 {
		t.Errorf("mistakes are in %v, and should be in line 3 up to column %d and in line 4",
			places, last)
	}
}
