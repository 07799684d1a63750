// A server that sends any bytes: the client returns an error, or believes them, but never hangs,
// crashes or keeps a request.

package client

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"ringnbd/proto"
)

// FuzzTransmission sends bytes after an honest negotiation, then closes. Cookies of chunks are
// corrected, so that more than the first comparison is reached.
func FuzzTransmission(f *testing.F) {
	q := asked{cookie: 1 << 16, offset: 8192, length: 4096}
	x := q
	x.extended = true
	f.Add(uint8(proto.Simple), simple(q, 0, make([]byte, 4096)))
	f.Add(uint8(proto.Simple), simple(q, 5))
	f.Add(uint8(proto.Structured),
		append(chunk(q, 0, 1, uint64(8192), make([]byte, 2048)),
			chunk(q, done, 2, uint64(8192+2048), uint32(2048))...))
	f.Add(uint8(proto.Structured), chunk(q, done, 5, uint32(1), uint32(512), uint32(0)))
	f.Add(uint8(proto.Extended), chunk(x, done, 6, uint32(1), uint32(1), uint64(512), uint64(0)))
	f.Add(uint8(proto.Extended), chunk(x, done, 0x8002, uint32(5), uint16(3), "bad", uint64(8192)))
	f.Fuzz(func(t *testing.T, most uint8, answer []byte) {
		if len(answer) > 16<<10 {
			return
		}
		framing := proto.Framing(most % 3)
		for _, command := range []uint16{proto.CmdRead, proto.CmdBlockStatus, proto.CmdFlush} {
			if command == proto.CmdBlockStatus && framing == proto.Simple {
				continue
			}
			ours, theirs := pair(t)
			s := Negotiated{Framing: framing,
				contexts: []selectedContext{{id: 1, name: "base:allocation"}}}
			s.Size, s.Flags = 1<<20, proto.FlagHasFlags|proto.FlagSendFlush
			c, err := newConn(ours, s, "fuzz", Options{Timeout: 10 * time.Second}.complete())
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				// the request: slot 63, turn 1
				_, _ = io.ReadFull(theirs, make([]byte, proto.RequestSize))
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
			c.fail(ErrClosed)
			<-c.readerDone
		}
	})
}

// FuzzNegotiation sends bytes from the beginning, then closes: the result is an export within the
// protocol's limits, or an error.
func FuzzNegotiation(f *testing.F) {
	banner := be("NBDMAGICIHAVEOPT", uint16(3))
	f.Add(oldBanner(1<<20, 1))
	f.Add(oldBanner(1<<63, 0xffffffff))
	f.Add(be(oldBanner(1<<20, 0)[:150]))
	f.Add(be("NBDMAGICIHAVEOPT", uint16(0), uint64(1<<20), uint16(1), make([]byte, 124)))
	f.Add(be("NBDMAGICIHAVEOPT", uint16(2), uint64(1<<20), uint16(1)))
	f.Add(be(banner, rep(11, 1), rep(9, 4, uint32(1), "base:allocation"), rep(9, 1),
		rep(10, 4, uint32(1), "base:allocation"), rep(10, 1),
		rep(7, 3, uint16(3), uint32(512), uint32(4096), uint32(1<<20)),
		rep(7, 3, uint16(0), uint64(1<<20), uint16(1)), rep(7, 1)))
	f.Add(be(banner, rep(11, 1<<31+1), rep(8, 1<<31+1), rep(7, 1<<31+6, "none")))
	f.Fuzz(func(t *testing.T, says []byte) {
		if len(says) > 16<<10 {
			return
		}
		ours, theirs := pair(t)
		defer ours.Close()
		defer theirs.Close()
		_ = ours.SetDeadline(time.Now().Add(10 * time.Second))
		go func() {
			_, _ = theirs.Write(says)
			_ = theirs.(*net.UnixConn).CloseWrite()
			_, _ = io.Copy(io.Discard, theirs)
		}()
		began := time.Now()
		s, err := negotiate(ours, "disk",
			Options{Offered: true, Contexts: []string{"base:allocation"},
				Nameless: true}.complete())
		if time.Since(began) > 5*time.Second {
			t.Errorf("hung: %v", err)
		}
		switch {
		case err != nil && strings.Contains(err.Error(), "\x1b"):
			t.Errorf("unquoted: %v", err)
		case err == nil &&
			(s.Size > 1<<63-1 || s.MinBlock > 64<<10 || !proto.ValidString(s.Name) ||
				len(s.contexts) > maxContexts):
			t.Errorf("%+v", s)
		case err == nil && s.Oldstyle &&
			(s.Framing != proto.Simple || s.Name != "" ||
				s.Flags != 0 && s.Flags&proto.FlagHasFlags == 0):
			t.Errorf("%+v", s)
		}
	})
}

// pair returns the two ends of a connection.
func pair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	// the kernel chooses a name
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "", Net: "unix"})
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
