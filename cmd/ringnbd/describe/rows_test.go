// Lists of exports: whole, cut short, and of servers that stop answering.

package describe

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"ringnbd/engine/client"
	"ringnbd/engine/testbed"
)

// listing is a server that names exports, lets the first few be opened, and is silent about the
// others.
type listing struct {
	names, opened int
	closed        chan struct{} // an export that was opened
	// called when the first few were closed, and another is waited for; may be nil
	stuck func()
	once  sync.Once
}

func (l *listing) serve(t *testing.T) client.Target {
	t.Helper()
	l.closed = make(chan struct{}, l.opened)
	path := testbed.Listen(t, l.answer)
	return client.Target{Text: "nbd+unix:///?socket=" + path, Network: "unix", Address: path}
}

func (l *listing) answer(c net.Conn) {
	_, _ = c.Write([]byte("NBDMAGICIHAVEOPT\x00\x03"))
	if _, err := io.CopyN(io.Discard, c, 4); err != nil {
		return
	}
	for {
		var head [16]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		option := binary.BigEndian.Uint32(head[8:])
		data := make([]byte, binary.BigEndian.Uint32(head[12:]))
		if _, err := io.ReadFull(c, data); err != nil {
			return
		}
		rep := func(kind uint32, data []byte) []byte {
			b := binary.BigEndian.AppendUint64(nil, 0x3e889045565a9)
			for _, n := range []uint32{option, kind, uint32(len(data))} {
				b = binary.BigEndian.AppendUint32(b, n)
			}
			return append(b, data...)
		}
		var b []byte
		switch option {
		case 3: // LIST
			for i := range l.names {
				name := fmt.Sprintf("export%06d", i)
				b = append(b,
					rep(2,
						append(binary.BigEndian.AppendUint32(nil, uint32(len(name))), name...))...)
			}
			b = append(b, rep(1, nil)...)
		case 7: // GO
			var number int
			if _, err := fmt.Sscanf(string(data[4:]), "export%06d", &number); err != nil ||
				number >= l.opened {
				l.once.Do(l.wait)
				_, _ = io.Copy(io.Discard, c)
				return
			}
			_,
				_ = c.Write(append(rep(3, []byte{0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 1}),
				rep(1, nil)...))
			_, _ = io.Copy(io.Discard, c)
			l.closed <- struct{}{}
			return
		default:
			b = rep(1<<31+1, nil)
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// wait is until the exports that could be opened were closed, and their rows had time to be noted.
func (l *listing) wait() {
	if l.stuck == nil {
		return
	}
	for range l.opened {
		<-l.closed
	}
	time.Sleep(200 * time.Millisecond)
	l.stuck()
}

func TestAListIsWhole(t *testing.T) {
	const names = 300 // several pages
	target := (&listing{names: names, opened: names}).serve(t)
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		if err := Show(context.Background(), &Options{Target: target, List: true, JSON: asJSON},
			&out); err != nil {
			t.Fatal(err)
		}
		if asJSON {
			var s serverInfo
			if err := json.Unmarshal(out.Bytes(), &s); err != nil || len(s.Exports) != names ||
				s.Protocol != "newstyle-fixed" {
				t.Fatalf("%v, %d: %s", err, len(s.Exports), out.Bytes())
			}
			for i, f := range s.Exports {
				if f.Name != fmt.Sprintf("export%06d", i) || f.Size != 4096 {
					t.Errorf("%d: %+v", i, f)
				}
			}
			continue
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != names+1 || !strings.HasPrefix(lines[0], "EXPORT") ||
			!strings.HasPrefix(lines[names], `"export000299"  4 KiB  rw   `) ||
			!strings.HasSuffix(lines[names], target.URI("export000299")) {
			t.Errorf("%d lines: %q to %q", len(lines), lines[0], lines[len(lines)-1])
		}
	}
}

func TestAListThatIsInterrupted(t *testing.T) {
	const names, opened = 300, 5
	for _, asJSON := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		target := (&listing{names: names, opened: opened, stuck: cancel}).serve(t)
		var out bytes.Buffer
		err := Show(ctx, &Options{Target: target, List: true, JSON: asJSON}, &out)
		cancel()
		rows := strings.Count(out.String(), "4 KiB")
		if asJSON {
			var s struct {
				serverInfo
				Left int `json:"exports-not-shown"`
			}
			if err := json.Unmarshal(out.Bytes(), &s); err != nil ||
				len(s.Exports)+s.Left != names {
				t.Errorf("%v: %s", err, out.Bytes())
			}
			rows = len(s.Exports)
		}
		// an export that was closed has no row yet if the interrupt comes between
		if rows < 1 || rows > opened {
			t.Errorf("%d rows: %s", rows, out.String())
		}
		if err == nil ||
			err.Error() != fmt.Sprintf("interrupted: %d exports are not shown", names-rows) {
			t.Errorf("%v, and %d rows", err, rows)
		}
	}
}

func TestJSONOfNoExports(t *testing.T) {
	var out bytes.Buffer
	if err := Show(context.Background(),
		&Options{Target: (&listing{}).serve(t), List: true, JSON: true}, &out); err != nil ||
		!json.Valid(out.Bytes()) {
		t.Errorf("%v: %s", err, out.Bytes())
	}
}

// TestTablesFit checks that no line is wider than a terminal, but for URIs, which are whole; into a
// pipe nothing is cut off.
func TestTablesFit(t *testing.T) {
	target := client.Target{Network: "tcp", Address: "localhost:10809"}
	row := func(name, description string) found {
		return found{export: exportInfo{Name: name, Description: description, Size: 1 << 30,
			Flush: true,
			FUA:   true, Trim: true, Zero: true, DF: true, MultiConn: true,
			URI: target.URI(name)}}
	}
	broken := found{export: exportInfo{Name: "broken", URI: target.URI("broken")},
		failed: "nbd://localhost: " + strings.Repeat("this went wrong, and ", 20)}
	rows := []found{row("disk", "the first"), broken, row("ディスク", ""),
		row(strings.Repeat("long ", 60), strings.Repeat("much to tell ", 60))}
	for _, width := range []int{0, 20, 40, 79, 80, 160, 1000} {
		var out bytes.Buffer
		table := table{w: &out, width: width, mark: "~"}
		if err := table.begin(rows, true); err != nil {
			t.Fatal(err)
		}
		for i := range rows {
			if err := table.row(&rows[i]); err != nil {
				t.Fatal(err)
			}
		}
		for i := range rows {
			if f := &rows[i]; f.failed == "" && !strings.Contains(out.String(), f.export.URI+"\n") {
				t.Errorf("%d columns: no line ends with %s", width, f.export.URI)
			}
		}
		for line := range strings.Lines(out.String()) {
			if n := text.StringWidth(strings.TrimSuffix(line, "\n")); width > 0 && n > width &&
				!strings.HasPrefix(line, "    nbd://localhost/") {
				t.Errorf("%d columns: %d: %s", width, n, line)
			}
		}
		whole := strings.Contains(out.String(), rows[3].export.Description)
		if whole != (width == 0) {
			t.Errorf("%d columns: the description is whole: %t\n%s", width, whole, out.String())
		}
	}
}

// TestFactsFit checks that long descriptions of an export continue on the next line.
func TestFactsFit(t *testing.T) {
	f := exportInfo{Name: "disk", Description: strings.Repeat("much to tell ", 20), Size: 1 << 30,
		Flush: true, FUA: true, Trim: true, Zero: true, FastZero: true,
		Cache: true, DF: true, MultiConn: true, Filter: true, Rotational: true,
		Contexts: []string{"base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:x"}}
	var whole bytes.Buffer
	f.text(&whole, "extended headers", 0)
	for _, width := range []int{40, 60, 80} {
		var out bytes.Buffer
		f.text(&out, "extended headers", width)
		if len(strings.Fields(out.String())) != len(strings.Fields(whole.String())) {
			t.Errorf("%d columns: words are missing:\n%s", width, out.String())
		}
		for line := range strings.SplitSeq(out.String(), "\n") {
			if text.StringWidth(line) > width || strings.HasSuffix(line, " ") {
				t.Errorf("%d columns: %q", width, line)
			}
		}
	}
	if !strings.Contains(whole.String(),
		"\n  flags        writable, flush, FUA, trim, write zeroes, fast zeroes, cache, "+
			"unfragmented reads,") {
		t.Error(whole.String())
	}
}

// TestDescriptionsOfLaterPages checks that a column without content on the first page exists for
// those that come.
func TestDescriptionsOfLaterPages(t *testing.T) {
	var out bytes.Buffer
	r := rows{w: &out, table: table{w: &out}}
	for i := range page + 1 {
		f := found{export: exportInfo{Name: "x"}}
		if i == page {
			f.export.Description = "late"
		}
		if err := r.add(&f); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.end(0); err != nil || !strings.Contains(out.String(), `"late"`) {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestNarrowPictures(t *testing.T) {
	for _, width := range []int{1, 2, 3, 9, 10, 61, 62, 80} {
		p := newPicture(1<<20, &Options{Width: width})
		if len(p.cells)+2 > max(width, 3) {
			t.Errorf("%d columns: %d", width, len(p.cells)+2)
		}
		if ruler := p.ruler(); len(p.cells) > 8 && len(ruler) != len(p.cells) ||
			!strings.HasPrefix(ruler, "0 ") || !strings.HasSuffix(ruler, " 1 MiB") {
			t.Errorf("%d columns: %q", width, ruler)
		} else if quarters := strings.Contains(ruler, " 512 KiB "); quarters != (width >= 62) {
			t.Errorf("%d columns: %q", width, ruler)
		}
	}
}
