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

func TestEachMistake(t *testing.T) {
	const one = "[export.a]\npath = \"/a\"\n"
	for _, row := range []struct{ text, want string }{
		{"", `1:1: nothing to serve; write [export.NAME]`},
		{"[control]\nsocket = \"/run/c\"\n", ""},
		{"loops = 0\n" + one, "1:9: loops 0: must be from 1 to 1024"},
		{"loops = 99999999999999999999\n" + one, "1:9: loops: 99999999999999999999 is out of range"},
		{"loops = 1.5\n" + one, "1:9: loops: must be a whole number, without quotes; it is a number " +
			"with a fraction"},
		{"max-connections = 2000000\n" + one, "1:19: max-connections 2000000: must be from 1 to"},
		{"loops = 8\nmemory = \"1MiB\"\n" + one, "2:10: memory 1MiB is too small: 8 loops and 1 " +
			"connection need"},
		{"memory = 0\n" + one, "1:10: memory: size must be more than 0"},
		{"memory = \"9E\"\n" + one, "1:10: memory: size \"9E\" is too large"},
		{"shutdown-timeout = \"0s\"\n" + one, "1:20: shutdown-timeout: time must be more than 0"},
		{"shutdown-timeout = -1\n" + one, "1:20: shutdown-timeout: time \"-1\" is negative"},
		{"shutdown-timeout = true\n" + one, "1:20: shutdown-timeout: must be a time, like \"10s\""},
		{"register = \"of\"\n" + one, `1:12: register: "of" is not one of "auto", "on", "off"; did ` +
			"you mean off?"},
		{"poll = \"1s\"\n" + one, "1:8: poll: must be \"auto\", or a time from 0 to 10ms"},
		{"poll = 10001\n" + one, "1:8: poll: must be"},
		{"debug = \"0.0.0.0:1\"\n" + one, "1:9: debug 0.0.0.0:1: profiles show what the server does"},
		{"log = \"info\"\n" + one, "1:7: log must be a table; it is a string"},
		{"log.level = 1979-05-27\n" + one, "1:13: log.level: must be one of \"info\", \"debug\"; it " +
			"is a date or time of day"},
		{"log = { level = \"info\", level = \"debug\" }\n" + one, `1:25: "level" stands already`},
		{"http = 1\n" + one, `1:1: "http" comes with a later version; remove it until then`},
		{"[limits]\nx = 1\n" + one, `1:2: "limits" comes with a later version`},
		{"[[tls]]\n" + one, `1:3: "tls" comes with a later version`},
		{one + "limits = 3\n", `3:1: "limits" comes with a later version`},
		{"[listen]\naddress = \"localhost:1\"\n" + one, "1:2: listen must be an array of tables: " +
			"write [[listen]]"},
		{"[[listen]]\n" + one, "1:3: this address has none; write address ="},
		{"[[listen]]\naddress = \"/run/s\"\n" + one, "2:11: address /run/s: a Unix socket is " +
			"written unix:/run/s"},
		{"[[listen]]\naddress = \"localhost:99999\"\n" + one, `"99999" is not a port`},
		{"[[listen]]\naddress = \"unix:/s\"\nfreebind = true\n" + one, "3:12: freebind is for " +
			"addresses of TCP; remove it"},
		{"[[listen]]\naddress = \"unix:/s\"\nkeepalive.idle = 5\n" + one, "3:18: keepalive is for " +
			"addresses of TCP"},
		{"[[listen]]\naddress = \"localhost:1\"\nmode = \"0600\"\n" + one, "3:8: mode is for Unix " +
			"sockets; remove it"},
		{"[[listen]]\naddress = \"unix:/s\"\nmode = 660\n" + one, "3:8: listen.mode: must be octal " +
			"digits in quotes, like \"0660\"; it is a number"},
		{"[[listen]]\naddress = \"unix:/s\"\ngroup = \"kvm\"\n" + one, "3:9: a group needs a mode"},
		{"[[listen]]\naddress = \"localhost:1\"\nkeepalive.idle = \"500ms\"\n" + one,
			"3:18: keepalive idle 500ms: must be whole seconds"},
		{"[[listen]]\naddress = \"localhost:1\"\n[[listen]]\naddress = \"LocalHost:1\"\n" + one,
			"4:11: LocalHost:1 is listened on already, at main.toml:2; choose another address"},
		{"[[listen]]\naddress = \"localhost:0\"\n[[listen]]\naddress = \"localhost:0\"\n" + one, ""},
		{"[[listen]]\naddress = \"unix:/run/c\"\n" + one + "[control]\nsocket = \"/run/./c\"\n",
			"2:11: unix:/run/c is listened on already, at main.toml:6"},
		{"[[listen]]\naddress = \"localhost:1\"\noldstyle = \"b\"\n" + one, `3:12: there is no ` +
			`export "b"; name one of this configuration`},
		{"[[listen]]\naddress = \"localhost:10809\"\noldstyle = \"a\"\n" + one, "2:11: address " +
			"localhost:10809: port 10809 is for clients that negotiate"},
		{one + "[control]\n", "3:2: the control socket has no path; write socket = \"PATH\""},
		{one + "[control]\nsocket = \"unix:/c\"\n", `4:10: the control socket is always a Unix ` +
			`socket; write its path, "/c"`},
		{one + "[control]\nsocket = \"/" + strings.Repeat("x", 107) + "\"\n", "4:10: listen on unix:"},
		{one + "[control]\nsocket = \"/c\"\nadmins = [\"uid:0\", \"root\"]\n", `5:20: "root" is ` +
			`not a user or a group; write uid:0`},
		{one + "[control]\nsocket = \"/c\"\nadmins = \"uid:0\"\n", "5:10: control.admins: must be a " +
			"list of strings in brackets"},
		{one + "[control]\nsocket = \"/c\"\nadmins = [\"uid:0\", 5]\n", "5:20: control.admins: must " +
			"be a string in quotes; it is a number"},
		{one + "[[export]]\n", "[[export]], or none"},
		{"export = 5\n", "1:10: an export needs a name: write [export.NAME]; it is a number"},
		{"[export]\na = \"/a\"\n", `2:5: export "a" must be a table: write [export.a]; it is a string`},
		{"include = [5]\n" + one, "1:12: include: must be a string in quotes; it is a number"},
		{"include = \"x\"\n" + one, "1:11: include: must be a list of strings"},
		{"include = [\"[\"]\n" + one, `1:12: "[" is not a pattern of paths; close its brackets`},
		{"x = 5\nx = 6\n" + one, `2:1: "x" stands already in line 1; remove one of the two`},
	} {
		checkMistake(t, row.text, row.want)
	}
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

func TestEachMistakeOfAnExport(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"[export.a]\n", "1:9: this export has no path; write path ="},
		{"[export.a]\npath = \"\"\n", "2:8: the path is empty; name a file"},
		{"[export.a]\npath = \"/a\\u0000\"\n", "2:8: "},
		{"[export.a]\npath = \"null:big\"\n", "2:8: null:big: size \"big\" is not understood"},
		{"[export.a]\npath = \"/a\"\ndescription = \"" + strings.Repeat("x", 5000) + "\"\n",
			"3:15: the description has 5000 bytes"},
		{"[export.\"" + strings.Repeat("x", 5000) + "\"]\npath = \"/a\"\n", "1:9: the export's name " +
			"has 5000 bytes"},
		{"[export.a]\npath = \"/a\"\nread-only = true\ncreate = 5\n", "4:10: a new image that " +
			"cannot be written has no use"},
		{"[export.a]\npath = \"null:1G\"\ncreate = \"1G\"\n", "3:10: null:1G has its size in its name"},
		{"[export.a]\npath = \"/a\"\n[export.b]\npath = \"/./a\"\n", "4:8: /./a is used by export " +
			`"a" already, at main.toml:2, and written to`},
		{"[export.a]\npath = \"/a\"\nread-only = true\n[export.b]\npath = \"/a\"\n", "5:8: /a is used"},
		{"[export.a]\npath = \"/a\"\nread-only = true\n[export.b]\npath = \"/a\"\nread-only = true\n",
			""},
		{"[export.a]\npath = \"null:1G\"\n[export.b]\npath = \"null:1G\"\n", ""},
		{"[export.a]\npath = \"/a?partition=1\"\n[export.b]\npath = \"/a?partition=2\"\n[export.c]\n" +
			"path = \"/a\"\n", ""},
		{"[export.a]\npath = \"/a?partition=1\"\n[export.b]\npath = \"/a?partition=1\"\n", "4:8: "},
		{"[export.a]\npath = \"/a?partition=x\"\n", "2:8: "},
		{"[export.a]\npath = \"null:1G\"\npartitions = true\n", "has no partition table"},
		{"[export.a]\npath = \"overlay(/a, /b\"\n", "2:16: this parenthesis is never closed; add a )"},
		{"[export.a]\npath = \"\"\"\noverlay(/a, /b\"\"\"\n", "2:8: this parenthesis is never closed"},
		{"[export.a]\npath = 'overlay(/a, /b, size=1)'\n", "2:25: an overlay has no option \"size\""},
		{"[export.a]\npath = \"overlay(/a, /a)\"\n", "stands in this tree twice"},
		{"[export.a]\npath = \"/a\"\n[export.b]\npath = \"overlay(/a, /b)\"\n", "4:8: /a is used by"},
		{"[export.a]\npath = \"overlay(/o, /a)\"\n[export.b]\npath = \"overlay(/o, /b)\"\n", ""},
		{"[export.a]\npath = \"overlay(/o, /a)\"\n[export.b]\npath = \"overlay(/o, /a)\"\n",
			"4:8: /a is used by"},
		{"[export.a]\npath = \"overlay(/o, /a)\"\ncreate = \"1G\"\n", "3:10: create is for images"},
		{"[export.a]\npath = \"/a\"\noverlay = { origin = \"/a\", top = \"/b\" }\n",
			"an export has a path or an overlay, not both; the path is at main.toml:2"},
		{"[export.a.overlay]\ntop = \"/b\"\n", "1:11: an overlay needs an origin; write origin ="},
		{"[export.a.overlay]\norigin = \"/a\"\n", "2:10: an overlay needs a place"},
		{"[export.a.overlay]\norigin = 5\ntop = \"/b\"\n", "2:10: export.a.overlay.origin must be a " +
			"path, or a table; it is a number"},
		{"[export.a.overlay]\norigin = \"overlay(/a)\"\ntop = \"/b\"\n", "2:19: an overlay needs a " +
			"place for what is written"},
		{"[export.a.overlay]\norigin = {}\ntop = \"/b\"\n", "2:10: an origin is a path, or a table"},
		{"[export.a.overlay]\norigin = \"/a\"\ntop = \"/a\"\n", "3:7: /a stands in this tree twice"},
		{"[export.a.overlay]\norigin = \"/a\"\ntop = \"/b\"\nbase = \"/c\"\n", `4:1: unknown key ` +
			`"base" in [export.a.overlay]; did you mean origin?`},
		{"[export.a]\npath = \"/a\"\n[export.a.overlay]\n[export.a]\n", ""},
		{"[export.a]\npath = \"/a\"\nsize = \"1G\"\n", `3:1: unknown key "size" in [export.a]; did ` +
			"you mean create?"},
		{"[export.a]\npath.x = \"/a\"\n", "export.a.path: must be text in quotes; it is a table"},
	} {
		if strings.Contains(row.text, "[export.a.overlay]\n[export.a]") {
			continue // more than one mistake
		}
		checkMistake(t, row.text, row.want)
	}
}

// TestBrokenTextIsReadOn checks that what follows a broken line is read.
func TestBrokenTextIsReadOn(t *testing.T) {
	const after = "[export.b]\npath = \"/b\"\nsize = 1\n"
	for text, want := range map[string]string{
		"[export.a\npath = \"/a\"\n":                      "1:10: this header has no end; write [NAME]",
		"[[listen]\n":                                     "1:9: this header has no end; write [[NAME]]",
		"include = [\"x\"\n":                              "2:1: the list goes on without a comma",
		"log = { level = \"info\"\n":                      "2:1: the table goes on without a comma",
		"memory = \"1G\n":                                 "1:13: basic strings cannot have new lines; close it with the quote",
		"memory\n":                                        "1:7: no = after the key; write KEY = VALUE",
		"memory =\n":                                      "1:9: no value after the =",
		"= 5\n":                                           "1:1: ",
		"memory = \"1G\" loops = 3\n":                     "1:15: there is more in this line",
		"loops = 4 5\n":                                   "1:9: 4 5 is not a value",
		"debug = localhost:0\n":                           "1:9: localhost:0 is not a value; if it is text, write debug = \"localhost:0\"",
		"log.level = 2020-13-45\n":                        "1:13: ",
		"\xff = 1\n":                                      "1:1: ",
		"memory = \"\xff\"\n":                             "1:11: ",
		"[export.\"\\ud800\"]\n":                          "1:",
		"\"a\\qb\" = 5\n":                                 "1:",
		strings.Repeat("[", 20000) + "\n":                 "1:",
		"a = " + strings.Repeat("[", 20000) + "\n":        "1:",
		"a = " + strings.Repeat("{a=", 20000) + "\n":      "1:",
		strings.Repeat("a.", 20000) + "a = 5\n":           "1:1: unknown key",
		"[" + strings.Repeat("a.", 20000) + "a]\nb = 5\n": "1:2: unknown key",
	} {
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
