// A file with every key, to begin with.
//
// Invariant: the example is made from the types and their texts; it has no mistake, with or without
// the keys that stand in it as comments.

package config

import (
	"strings"
)

// exampleHead opens the example.
const exampleHead = `# A configuration of ringnbd: ringnbd serve --config FILE
#
# ringnbd config check FILE shows every mistake in it, with file, line and column; ringnbd config
# show FILE shows what is in force. Sizes are bytes, or have a unit from K to E (powers of 1024);
# times are seconds, or have a unit. Lines that begin with # and a key show what could be said.

`

// Example is the file.
func Example() string {
	var b strings.Builder
	b.WriteString(exampleHead)
	for _, key := range Keys() {
		t := texts[key]
		table, last := "", key
		if i := strings.LastIndexByte(key, '.'); i >= 0 {
			table, last = key[:i], key[i+1:]
		}
		switch {
		case strings.HasSuffix(key, "origin.overlay"):
			continue
		case key == "listen":
			header(&b, t.about, "[[listen]]")
		case key == "listen.mode":
			header(&b, "", "[[listen]]")
			b.WriteString("address = \"unix:/run/ringnbd/nbd.sock\"\n")
		case key == "export":
			header(&b, t.about, "[export.vm1]")
			continue
		case key == "export.overlay":
			header(&b, t.about, "[export.vm2.overlay]")
			continue
		case t.value == "" && key == "listen.keepalive":
			comment(&b, t.about)
			continue
		case t.value == "":
			header(&b, t.about, "["+key+"]")
			continue
		case table == "listen.keepalive":
			last = "keepalive." + last
		}
		if key == "listen" {
			continue
		}
		comment(&b, t.about)
		if t.off {
			b.WriteByte('#')
		}
		b.WriteString(last + " = " + t.value + "\n")
	}
	return b.String()
}

// header begins a table.
func header(b *strings.Builder, about, line string) {
	b.WriteByte('\n')
	if about != "" {
		comment(b, about)
	}
	b.WriteString(line + "\n")
}

// comment writes a text as lines of comments.
func comment(b *strings.Builder, text string) {
	const most = 98 // columns, with the mark
	line := "#"
	for _, word := range strings.Fields(text) {
		if len([]rune(line))+1+len([]rune(word)) > most {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}
