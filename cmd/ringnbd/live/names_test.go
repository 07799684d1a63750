// Names and descriptions in any language: from the command line through LIST and
// INFO to the clients' screens, and back by the URIs of the ready line.

package live_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"ringnbd/bench/measure"
)

// names are texts that any of the layers between could mistake.
var names = []string{
	"日本語のディスク",
	"قرص صلب",
	"हिन्दी डिस्क",
	"💾👩‍💾🏳️‍🌈",
	"\u00e9", "e\u0301", // look the same and are two names
	"a=b", "=", "==x=",
	"comma, comma,, comma", ",", "ro", "x,ro,description=y",
	"/", "/dev/sdb", "a/b/c", "..", "../..", ".", "a//b",
	" ", " leading and trailing ", "a+b", "a%2Fb%", "?socket=/x", "#fragment", "[v6]:1@host",
	`quote " ' \ backslash`, "a&b;c",
	"nbd://localhost/disk", "-r", "--help", "10809",
	strings.Repeat("n", 4096),
	strings.Repeat("語", 1365) + "1", // 4096 bytes
}

// exportArgument says an export on the command line.
func exportArgument(name, path, description string) string {
	double := func(text, what string) string { return strings.ReplaceAll(text, what, what+what) }
	return double(name, "=") + "=" + double(path, ",") + ",description=" + double(description, ",")
}

// serveNames serves each name as an export of its own size, described by the name
// after it.
func serveNames(t *testing.T) *server {
	t.Helper()
	arguments := []string{"--verbose"}
	for i, name := range names {
		arguments = append(arguments, "--export",
			exportArgument(name, fmt.Sprintf("null:%d", sizeOfName(i)), descriptionOf(i)))
	}
	return serveRingnbd(t, measure.Unix, arguments...)
}

func sizeOfName(i int) uint64       { return uint64(i+1) * 4096 }
func descriptionOf(i int) string    { return names[(i+1)%len(names)] }
func isControl(r rune) bool         { return !unicode.IsPrint(r) && r != '\n' }
func quotedSize(size uint64) string { return fmt.Sprintf("(%d bytes)", size) }

func TestNamesInAnyLanguageAreListed(t *testing.T) {
	need(t, "nbdinfo")
	s := serveNames(t)
	listed := nbdinfo(t, "--list", s.uri(""))
	if len(listed.Exports) != len(names) {
		t.Fatalf("%d exports are listed, want %d", len(listed.Exports), len(names))
	}
	for i, e := range listed.Exports {
		if e.Name != names[i] || e.Description != descriptionOf(i) || e.Size != sizeOfName(i) {
			t.Errorf("%.60q: %d bytes, %.60q; want %.60q: %d bytes, %.60q", e.Name, e.Size,
				e.Description, names[i], sizeOfName(i), descriptionOf(i))
		}
	}
}

func TestReadyURIsLeadToEveryName(t *testing.T) {
	need(t, "nbdinfo")
	tcp := newAddress(t, measure.TCP)
	arguments := []string{"serve", "--verbose", "--listen", fmt.Sprintf("localhost:%d", tcp.Port),
		"--listen", "unix:" + newAddress(t, measure.Unix).Path + " ディスク?&#%,="}
	for i, name := range names {
		arguments = append(arguments, "--export",
			exportArgument(name, fmt.Sprintf("null:%d", sizeOfName(i)), ""))
	}
	s := startRingnbd(t, arguments...)
	if len(s.ready) != 2*len(names) {
		t.Fatalf("%d URIs, want %d", len(s.ready), 2*len(names))
	}
	for n, uri := range s.ready {
		i := n % len(names)
		if at := strings.IndexFunc(uri, func(r rune) bool { return r <= ' ' || r > '~' }); at >= 0 {
			t.Errorf("%.200s: not ASCII at %d", uri, at)
		}
		info := nbdinfo(t, uri)
		if len(info.Exports) != 1 || info.Exports[0].Name != names[i] ||
			info.Exports[0].Size != sizeOfName(i) {
			t.Errorf("%.200s leads to %.200q, want %.60q", uri, fmt.Sprint(info.Exports), names[i])
		}
	}
	if i := strings.IndexFunc(s.log.String(), isControl); i >= 0 {
		t.Errorf("the log has an unprintable character at %d: %q", i, s.log)
	}
}

// hasDots says whether a name has a segment that means this folder or the one above, in a path.
func hasDots(name string) bool {
	return slices.ContainsFunc(strings.Split(name, "/"), func(s string) bool {
		return s == "." || s == ".."
	})
}

func TestQemuFindsEveryName(t *testing.T) {
	need(t, "qemu-img")
	s := serveNames(t)
	if len(s.ready) != len(names) {
		t.Fatalf("%d URIs, want %d", len(s.ready), len(names))
	}
	for i, uri := range s.ready {
		arguments := []string{"info", uri}
		// QEMU since 9.2 takes these out of a URI, as of the path of a web page
		if hasDots(names[i]) {
			arguments = []string{"info", "--image-opts",
				"driver=nbd,server.type=unix,server.path=" + s.address.Path + ",export=" + names[i]}
		}
		if out := must(t, time.Minute, "qemu-img", arguments...); !strings.Contains(out,
			quotedSize(sizeOfName(i))) {
			t.Errorf("%.200s: %.300s; want %d bytes", uri, out, sizeOfName(i))
		}
	}
}

func TestNamesAreComparedByteByByte(t *testing.T) {
	s := serveNames(t)
	for i, name := range names {
		p, err := connect(s.address, name)
		if err != nil {
			t.Errorf("%.60q: %v", name, err)
			continue
		}
		if p.size != sizeOfName(i) {
			t.Errorf("%.60q: size %d, want %d", name, p.size, sizeOfName(i))
		}
		p.disconnect()
	}
	missing := []string{"", "E\u0301", "日本語", "RO", "a=b ", strings.Repeat("n", 4095)}
	for _, name := range missing {
		if p, err := connect(s.address, name); err == nil {
			p.disconnect()
			t.Errorf("%.60q is found, of size %d", name, p.size)
		}
	}
}

// A name is text for people; it cannot control their terminals.
func TestNamesCannotTrickATerminal(t *testing.T) {
	const name = "\x1b]0;owned\x07\u202egpj.exe\u2066\u009b31m\r\nready nbd://elsewhere"
	for _, format := range []string{"text", "json"} {
		s := serveRingnbd(t, measure.Unix, "--verbose", "--log-format", format, "--export",
			exportArgument(name, "null:1M", name),
			"--oldstyle", "unix:"+newAddress(t, measure.Unix).Path+"="+name)
		p, err := connect(s.address, name)
		if err != nil {
			t.Fatal(err)
		}
		p.disconnect()
		if len(s.ready) != 2 {
			t.Errorf("ready %q", s.ready)
		}
		s.stop()
		text := s.log.String()
		if i := strings.IndexFunc(text, isControl); i >= 0 || !strings.Contains(text, `owned`) ||
			!strings.Contains(text, `\u202e`) {
			t.Errorf("%s log, at %d: %q", format, i, text)
		}
	}
}
