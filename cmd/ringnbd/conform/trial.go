// One run of one check: its verdict, its connections and its deadline.
//
// Invariant: a check ends within its deadline, whatever the server does: every connection of the
// trial carries it. A verdict ends the check by a panic of a type of its own (ended), which only
// the suite catches.

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

// trial is a run of a check. Its methods are for the goroutine that runs the check.
type trial struct {
	profile  *Profile
	target   Target
	readOnly Target // with a read-only export; Network is "" without
	deadline time.Time
	patience time.Duration // the time of a check
	differs  []string      // the deviations that the check noted

	lock    sync.Mutex // guards the fields below: the suite closes what a check that hangs opened
	conns   []net.Conn
	stopped bool // no connection may be open any more
}

// ended is the value of the panic by which a check ends with its verdict.
type ended struct {
	verdict Verdict
	detail  string
}

// failf ends the check: the server violates the rule. The text says what was seen and what was
// expected.
func (t *trial) failf(format string, args ...any) {
	panic(ended{Fail, fmt.Sprintf(format, args...)})
}

// skip ends the check, with the reason why it does not apply to this server.
func (t *trial) skip(format string, args ...any) {
	panic(ended{Skip, fmt.Sprintf(format, args...)})
}

// differ notes a deviation that the protocol allows, and the check goes on. It can still fail.
func (t *trial) differ(format string, args ...any) {
	t.differs = append(t.differs, fmt.Sprintf(format, args...))
}

// want fails unless ok.
func (t *trial) want(ok bool, format string, args ...any) {
	if !ok {
		t.failf(format, args...)
	}
}

// prefer notes a deviation unless ok.
func (t *trial) prefer(ok bool, format string, args ...any) {
	if !ok {
		t.differ(format, args...)
	}
}

// export returns the name of the export.
func (t *trial) export() string { return t.target.Export }

// left returns the time until the check's deadline.
func (t *trial) left() time.Duration { return time.Until(t.deadline) }

// sleep waits for d, but not beyond the deadline.
func (t *trial) sleep(d time.Duration) { time.Sleep(min(d, t.left())) }

// image opens the image under the server for reading; see needImage.
func (t *trial) image() *os.File {
	f, err := os.Open(t.profile.Image)
	if err != nil {
		t.skip("the image cannot be opened: %v", err)
	}
	return f
}

// dial connects, and reads nothing.
func (t *trial) dial() *conn { return t.dialAt(t.target) }

func (t *trial) dialAt(target Target) *conn {
	raw, err := target.Connect(context.Background(),
		&net.Dialer{Timeout: max(t.left(), time.Millisecond)})
	if err != nil {
		t.failf("no connection: %v", err)
	}
	t.lock.Lock()
	t.conns = append(t.conns, raw)
	stopped := t.stopped
	t.lock.Unlock()
	if stopped {
		t.closeAll()
		t.failf("interrupted")
	}
	if err := raw.SetDeadline(t.deadline); err != nil {
		t.failf("no deadline: %v", err)
	}
	c := newConn(t, raw)
	c.mayChange = pick(target == t.readOnly, t.profile.ReadOnlyChange, t.profile.Writable)
	return c
}

// stop closes all connections, and those that will be opened, so that every read from them fails at
// once. It may be called from any goroutine.
func (t *trial) stop() {
	t.lock.Lock()
	t.stopped = true
	t.lock.Unlock()
	t.closeAll()
}

// closeAll closes the connections that the check opened.
func (t *trial) closeAll() {
	t.lock.Lock()
	defer t.lock.Unlock()
	for _, c := range t.conns {
		_ = c.Close() // the check may have closed it already
	}
	t.conns = nil
}

// try runs a part of a check and returns the failure that it ends with, or "".
func (t *trial) try(f func()) (problem string) {
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

// clientFlags returns the client flags of a polite client: those of the server's that exist.
func (t *trial) clientFlags(handshake uint16) uint32 {
	return uint32(handshake & (proto.FlagFixedNewstyle | proto.FlagNoZeroes))
}

// join makes one text of several deviations.
func join(list []string) string { return strings.Join(list, "; ") }
