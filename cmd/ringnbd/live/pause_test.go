// A server that is stopped for a while, as by a debugger, a frozen cgroup or a
// paused machine: when it goes on, clients that waited for it are not to blame.

package live_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// pause is longer than what a loop or a handshake of these tests waits for.
const pause = 6 * time.Second

func (s *server) pauseFor(d time.Duration) {
	s.signal(syscall.SIGSTOP)
	time.Sleep(d)
	s.signal(syscall.SIGCONT)
}

// TestPauseWhileClientsWaitForMemory checks that clients that together ask for more memory than
// there is, and read all replies, are served after the pause.
func TestPauseWhileClientsWaitForMemory(t *testing.T) {
	onlyRingnbd(t)
	const clients, each, length = 24, 6, 16 << 20
	s := serve(t, measure.Unix, randomImage(t, 64<<20, 1), "--memory", "128M", "--loops", "1",
		"--max-connections", "32")
	var all sync.WaitGroup
	begun := make(chan bool, clients*each)
	errs := make(chan error, clients)
	for k := range clients {
		p := s.dial(t)
		all.Go(func() {
			for range each {
				p.send(cmdRead, 0, 0, length, nil)
			}
			for range each {
				if r, err := p.receive(); err != nil || r.errno != 0 {
					errs <- fmt.Errorf("connection %d: error %d: %v", k, r.errno, err)
					return
				}
				begun <- true
			}
		})
	}
	for range clients / 2 { // some have been served, and all others wait
		<-begun
	}
	s.pauseFor(pause)
	all.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

// TestPauseDuringHandshakes checks that the server reads what a client sent in time, although the
// server was paused then, and that it still closes a client that sends nothing.
func TestPauseDuringHandshakes(t *testing.T) {
	onlyRingnbd(t)
	s := serve(t, measure.Unix, sparseImage(t, 1<<20), "--handshake-timeout", "3s")
	var conns [2]net.Conn
	for i := range conns {
		c, err := net.Dial("unix", s.address.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.ReadFull(c, make([]byte, 18)); err != nil { // the greeting
			t.Fatal(err)
		}
		conns[i] = c
	}
	time.Sleep(500 * time.Millisecond) // the gate has looked at the clock since
	s.signal(syscall.SIGSTOP)
	speaks, silent := conns[0], conns[1]
	const list = "IHAVEOPT\x00\x00\x00\x03\x00\x00\x00\x00"
	// flags, and an option
	if _, err := speaks.Write([]byte("\x00\x00\x00\x03" + list)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(pause)
	s.signal(syscall.SIGCONT)
	replies := make([]byte, 20+4+20) // a name, which is empty, and the end of the list
	reply := replies[:20]
	for again := range 2 { // it has more to say, too
		if _, err := io.ReadFull(speaks, replies); err != nil ||
			binary.BigEndian.Uint32(reply[8:]) != 3 {
			t.Fatalf("list %d: a client that had spoken in time got % x: %v", again, replies, err)
		}
		if again == 0 {
			time.Sleep(300 * time.Millisecond)
			speaks.Write([]byte(list))
		}
	}
	if _, err := io.ReadFull(silent, reply); err != io.EOF {
		t.Errorf("a client that says nothing: %v", err)
	}
}
