// What a check has in its hands: its verdict, its connections, its deadline, and the data it may
// expect.
//
// Invariant: a check ends within its deadline, whatever the server does: every connection that T
// opens carries it, and what T ends, it ends by a panic of its own type that only the suite
// catches.

package conform

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"ringnbd/proto"
)

// T is one run of one check. Its methods are for the goroutine that runs the check.
type T struct {
	facts    *Facts
	target   Target
	readOnly Target // with a read-only export; Network is empty without one
	deadline time.Time
	patience time.Duration
	differs  []string
	lock     sync.Mutex // guards conns, which a hung check's suite closes
	conns    []net.Conn
	stopped  bool // no connection may live any longer
}

// ended is what a check panics with when it has its verdict.
type ended struct {
	verdict Verdict
	detail  string
}

// Failf ends the check: the server violates the rule. The text says what was seen and what was
// expected.
func (t *T) Failf(format string, args ...any) { panic(ended{Fail, fmt.Sprintf(format, args...)}) }

// Skip ends the check, with the reason why it cannot be made here.
func (t *T) Skip(format string, args ...any) { panic(ended{Skip, fmt.Sprintf(format, args...)}) }

// Differ notes a deviation that the spec allows, and goes on. What is seen later can still fail.
func (t *T) Differ(format string, args ...any) {
	t.differs = append(t.differs, fmt.Sprintf(format, args...))
}

// Want fails unless ok; Prefer differs unless ok. They read well in a row of observations.
func (t *T) Want(ok bool, format string, args ...any) {
	if !ok {
		t.Failf(format, args...)
	}
}

// Prefer notes a deviation unless ok.
func (t *T) Prefer(ok bool, format string, args ...any) {
	if !ok {
		t.Differ(format, args...)
	}
}

// Export is the name that the suite was given.
func (t *T) Export() string { return t.target.Export }

// Left is the time until the check's deadline.
func (t *T) Left() time.Duration { return time.Until(t.deadline) }

// Sleep waits, at most until the deadline.
func (t *T) Sleep(d time.Duration) { time.Sleep(min(d, t.Left())) }

// Image opens the image under the server for reading; see NeedImage.
func (t *T) Image() *os.File {
	f, err := os.Open(t.facts.Image)
	if err != nil {
		t.Skip("the image cannot be opened: %v", err)
	}
	return f
}

// Dial connects and reads nothing.
func (t *T) Dial() *Conn { return t.dial(t.target) }

func (t *T) dial(target Target) *Conn {
	raw, err := target.Connect(context.Background(),
		&net.Dialer{Timeout: max(t.Left(), time.Millisecond)})
	if err != nil {
		t.Failf("no connection: %v", err)
	}
	t.lock.Lock()
	t.conns = append(t.conns, raw)
	stopped := t.stopped
	t.lock.Unlock()
	if stopped {
		t.closeAll()
		t.Failf("interrupted")
	}
	if err := raw.SetDeadline(t.deadline); err != nil {
		t.Failf("no deadline: %v", err)
	}
	c := newConn(t, raw)
	c.mayChange = pick(target == t.readOnly, t.facts.ReadOnlyChange, t.facts.Writable)
	return c
}

// stop closes what is open, and what will be opened: whoever reads from it fails at once. It may be
// called from any goroutine.
func (t *T) stop() {
	t.lock.Lock()
	t.stopped = true
	t.lock.Unlock()
	t.closeAll()
}

// closeAll closes what the check opened.
func (t *T) closeAll() {
	t.lock.Lock()
	defer t.lock.Unlock()
	for _, c := range t.conns {
		_ = c.Close() // closed twice is no harm
	}
	t.conns = nil
}

// Try runs part of a check and gives the failure that it ends with, or "".
func (t *T) Try(f func()) (problem string) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case ended:
			problem = e.detail
		default:
			panic(e)
		}
	}()
	f()
	return ""
}

// clientFlags are the flags that a polite client answers with: those that the server offers and
// that exist.
func (t *T) clientFlags(handshake uint16) uint32 {
	return uint32(handshake & (proto.FlagFixedNewstyle | proto.FlagNoZeroes))
}

// join is the text of several deviations.
func join(list []string) string { return strings.Join(list, "; ") }
