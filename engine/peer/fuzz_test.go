// A server that sends anything: the client says what is wrong, or believes it, but never hangs, crashes or keeps a request.

package peer

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"ringnbd/proto"
)

// FuzzTransmission sends bytes after an honest negotiation, then closes. Cookies are made right in those that are chunks of what is asked, so that more than the first
// comparison is reached.
func FuzzTransmission(f *testing.F) {
	q := asked{cookie: 1 << 16, offset: 8192, length: 4096}
	x := q
	x.extended = true
	f.Add(uint8(Simple), simple(q, 0, make([]byte, 4096)))
	f.Add(uint8(Simple), simple(q, 5))
	f.Add(uint8(Structured), append(chunk(q, 0, 1, uint64(8192), make([]byte, 2048)), chunk(q, done, 2, uint64(8192+2048), uint32(2048))...))
	f.Add(uint8(Structured), chunk(q, done, 5, uint32(1), uint32(512), uint32(0)))
	f.Add(uint8(Extended), chunk(x, done, 6, uint32(1), uint32(1), uint64(512), uint64(0)))
	f.Add(uint8(Extended), chunk(x, done, 0x8002, uint32(5), uint16(3), "bad", uint64(8192)))
	f.Fuzz(func(t *testing.T, most uint8, answer []byte) {
		if len(answer) > 16<<10 {
			return
		}
		protocol := Simple + Protocol(most)%3
		for _, command := range []uint16{proto.CmdRead, proto.CmdBlockStatus, proto.CmdFlush} {
			if command == proto.CmdBlockStatus && protocol == Simple {
				continue
			}
			ours, theirs := pair(t)
			s := Session{Protocol: protocol, Contexts: []Context{{ID: 1, Name: "base:allocation"}}}
			s.Size, s.Flags = 1<<20, proto.FlagHasFlags|proto.FlagSendFlush
			c, err := newConn(ours, s, "fuzz", Options{Timeout: 10 * time.Second}.complete())
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_, _ = io.ReadFull(theirs, make([]byte, proto.RequestSize)) // the request: slot 63, turn 1
				_, _ = theirs.Write(answer)
				_ = theirs.Close()
			}()
			r := &Request{Command: command, Offset: 8192, Length: 4096, Context: 1}
			if command == proto.CmdRead {
				r.Data = make([]byte, 4096)
			}
			began := time.Now()
			err = c.Do(context.Background(), r)
			if time.Since(began) > 5*time.Second {
				t.Errorf("%d: hung: %v", command, err)
			}
			if err == nil && command == proto.CmdBlockStatus && len(r.Extents) == 0 {
				t.Error("a block status without extents")
			}
			c.Abort(ErrClosed)
		}
	})
}

// pair is the two ends of a connection.
func pair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "", Net: "unix"}) // the kernel chooses a name
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}
