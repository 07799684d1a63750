// Reading traces: fio's iolog, versions 2 and 3, as `fio --write_iolog` makes them.
//
//	fio version 2 iolog              fio version 3 iolog
//	NAME add|open|close              TIME NAME add|open|close
//	NAME ACTION OFFSET LENGTH        TIME NAME ACTION OFFSET LENGTH
//
// Sources: "Trace file format" in fio's HOWTO, and iolog.c of fio 3.33 to 3.42. TIME is in
// microseconds, which the HOWTO does not say: log_io_u prints utime_since_now. The times of version
// 2 come from its wait actions, "OFFSET microseconds, relative to the previous wait"; less than 100
// is nothing. The four actions that make data durable are all FLUSH here, which is the only one
// that NBD has. write_zeroes is an addition: fio does not know the action, and skips it.
//
// Invariant: a line is parsed in the reader's buffer, and only its row in the table is kept.

package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"ringnbd/engine/units"
)

const (
	iologHeader = "fio version "
	// maxLine is far above what fio itself reads: 4096 bytes.
	maxLine  = 64 << 10
	maxNames = 8
	fields   = 5
	// lookInterval is after how many lines the reader checks for a Ctrl-C, and looks at the clock.
	lookInterval = 1 << 14
	// emptyUnit limits the block of a trace without data, where ranges may be of any size. No
	// export has larger blocks.
	emptyUnit = 64 << 10
)

// actions are the kinds of request by their names in a trace.
var actions = map[string]requestKind{"read": kindRead, "write": kindWrite, "trim": kindTrim,
	"sync": kindFlush, "datasync": kindFlush, "syncfs": kindFlush, "sync_file_range": kindFlush,
	"write_zeroes": kindZero}

// actionNames are the names in traces that this package writes.
var actionNames = [kinds]string{kindRead: "read", kindWrite: "write", kindTrim: "trim",
	kindFlush: "sync", kindZero: "write_zeroes"}

// iolog is a trace that is being read.
type iolog struct {
	options *Options
	trace   *trace
	want    string   // the file whose requests count; "": the only file
	names   []string // of files with requests
	timed   bool     // version 3
	line    int
	waited  int64 // version 2, nanoseconds: the waits so far
	words   [fields + 1][]byte
}

// readTrace reads a whole trace, of which the requests to one file count.
func readTrace(ctx context.Context, o *Options, watch func(Progress)) (*trace, error) {
	path := o.Replay.Path
	f, err := openTrace(ctx, path)
	if err != nil {
		return nil, o.errorf("{replay}: %w", err)
	}
	defer f.Close()
	size := int64(0)
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		size = info.Size()
	}
	// a pipe without a writer
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })()
	g := iolog{options: o, trace: &trace{path: path}, want: o.Replay.File}
	in := &counted{Reader: f}
	begun, shown := time.Now(), time.Time{}
	err = g.read(bufio.NewReaderSize(in, maxLine), func() error {
		p := Progress{Phase: "reading the trace, " + units.Count(g.trace.n) + " requests",
			Elapsed: time.Since(begun)}
		if size > 0 {
			p.Share = float64(in.n) / float64(size)
		}
		if time.Since(shown) >= watchInterval {
			shown = time.Now()
			watch(p)
		}
		return ctx.Err()
	})
	switch {
	case ctx.Err() != nil:
		return nil, errors.New("interrupted while reading the trace")
	case err != nil:
		return nil, err
	}
	return g.trace, g.complete()
}

// openTrace opens a file for reading. Opening a pipe blocks until a writer opens it, perhaps for
// ever.
func openTrace(ctx context.Context, path string) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	opened := make(chan result, 1)
	go func() {
		f, err := os.Open(path)
		opened <- result{f, err}
	}()
	select {
	case r := <-opened:
		return r.f, r.err
	case <-ctx.Done():
		return nil, errors.New("interrupted while opening the trace")
	}
}

// counted counts the bytes that were read.
type counted struct {
	io.Reader
	n int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += int64(n)
	return n, err
}

// read parses all lines, and calls look at intervals.
func (g *iolog) read(in *bufio.Reader, look func() error) error {
	for {
		text, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			g.line++
			return g.fail("longer than %d bytes: this is not a trace", maxLine)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return g.options.errorf("{replay}: %w", err)
		}
		last := err != nil
		if last && len(text) == 0 {
			return nil
		}
		g.line++
		if err := g.parse(text); err != nil {
			return err
		}
		if g.line%lookInterval == 0 {
			if err := look(); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// parse parses a line.
func (g *iolog) parse(text []byte) error {
	if g.line == 1 {
		return g.parseHeader(strings.TrimSpace(string(text)))
	}
	words := g.split(text)
	var at int64
	if g.timed && len(words) > 0 {
		us, ok := number(words[0])
		if !ok || us > math.MaxInt64/1000 {
			if string(words[0]) == "fio" {
				return g.fail("a second header: fio appends to a file that is there already; " +
					"record anew, or keep only one part")
			}
			return g.fail("%q is not a time in microseconds", words[0])
		}
		at, words = int64(us)*1000, words[1:]
		if len(words) == 0 {
			return g.fail("nothing but a time")
		}
	}
	switch len(words) {
	case 0:
		return nil
	case 2:
		return g.parseFile(string(words[1]))
	case 4:
		return g.parseRequest(at, words)
	}
	if g.timed {
		return g.fail("not TIME NAME ACTION OFFSET LENGTH, nor TIME NAME add, open or close")
	}
	return g.fail("not NAME ACTION OFFSET LENGTH, nor NAME add, open or close")
}

func (g *iolog) parseHeader(text string) error {
	version, ours := strings.CutPrefix(text, iologHeader)
	switch {
	case ours && version == "2 iolog":
		return nil
	case ours && version == "3 iolog":
		g.timed = true
		return nil
	}
	return fmt.Errorf("%s: is not a trace: the first line must be %q or %q, as "+
		"fio --write_iolog makes it", g.trace.path, iologHeader+"3 iolog", iologHeader+"2 iolog")
}

// parseFile parses an action on a file, which has no effect: the export is open.
func (g *iolog) parseFile(action string) error {
	switch action {
	case "add", "open", "close", "unlink":
		return nil
	}
	if _, known := actions[action]; known || action == "wait" {
		return g.fail("%s needs an offset and a length", action)
	}
	return g.fail("there is no action %q", action)
}

// parseRequest parses NAME ACTION OFFSET LENGTH.
func (g *iolog) parseRequest(at int64, words [][]byte) error {
	kind, known := actions[string(words[1])] // the compiler does not make a string of it
	offset, ok := number(words[2])
	length, fits := number(words[3])
	switch {
	case !known && string(words[1]) != "wait":
		return g.fail("there is no action %q; there are read, write, trim, sync, datasync, wait",
			words[1])
	case !ok:
		return g.fail("%q is not an offset in bytes", words[2])
	case !fits:
		return g.fail("%q is not a length in bytes", words[3])
	case !known && g.timed:
		return g.fail("wait does not go with version 3, whose lines have times")
	case !known:
		return g.wait(offset)
	case g.skips(words[0]):
		return nil
	}
	if !g.timed {
		at = g.waited
	}
	e := entry{at: at, offset: offset, length: uint32(length), kind: kind}
	if kind == kindFlush {
		e.offset, e.length = 0, 0
	} else if err := g.checkRange(words[1], offset, length); err != nil {
		return err
	}
	g.trace.add(e, g.line)
	return nil
}

func (g *iolog) checkRange(action []byte, offset, length uint64) error {
	limit := uint64(math.MaxUint32) // of a length in the protocol
	if a := string(action); a == "read" || a == "write" {
		limit = maxBlock
	}
	switch {
	case length == 0:
		return g.fail("a %s of 0 bytes", action)
	case length > limit:
		return g.fail("a %s of %d bytes: at most %d are done in one request", action, length, limit)
	case offset > math.MaxInt64-length:
		return g.fail("a %s of %d bytes at offset %d: no export is that large", action, length,
			offset)
	}
	return nil
}

// wait delays the requests that follow.
func (g *iolog) wait(us uint64) error {
	const minWait = 100 // microseconds: "Everything below 100 is discarded"
	if us > math.MaxInt64/2000 || g.waited > math.MaxInt64/2 {
		return g.fail("a wait of %d microseconds", us)
	}
	if us >= minWait {
		g.waited += int64(us) * 1000
	}
	return nil
}

// skips reports whether a request is to another file than the one that counts. The names are kept
// for the error about several files.
func (g *iolog) skips(name []byte) bool {
	known := false
	for _, n := range g.names {
		known = known || n == string(name)
	}
	if !known && len(g.names) <= maxNames {
		g.names = append(g.names, string(name))
	}
	return g.want != "" && g.want != string(name) || g.want == "" && len(g.names) > 1
}

// split divides a line at its blanks, into at most one word more than any line should have.
func (g *iolog) split(text []byte) [][]byte {
	n := 0
	for i := 0; i < len(text) && n < len(g.words); {
		for i < len(text) && blank(text[i]) {
			i++
		}
		from := i
		for i < len(text) && !blank(text[i]) {
			i++
		}
		if i > from {
			g.words[n] = text[from:i]
			n++
		}
	}
	return g.words[:n]
}

func blank(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// number reads a decimal number without a sign.
func number(text []byte) (n uint64, ok bool) {
	for _, c := range text {
		if c < '0' || c > '9' || n > (math.MaxUint64-9)/10 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, len(text) > 0
}

func (g *iolog) fail(format string, values ...any) error {
	return g.trace.lineError(g.line, format, values...)
}

// complete checks that the trace has the requests that were wanted, and finishes its figures.
func (g *iolog) complete() error {
	t := g.trace
	list := strings.Join(g.names[:min(len(g.names), maxNames)], ", ")
	if len(g.names) > maxNames {
		list += ", and more"
	}
	switch {
	case g.line == 0:
		return fmt.Errorf("%s: is empty, not a trace", t.path)
	case len(g.names) == 0:
		return fmt.Errorf("%s: there is not one request in it", t.path)
	case g.want == "" && len(g.names) > 1:
		return g.options.errorf("%s: requests to several files, but there is one export: pick a "+
			"file by {replay-file}: %s", t.path, list)
	case t.n == 0:
		return g.options.errorf("%s: no requests to {replay-file} %s; there are some to %s", t.path,
			g.want, list)
	}
	t.name = g.want
	if t.name == "" {
		t.name = g.names[0]
	}
	t.unit = max(t.unit, 1)
	if t.largest == 0 {
		t.unit = divisor(t.unit, emptyUnit)
	}
	return nil
}
