// Every rule about values, each with the place of its mistake.

package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"
)

// TestEachMistake reads testdata/mistakes.txt: files, each with the mistake that it has, or none.
func TestEachMistake(t *testing.T) {
	all, err := os.ReadFile("testdata/mistakes.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases := strings.Split(string(all), "---\n")[1:]
	if len(cases) < 80 {
		t.Errorf("only %d files", len(cases))
	}
	for _, one := range cases {
		text, want, _ := strings.Cut(one, "===\n")
		checkMistake(t, text, strings.TrimSuffix(want, "\n"))
	}
	long := strings.Repeat("x", 5000)
	checkMistake(t, "[export.a]\npath = \"/a\"\n[control]\nsocket = \"/"+long[:107]+"\"\n",
		"4:10: listen on unix:")
	checkMistake(t, "[export.a]\npath = \"/a\"\ndescription = \""+long+"\"\n",
		"3:15: the description has 5000 bytes")
	checkMistake(t, "[export.\""+long+"\"]\npath = \"/a\"\n",
		"1:9: the export's name has 5000 bytes")
}

// checkMistake checks that a file has one mistake, or none.
func checkMistake(t *testing.T, text, want string) {
	t.Helper()
	_, wrong := load(t, map[string]string{"main.toml": text})
	found := want == ""
	for _, line := range wrong {
		found = found || strings.Contains(line, want) && want != ""
	}
	if !found || want == "" && len(wrong) > 0 {
		t.Errorf("%s\n%s\nwant %q", text, strings.Join(wrong, "\n"), want)
	}
	if want != "" && len(wrong) != 1 && !strings.HasPrefix(text, "x = ") {
		t.Errorf("%s\nhas %d mistakes:\n%s", text, len(wrong), strings.Join(wrong, "\n"))
	}
}

// TestBrokenTextIsReadOn checks that what follows a broken line is read.
func TestBrokenTextIsReadOn(t *testing.T) {
	const after = "[export.b]\npath = \"/b\"\nsize = 1\n"
	for _, row := range []struct{ text, want string }{
		{"[export.a\npath = \"/a\"\n", "1:10: this header has no end; write [NAME]"},
		{"[[listen]\n", "1:9: this header has no end; write [[NAME]]"},
		{"include = [\"x\"\n", "2:1: the list goes on without a comma"},
		{"log = { level = \"info\"\n", "2:1: the table goes on without a comma"},
		{"memory = \"1G\n", "1:13: basic strings cannot have new lines; close it with the quote"},
		{"memory\n", "1:7: no = after the key; write KEY = VALUE"},
		{"memory =\n", "1:9: no value after the ="},
		{"= 5\n", "1:1: "},
		{"memory = \"1G\" loops = 3\n", "1:15: there is more in this line"},
		{"loops = 4 5\n", "1:9: 4 5 is not a value"},
		{"debug = localhost:0\n",
			"1:9: localhost:0 is not a value; if it is text, write debug = \"localhost:0\""},
		{"log.level = 2020-13-45\n", "1:13: "},
		{"\xff = 1\n", "1:1: "},
		{"memory = \"\xff\"\n", "1:11: "},
		{"[export.\"\\ud800\"]\n", "1:"},
		{"\"a\\qb\" = 5\n", "1:"},
		{strings.Repeat("[", 20000) + "\n", "1:"},
		{"a = " + strings.Repeat("[", 20000) + "\n", "1:"},
		{"a = " + strings.Repeat("{a=", 20000) + "\n", "1:"},
		{strings.Repeat("a.", 20000) + "a = 5\n", "1:1: this key has 20001 parts"},
		{"[" + strings.Repeat("a.", 20000) + "a]\nb = 5\n", "1:2: this key has 20001 parts"},
	} {
		text, want := row.text, row.want
		_, wrong := load(t, map[string]string{"main.toml": text + after})
		line := strings.Count(text, "\n") + 3
		second := fmt.Sprintf("main.toml:%d:1: unknown key \"size\"", line)
		if len(wrong) != 2 || !strings.Contains(wrong[0], "main.toml:"+want) &&
			!strings.Contains(wrong[0], want) || !strings.HasPrefix(wrong[1], second) {
			t.Errorf("%.80q: %.300q, want %q and %q", text, wrong, want, second)
		}
	}
}

// TestManyExportsLoadAtOnce is the promise that a file with 10,000 exports is read within a second.
func TestManyExportsLoadAtOnce(t *testing.T) {
	var b strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&b, "[export.vm%d]\npath = \"/dev/vg0/vm%d\"\ndescription = \"disk %d\"\n"+
			"read-only = false\n\n", i, i, i)
	}
	dir := write(t, map[string]string{"main.toml": b.String()})
	best := time.Hour // of CPU time: the machine may be busy with something else
	for range 3 {
		start := spent(t)
		c, wrong := Load(filepath.Join(dir, "main.toml"))
		best = min(best, spent(t)-start)
		if len(wrong) > 0 || len(c.Exports) != 10000 || c.Exports[9999].At.Line != 9999*5+1 {
			t.Fatalf("%d exports, %v", len(c.Exports), wrong)
		}
		if d := Diff(c, c, nil); len(d) > 0 {
			t.Fatal(d)
		}
	}
	t.Logf("10,000 exports in %v", best)
	if best > time.Second {
		t.Errorf("10,000 exports take %v", best)
	}
}

// spent is the CPU time of this process.
func spent(t *testing.T) time.Duration {
	t.Helper()
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
		t.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// FuzzLoad reads any text without a panic, and gives every mistake a place in the file.
func FuzzLoad(f *testing.F) {
	f.Add(issueFile)
	f.Add(Example())
	f.Add("[export.a.overlay]\norigin.overlay.origin = \"overlay(/a, /b)\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "x.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, wrong := Load(path)
		lines := strings.Count(text, "\n") + 1
		for _, m := range wrong {
			if m.At.Line < 1 || m.At.Line > lines || m.At.Column < 1 || m.Text == "" {
				t.Errorf("%+v of %d lines", m, lines)
			}
		}
		if len(wrong) > 0 || len(c.Include.V) > 0 {
			return
		}
		var all map[string]any
		if err := toml.Unmarshal([]byte(strings.TrimPrefix(text, byteOrderMark)),
			&all); err != nil {
			t.Errorf("the library's own decoder refuses it: %v", err)
		}
		again, err := c.Text()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(again), 0o600); err != nil {
			t.Fatal(err)
		}
		second, wrong := Load(path)
		if len(wrong) > 0 {
			t.Fatalf("%v\n%s", wrong, again)
		}
		for _, d := range Diff(c, second, nil) {
			t.Errorf("%v\n%s", d.String(), again)
		}
	})
}
