// Logs without a reader: writing does not wait, and lost lines are counted.

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// reader is a writer whose reader may be away.
type reader struct {
	here chan struct{} // closed when it reads
	fail error
	text bytes.Buffer
	came int // writes
	mu   sync.Mutex
}

func (r *reader) Write(b []byte) (int, error) {
	<-r.here
	r.mu.Lock()
	defer r.mu.Unlock()
	r.came++
	if r.fail != nil {
		return 0, r.fail
	}
	return r.text.Write(b)
}

// told is a backlog that says what was dropped as a line.
func told(r *reader, size int) *backlog {
	b := newBacklog(r, size)
	b.dropped = func(lines uint64) []byte { return fmt.Appendf(nil, "dropped %d\n", lines) }
	return b
}

func TestBacklogLosesNothingUncounted(t *testing.T) {
	r := &reader{here: make(chan struct{})}
	b := told(r, 1000)
	const all = 5000
	for i := range all {
		fmt.Fprintf(b, "line %d\n", i) // never waits, although there is no reader
	}
	close(r.here)
	b.close()
	written, dropped := 0, 0
	for line := range strings.Lines(r.text.String()) {
		var n int
		if _, err := fmt.Sscanf(line, "dropped %d", &n); err == nil {
			dropped += n
			continue
		}
		if _, err := fmt.Sscanf(line, "line %d", &n); err != nil || n != written+dropped {
			t.Fatalf("%q where line %d was due", line, written+dropped)
		}
		written++
	}
	if written+dropped != all || dropped == 0 || written < 50 {
		t.Errorf("%d lines, %d dropped, of %d", written, dropped, all)
	}
}

func TestBacklogOfAFullDisk(t *testing.T) {
	r := &reader{here: make(chan struct{}), fail: errors.New("no space")}
	b := told(r, 1000)
	fmt.Fprintln(b, "lost")
	close(r.here)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		b.mu.Lock()
		lost := b.lost
		b.mu.Unlock()
		if lost == 1 {
			break
		}
	}
	r.mu.Lock()
	tries := r.came
	r.fail = nil
	r.mu.Unlock()
	fmt.Fprintln(b, "next")
	b.close()
	if got := r.text.String(); got != "next\ndropped 1\n" || tries != 1 {
		t.Errorf("%q after %d tries", got, tries)
	}
}

func TestCloseDoesNotWaitForAReader(t *testing.T) {
	r := &reader{here: make(chan struct{})}
	defer close(r.here)
	b := told(r, 1000)
	fmt.Fprintln(b, "line")
	done := make(chan struct{})
	go func() {
		b.close()
		writeLastLine(r, "the last line")
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("still waiting")
	}
}

// The second signal within a moment is the first one's echo (timeout(1) sends two): it must not end
// the program, which is ending in order. It would end this test.
func TestEchoOfASignal(t *testing.T) {
	ctx, stop := interruptible()
	defer stop()
	for range 2 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(patience):
			t.Fatal("the context goes on")
		}
	}
	time.Sleep(signalEcho / 2)
}
