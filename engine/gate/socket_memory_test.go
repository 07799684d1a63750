// What the kernel holds for clients that take no replies.

package gate

import (
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Much of a batch of replies fits (reply.go of the engine ends it at 256 KiB; small
// net.core.wmem_max leave less), and not much more is held.
func TestSocketMemoryOfAClientThatTakesNothing(t *testing.T) {
	const least, asked = 128 << 10, 64 << 10
	kinds(t, func(t *testing.T, spec string) {
		s := serve(t, spec, nil)
		var theirs int
		d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
			return raw.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, asked)
				theirs, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
			})
		}}
		conn, err := d.Dial(s.addr.Network(), s.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		c := &caller{conn, t}
		c.read(18)
		c.send([]byte{0, 0, 0, 3})
		c.go_("disk")
		fd := s.adopted(t)
		taken, quiet := 0, 0
		for b := make([]byte, 16<<10); quiet < 20; {
			n, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_DONTWAIT)
			if taken += max(n, 0); err == nil {
				quiet = 0
				continue
			}
			quiet++ // what is on its way may still arrive, and make room
			time.Sleep(5 * time.Millisecond)
		}
		if taken < least || taken > SocketMemory+theirs {
			t.Errorf("%d KiB are held, of which %d KiB may be the client's own", taken>>10,
				theirs>>10)
		}
	})
}
