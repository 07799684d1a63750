// Writing to a reader that may never read: a log whose pipe is full, a terminal that was stopped
// with Ctrl-S, a supervisor that hangs.
//
// Invariant: serving, accepting and shutting down never wait for a reader. A backlog holds at most
// its size in each of two buffers, made at the start; lines that do not fit are dropped and
// counted, and the count is written as soon as the reader reads again.

package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// logBacklog is how many bytes of log lines wait for a reader: about 600 lines. There are two
	// buffers of this size.
	logBacklog = 128 << 10
	// progressBacklog is the same for a progress line, of which only the newest matters.
	progressBacklog = 4 << 10
	// lastWords is how long the end of a program waits for a reader of the lines that are left.
	lastWords = 500 * time.Millisecond
)

// backlog is a writer that does not block: a goroutine writes to w the lines that Write accepted.
type backlog struct {
	w io.Writer
	// makes the line that reports how many lines were dropped; nil: no report
	dropped func(lines uint64) []byte

	mu      sync.Mutex
	waiting []byte
	lost    uint64 // lines dropped after those, or dropped before them and not reported yet
	closed  bool
	wake    chan struct{} // of capacity 1: there is something to write, or closed is set
	ended   chan struct{} // closed when all is written
}

// newBacklog starts writing to w. dropped may be set until the first Write.
func newBacklog(w io.Writer, size int) *backlog {
	b := &backlog{w: w, waiting: make([]byte, 0, size), wake: make(chan struct{}, 1),
		ended: make(chan struct{})}
	go b.run(make([]byte, 0, size))
	return b
}

// Write accepts whole lines, or drops them. It never fails and never blocks.
func (b *backlog) Write(lines []byte) (int, error) {
	b.mu.Lock()
	if len(b.waiting)+len(lines) > cap(b.waiting) {
		b.lost += countLines(lines)
	} else {
		b.waiting = append(b.waiting, lines...)
	}
	b.mu.Unlock()
	b.wakeWriter()
	return len(lines), nil
}

// wakeWriter makes the writing goroutine look for lines again.
func (b *backlog) wakeWriter() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// run writes the accepted lines until the backlog is closed and empty. It alternates between two
// buffers: one fills while the other is written.
func (b *backlog) run(spare []byte) {
	defer close(b.ended)
	for {
		b.mu.Lock()
		taken, lost, closed := b.waiting, b.lost, b.closed
		b.waiting = spare[:0]
		if len(taken) > 0 {
			b.lost = 0
		}
		b.mu.Unlock()
		spare = taken
		switch {
		case len(taken) > 0:
			b.pass(taken, lost)
		case closed:
			return
		default:
			<-b.wake
		}
	}
}

// pass writes lines, and then how many were dropped after them. Lines that could not be written
// count as dropped, and are reported after the next lines that can be written.
func (b *backlog) pass(lines []byte, lost uint64) {
	n, err := b.w.Write(lines)
	if err == nil && lost > 0 && b.dropped != nil {
		_, err = b.w.Write(b.dropped(lost))
	}
	if err != nil {
		b.mu.Lock()
		b.lost += lost + countLines(lines[n:])
		b.mu.Unlock()
	}
}

func countLines(text []byte) uint64 { return uint64(bytes.Count(text, []byte{'\n'})) }

// close writes the lines that are left, for at most lastWords.
func (b *backlog) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.wakeWriter()
	select {
	case <-b.ended:
	case <-time.After(lastWords):
	}
}

// writeLastLine writes the last line of a program, and waits at most lastWords for a reader.
func writeLastLine(w io.Writer, line string) {
	written := make(chan struct{})
	go func() {
		defer close(written)
		fmt.Fprintln(w, line)
	}()
	select {
	case <-written:
	case <-time.After(lastWords):
	}
}
