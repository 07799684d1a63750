// The oldstyle door with real sockets: what a client is told, who finds the door closed, and that
// every place comes back.

package gate

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ringnbd/proto"
)

// old opens an oldstyle door to an export, besides the gate's own, and returns its address.
func (s *served) old(t *testing.T, spec, export string) net.Addr {
	t.Helper()
	l, _ := listen(t, spec)
	ended := make(chan error, 1)
	go func() { ended <- s.ServeOldstyle(l, export) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; err != nil {
			t.Errorf("ServeOldstyle: %v", err)
		}
	})
	return l.Addr()
}

// call connects and says nothing.
func call(t *testing.T, a net.Addr) *caller {
	t.Helper()
	c, err := net.Dial(a.Network(), a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &caller{c, t}
}

// banner reads an oldstyle banner.
func (c *caller) banner() proto.Export {
	c.t.Helper()
	var e proto.Export
	if err := proto.ParseOldstyleBanner(c.read(proto.OldstyleBannerSize), &e); err != nil {
		c.t.Fatal(err)
	}
	return e
}

func TestOldstyleIsToldAndIn(t *testing.T) {
	kinds(t, func(t *testing.T, spec string) {
		s := serve(t, "localhost:0", nil)
		a := s.old(t, spec, "other")
		// a request sent without waiting for the banner is the engine's too
		for _, ahead := range []bool{false, true} {
			c := call(t, a)
			if ahead {
				c.send(read28())
			}
			const flags = proto.FlagHasFlags | proto.FlagReadOnly
			if e := c.banner(); e.Size != 1<<20 || e.Flags != flags {
				t.Errorf("the banner is %+v", e)
			}
			fd := s.adopted(t)
			if !ahead {
				c.send(read28())
			}
			b := make([]byte, 100)
			if n, err := syscall.Read(fd, b); err != nil || !bytes.Equal(b[:n], read28()) {
				t.Errorf("the engine reads %x, %v", b[:n], err)
			}
		}
		s.wait(t, reasonServed, 2)
		if s.engine.export[0] != 2 || s.engine.export[1] != 2 {
			t.Errorf("exports %v", s.engine.export)
		}
		if s.engine.agreed[0] != (proto.Session{}) {
			t.Errorf("agreed on %+v without a word", s.engine.agreed[0])
		}
		// the other door speaks newstyle as ever
		if kind, text := s.hello(t).go_("disk"); kind != ack {
			t.Error(text)
		}
		s.adopted(t)
	})
}

func TestOldstyleOfAFullServer(t *testing.T) {
	s := serve(t, "localhost:0", func(c *Config) { c.MaxConnections = 2 })
	a := s.old(t, "localhost:0", "")
	s.hello(t).go_("disk")
	s.adopted(t)
	call(t, a).banner()
	s.adopted(t)
	for range 5 {
		call(t, a).closed()
	}
	s.wait(t, reasonFull, 5)
	if kind, _ := s.hello(t).go_("disk"); kind != proto.RepErrPolicy {
		t.Errorf("newstyle: %#x", kind) // both doors count together
	}
	s.engine.drop()
	call(t, a).banner()
	s.adopted(t)
	s.wait(t, reasonServed, 3)
	if !strings.Contains(s.log.String(), "server full") ||
		!strings.Contains(s.log.String(), "oldstyle=true") {
		t.Errorf("log: %s", s.log)
	}
}

func TestOldstyleNeverMoreThanMaxConnections(t *testing.T) {
	const limit, clients = 5, 40
	s := serve(t, "localhost:0", func(c *Config) { c.MaxConnections = limit })
	a := s.old(t, "localhost:0", "")
	var group sync.WaitGroup
	var mu sync.Mutex
	in := 0
	for range clients {
		group.Go(func() {
			c, err := net.Dial("tcp", a.String())
			if err != nil {
				return
			}
			defer c.Close()
			c.SetReadDeadline(time.Now().Add(30 * time.Second))
			n, _ := io.ReadFull(c, make([]byte, proto.OldstyleBannerSize))
			if n == proto.OldstyleBannerSize {
				mu.Lock()
				in++
				mu.Unlock()
				c.SetReadDeadline(time.Now().Add(300 * ms)) // it stays for a while
				if more, _ := io.Copy(io.Discard, c); more != 0 {
					t.Errorf("%d bytes behind the banner", more)
				}
			} else if n != 0 {
				t.Errorf("%d bytes of a banner", n)
			}
		})
	}
	group.Wait()
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	if s.engine.most == 0 || s.engine.most > limit || in != len(s.engine.fds) {
		t.Errorf("%d connections at a time, limit %d; %d were told and %d are in", s.engine.most,
			limit, in, len(s.engine.fds))
	}
}

func TestOldstyleAtACrowdedGate(t *testing.T) {
	s := serve(t, "localhost:0", func(c *Config) { c.MaxConnections = 1 })
	a := s.old(t, "localhost:0", "")
	for range 1 + slack {
		s.dial(t)
	}
	call(t, a).closed()
	s.wait(t, reasonCrowded, 1)
}

// pipes is a listener of connections without buffers: what is written waits until it is read.
type pipes struct {
	net.Listener
	came chan net.Conn
}

func (p *pipes) Accept() (net.Conn, error) {
	if c, ok := <-p.came; ok {
		return c, nil
	}
	return p.Listener.Accept()
}

func TestOldstyleClientThatDoesNotReadItsBanner(t *testing.T) {
	const limit = 300 * ms
	s := serve(t, "localhost:0", func(c *Config) {
		c.MaxConnections, c.HandshakeTimeout = 1, limit
	})
	l, _ := listen(t, "localhost:0")
	p := &pipes{l, make(chan net.Conn)}
	done := sync.OnceFunc(func() { close(p.came) })
	defer done() // the gate cannot close while Accept waits here
	ended := make(chan error, 1)
	go func() { ended <- s.ServeOldstyle(p, "") }()
	began := time.Now()
	// one that reads nothing, one that stops in the middle; each has the only place, and gives it
	// back
	for range 2 {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		p.came <- ours
		theirs.Read(make([]byte, 100))
		s.wait(t, reasonTimeout, s.count(reasonTimeout)+1)
	}
	if took := time.Since(began); took < 2*limit || took > 2*limit+20*time.Second {
		t.Errorf("closed after %v", took)
	}
	done()
	if kind, text := s.hello(t).go_("disk"); kind != ack {
		t.Errorf("their places are not given back: %s", text)
	}
	s.adopted(t)
	s.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestOldstyleHalfOpenClients(t *testing.T) {
	kinds(t, func(t *testing.T, spec string) {
		s := serve(t, "localhost:0", nil)
		a := s.old(t, spec, "disk")
		c := call(t, a)
		if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.banner() // it may still get a banner; the engine notices that nothing more arrives
		if n, err := syscall.Read(s.adopted(t), make([]byte, 1)); n != 0 || err != nil {
			t.Errorf("%d %v", n, err)
		}
		const many = 500
		for i := range many {
			c, err := net.Dial(a.Network(), a.String())
			if err != nil {
				t.Fatal(err)
			}
			// some hang up before the banner, some in it, some after
			c.Read(make([]byte, i%4*proto.OldstyleBannerSize/3))
			c.Close()
		}
		for end := time.Now().Add(10 * time.Second); s.sum() < 1+many && time.Now().Before(end); {
			time.Sleep(ms)
		}
		if s.sum() != 1+many || s.accepted.Load() != 1+many || s.count(reasonTimeout) != 0 {
			t.Errorf("accepted %d, ended %d, %d of them late", s.accepted.Load(), s.sum(),
				s.count(reasonTimeout))
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.reserved != 0 || len(s.handshakes) != 0 {
			t.Errorf("%d places are kept for nobody, %d handshakes", s.reserved, len(s.handshakes))
		}
	})
}

func TestOldstyleAndClose(t *testing.T) {
	s := serve(t, "localhost:0", nil)
	path := shortDir(t) + "/old"
	a := s.old(t, "unix:"+path, "disk")
	served := call(t, a)
	served.banner()
	fd := s.adopted(t)
	s.Close()
	if _, err := net.Dial(a.Network(), a.String()); err == nil {
		t.Error("still listening")
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket file is still there: %v", err)
	}
	served.send([]byte("x"))
	if n, err := syscall.Read(fd, make([]byte, 2)); n != 1 || err != nil {
		t.Errorf("a connection being served: %d %v", n, err)
	}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ours.SetDeadline(time.Now().Add(5 * time.Second))
	h := handshake{gate: s.Gate, conn: ours}
	if event, err := h.greet(""); h.reason(event, err) != reasonShutdown || h.reserved {
		t.Errorf("one that comes while closing: %+v %v, reserved %t", event, err, h.reserved)
	}
	ours.Close()
}

func TestOldstyleRefusedByEngine(t *testing.T) {
	s := serve(t, "localhost:0", func(c *Config) { c.MaxConnections = 1 })
	s.engine.refuse = errors.New("no loop takes it")
	a := s.old(t, "localhost:0", "")
	for i := range 3 {
		c := call(t, a)
		c.banner()
		c.closed()
		s.wait(t, reasonRejected, uint64(i+1))
	}
}
