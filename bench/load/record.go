// Recording: the requests of a run, written as a trace that this program or fio can replay.
//
// A loop puts each request that it starts onto a tape of its own, a ring that has its full size
// from the beginning, and publishes the tape once a turn. A goroutine empties the tapes, merges
// them by time, and writes. When it does not keep up, requests are missing from the trace, and
// counted.
//
// Invariant: a loop never waits for the goroutine. Requests of a tape are in the order in which
// they were started, and up is not before the newest of them.

package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine/backing"
	"ringnbd/engine/client"
)

const (
	// tapeSize holds half a second of a million requests per second.
	tapeSize = 1 << 19
	// maxTapes bounds all tapes of many loops together.
	maxTapes = 1 << 21
	// emptyInterval is how long the goroutine lets tapes fill.
	emptyInterval = 5 * time.Millisecond
	// pipeTimeout is how long the end of a run waits for the reader of a trace in a pipe.
	pipeTimeout = 10 * time.Second
)

// tape has the requests of a loop that are not written yet. Each field belongs to the loop or to
// the goroutine.
type tape struct {
	ring    []entry
	filled  uint64 // of the loop: requests put onto the tape
	bound   uint64 // of the loop: the tape is full here, as far as the loop knows
	lost    uint64 // of the loop: requests that found no room
	_       [64]byte
	visible atomic.Uint64 // filled, for the goroutine
	up      atomic.Int64  // everything started until then is visible; MaxInt64: the loop has ended
	_       [64]byte
	taken   atomic.Uint64 // requests that were written, for the loop
	next    uint64        // of the goroutine: taken
	seen    uint64        // of the goroutine: visible, as read last
}

// tapeOf returns the size of each loop's tape, a power of two.
func tapeOf(loops int) int {
	size := tapeSize
	for size*loops > maxTapes && size > 1<<10 {
		size /= 2
	}
	return size
}

func newTape(size int) *tape { return &tape{ring: make([]entry, size), bound: uint64(size)} }

func (t *tape) row(n uint64) *entry { return &t.ring[n&uint64(len(t.ring)-1)] }

// put appends a request; the loop calls it.
func (t *tape) put(e entry) {
	if t.filled == t.bound {
		t.bound = t.taken.Load() + uint64(len(t.ring))
	}
	if t.filled == t.bound {
		t.lost++
		return
	}
	*t.row(t.filled) = e
	t.filled++
}

// publish shows the goroutine what was put, up to a time.
func (t *tape) publish(now int64) {
	t.visible.Store(t.filled)
	t.up.Store(now)
}

// recorder writes the tapes of all loops to a file.
type recorder struct {
	file   *os.File
	out    *bufio.Writer
	name   string // of the file in the trace
	shared *shared
	tapes  []*tape
	line   []byte
	last   int64 // microseconds
	quit   chan struct{}
	ended  chan error
}

// newRecorder makes the file. A file that exists is overwritten only if it is a trace.
func newRecorder(path string, t *client.Target, s *shared, loops, size int) (*recorder, error) {
	if err := backing.MayMakeNew(path); err != nil {
		return nil, err
	}
	mode := os.O_RDWR | os.O_CREATE
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		// a pipe without a reader is an error; do not wait for one
		mode = os.O_WRONLY | unix.O_NONBLOCK
	}
	f, err := os.OpenFile(path, mode, 0o666)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, errors.Unwrap(err)) // a PathError's
	}
	if err := overwrite(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r := &recorder{file: f, out: bufio.NewWriterSize(f, 1<<20), name: recordedName(t), shared: s,
		quit: make(chan struct{}), ended: make(chan error, 1)}
	for range loops {
		r.tapes = append(r.tapes, newTape(size))
	}
	go func() { r.ended <- r.write() }()
	return r, nil
}

// overwrite truncates a file if it is a trace or empty.
func overwrite(f *os.File) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0:
		return errors.New("a trace is not written to a block device")
	case !info.Mode().IsRegular() || info.Size() == 0:
		return nil
	}
	head := make([]byte, len(iologHeader))
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) ||
		string(head) != iologHeader {
		return errors.New("exists and is not a trace: choose another name, or remove it")
	}
	return f.Truncate(0)
}

// recordedName returns the name of the file in the trace: a path, so that fio can replay on the
// file itself, or a word where fio needs no path (ioengine=nbd). It has no blanks.
func recordedName(t *client.Target) string {
	const maxLength = 255 // fio reads no more
	if path, err := filepath.Abs(t.Address); t.File() && err == nil && len(path) <= maxLength &&
		!strings.ContainsFunc(path, func(r rune) bool {
			return r <= ' '
		}) {
		return path
	}
	return "export"
}

// write is the goroutine: it empties the tapes until all loops have ended.
func (r *recorder) write() error {
	fmt.Fprintf(r.out, "%s3 iolog\n0 %s add\n0 %s open\n", iologHeader, r.name, r.name)
	tick := time.NewTicker(emptyInterval)
	defer tick.Stop()
	for more := true; more; {
		select {
		case <-r.quit:
			more = false
		case <-tick.C:
		}
		r.empty()
	}
	fmt.Fprintf(r.out, "%d %s close\n", r.last, r.name)
	return errors.Join(r.out.Flush(), r.file.Close())
}

// empty writes the requests whose order is certain: nothing older can be published any more.
func (r *recorder) empty() {
	until := int64(math.MaxInt64)
	for _, t := range r.tapes {
		until = min(until, t.up.Load()) // before looking at what is visible
	}
	for _, t := range r.tapes {
		t.seen = t.visible.Load()
	}
	for {
		var oldest *tape
		at := until
		for _, t := range r.tapes {
			if t.next < t.seen {
				if e := t.row(t.next); e.at < at || e.at == at && oldest == nil {
					oldest, at = t, e.at
				}
			}
		}
		if oldest == nil {
			return
		}
		r.put(oldest.row(oldest.next))
		oldest.next++
		oldest.taken.Store(oldest.next)
	}
}

// put writes a line. The writer remembers an error, and returns it at the end.
func (r *recorder) put(e *entry) {
	r.last = max(e.at-r.shared.startAt.Load(), 0) / 1000
	b := strconv.AppendInt(r.line[:0], r.last, 10)
	b = append(append(b, ' '), r.name...)
	b = append(append(b, ' '), actionNames[e.kind]...)
	b = strconv.AppendUint(append(b, ' '), e.offset, 10)
	b = strconv.AppendUint(append(b, ' '), uint64(e.length), 10)
	r.line = append(b, '\n')
	_, _ = r.out.Write(r.line)
}

// close waits until everything is written, and returns what is missing. The loops have ended, or
// never began.
func (r *recorder) close() error {
	var lost uint64
	for _, t := range r.tapes {
		t.up.Store(math.MaxInt64)
		lost += t.lost
	}
	_ = r.file.SetWriteDeadline(time.Now().Add(pipeTimeout)) // a pipe whose reader stopped
	close(r.quit)
	if err := <-r.ended; err != nil {
		return err
	}
	if lost > 0 {
		return fmt.Errorf("%d requests are missing from the trace, because it could not be "+
			"written fast enough", lost)
	}
	return nil
}
