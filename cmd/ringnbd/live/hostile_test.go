// Hostile clients together with a good client: whatever they do, the good client is served
// correctly and the server stays within its memory.

package live_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// attack does its worst on fresh connections and returns them still open.
type attack func(s *server) ([]net.Conn, error)

var attacks = map[string]attack{
	"Silence": func(s *server) ([]net.Conn, error) { return strangers(s, 20, nil) },
	"Garbage": func(s *server) ([]net.Conn, error) {
		return strangers(s, 20, pattern(100_000, 13))
	},
	"HalfAnOption": func(s *server) ([]net.Conn, error) {
		return strangers(s, 20, []byte("\x00\x00\x00\x03IHAVEOPT\x00\x00"))
	},
	"OptionOfFourGiB": func(s *server) ([]net.Conn, error) {
		return strangers(s, 20, fourGiBOption)
	},
	"HalfAHeader":       halfHeader,
	"GarbageHeader":     garbageHeader,
	"HalfAPayload":      halfPayload,
	"WriteOfFourGiB":    hugeWrite,
	"NeverReads":        neverReads,
	"OneByteAtATime":    oneByteAtATime,
	"HeadersWithoutEnd": manyHeaders,
	"LeavesInTheMiddle": leavesInTheMiddle,
	"EveryErrorThereIs": everyError,
	"HalfClosesItsSide": halfCloses,
}

var fourGiBOption = append([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\xff\xff\xff\xff"),
	make([]byte, 200_000)...)

// strangers connect n times, send bytes without listening and stay.
func strangers(s *server, n int, say []byte) (open []net.Conn, err error) {
	for range n {
		c, err := dialRaw(s.address)
		if err != nil {
			return open, err
		}
		open = append(open, c)
		c.SetWriteDeadline(time.Now().Add(time.Second))
		c.Write(say) // may fail: the server may have hung up on us
	}
	return open, nil
}

// members negotiate n connections and do something on each.
func members(s *server, n int, do func(p *peer, i int)) (open []net.Conn, err error) {
	for i := range n {
		p, err := connect(s.address, s.export)
		if err != nil {
			return open, err
		}
		open = append(open, p.conn)
		p.conn.SetWriteDeadline(time.Now().Add(time.Second))
		do(p, i)
	}
	return open, nil
}

func halfHeader(s *server) ([]net.Conn, error) {
	return members(s, 20, func(p *peer, i int) {
		p.conn.Write(header(cmdRead, 0, 1, 0, 4096)[:1+i])
	})
}

func garbageHeader(s *server) ([]net.Conn, error) {
	return members(s, 20, func(p *peer, i int) { p.conn.Write(pattern(28*1000, uint64(i))) })
}

func halfPayload(s *server) ([]net.Conn, error) {
	return members(s, 20, func(p *peer, i int) {
		// To a place that the good client does not use.
		p.conn.Write(append(header(cmdWrite, 0, 1, goodSpan, 1<<20), make([]byte, 1<<19)...))
	})
}

func hugeWrite(s *server) ([]net.Conn, error) {
	return members(s, 5, func(p *peer, i int) {
		p.conn.Write(append(header(cmdWrite, 0, 1, goodSpan, 0xffffffff), make([]byte, 1<<20)...))
	})
}

// neverReads asks for more than the server has memory for and takes nothing of it.
// The pause lets the server get stuck before the good client comes.
func neverReads(s *server) ([]net.Conn, error) {
	open, err := members(s, 8, func(p *peer, i int) {
		for k := range 64 {
			p.conn.Write(header(cmdRead, 0, uint64(k), 0, 32<<20))
		}
	})
	time.Sleep(300 * time.Millisecond)
	return open, err
}

func oneByteAtATime(s *server) ([]net.Conn, error) {
	return members(s, 10, func(p *peer, i int) {
		for _, b := range append(header(cmdWrite, 0, 1, goodSpan, 4096), make([]byte, 500)...) {
			p.conn.Write([]byte{b})
		}
	})
}

func manyHeaders(s *server) ([]net.Conn, error) {
	return members(s, 4, func(p *peer, i int) {
		var all []byte
		for k := range 20_000 {
			all = append(all, header(cmdRead, 0, uint64(k), uint64(k%1000)*4096, 4096)...)
		}
		p.conn.Write(all)
	})
}

func leavesInTheMiddle(s *server) ([]net.Conn, error) {
	open, err := members(s, 100, func(p *peer, i int) {
		p.conn.Write(append(header(cmdRead, 0, 1, 0, 1<<20),
			header(cmdWrite, 0, 2, goodSpan, 1<<20)...))
		p.conn.Write(make([]byte, i*1000))
		p.conn.Close()
	})
	return open, err
}

func everyError(s *server) ([]net.Conn, error) {
	return members(s, 4, func(p *peer, i int) {
		random := rand.New(rand.NewPCG(uint64(i), 3))
		for k := range 1000 { // READ, and unknown commands: nothing that changes the disk
			p.conn.Write(header(uint16(random.IntN(2)*9), uint16(random.Uint32()), uint64(k),
				random.Uint64(), uint32(random.IntN(1<<20))))
		}
	})
}

func halfCloses(s *server) ([]net.Conn, error) {
	return members(s, 10, func(p *peer, i int) {
		p.conn.Write(header(cmdRead, 0, 1, 0, 1<<20))
		if c, ok := p.conn.(interface{ CloseWrite() error }); ok {
			c.CloseWrite()
		}
	})
}

// goodSpan is the part of the disk that belongs to the good client.
const goodSpan = 8 << 20

// good reads and writes for a time and checks every byte. No request, not even
// the first one of 8 MiB, may take longer than patience.
func good(p *peer, limit time.Duration, seed uint64) (n int, err error) {
	model := make([]byte, goodSpan)
	if err := p.write(0, model); err != nil {
		return 0, err
	}
	random := rand.New(rand.NewPCG(seed, 5))
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); n++ {
		offset := random.IntN(goodSpan - 70_000)
		data := pattern(1+random.IntN(70_000), seed+uint64(n))
		if err := p.write(uint64(offset), data); err != nil {
			return n, err
		}
		copy(model[offset:], data)
		offset = random.IntN(goodSpan - 70_000)
		got, err := p.read(uint64(offset), 70_000)
		if err != nil || !bytes.Equal(got, model[offset:offset+70_000]) {
			return n, fmt.Errorf("read at %d: equal %t, %w", offset,
				bytes.Equal(got, model[offset:offset+70_000]), err)
		}
	}
	return n, nil
}

func TestHostileClientsDoNotDisturbAGoodOne(t *testing.T) {
	for name, do := range attacks {
		t.Run(name, func(t *testing.T) {
			const memory = 192 << 20
			s := serve(t, measure.Unix, sparseImage(t, 64<<20), "--memory", fmt.Sprint(memory),
				"--loops", "2")
			p := s.dial(t)
			open, err := do(s)
			defer func() {
				for _, c := range open {
					c.Close()
				}
			}()
			if err != nil {
				t.Fatal(err)
			}
			n, err := good(p, 500*time.Millisecond, 1)
			if err != nil {
				t.Errorf("the good client, after %d rounds: %v", n, err)
			}
			// A newcomer is served as well while they are still there.
			if _, err := s.dial(t).read(0, 4096); err != nil {
				t.Errorf("a new connection: %v", err)
			}
			if peak := s.status("VmHWM"); underTest == "ringnbd" && peak > memory+overhead {
				t.Errorf("peak resident memory %d MiB is above --memory %d MiB and %d MiB",
					peak>>20, memory>>20, overhead>>20)
			}
			t.Logf("%d rounds of the good client", n)
		})
	}
}

// The part of a long READ that a slow client has read is memory for others at once, not only after
// the last byte. A single loop has memory for one request of the largest size; a client that has
// read 16 of 64 MiB, and then stops for a while, does not delay requests of 8 MiB.
func TestReadPartOfALongReplyFreesItsMemory(t *testing.T) {
	onlyRingnbd(t)
	s := serve(t, measure.Unix, randomImage(t, 64<<20, 2), "--loops", "1")
	slow, p := s.dial(t), s.dial(t)
	if _, err := slow.conn.Write(header(cmdRead, 0, 1, 0, 64<<20)); err != nil {
		t.Fatal(err)
	}
	taken := make([]byte, 16<<20+16)
	if _, err := io.ReadFull(slow.conn, taken); err != nil {
		t.Fatal(err)
	}
	got, err := p.read(8<<20, 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, taken[16+8<<20:]) {
		t.Error("the clients read different bytes at the same offset")
	}
	// The server cuts a client that stands still while others have waited for three seconds: the
	// slow client was not cut, so no client has waited that long.
	rest := make([]byte, 48<<20)
	if _, err := io.ReadFull(slow.conn, rest); err != nil {
		t.Fatalf("the slow client lost its reply: %v", err)
	}
	if want, err := p.read(56<<20, 8<<20); err != nil || !bytes.Equal(rest[40<<20:], want) {
		t.Errorf("the end of the slow client's data is wrong (%v)", err)
	}
}

// Two clients read 64 MiB each, slowly. The second must wait for the first, because a loop has not
// that much memory; a client with a request that fits in the rest must not wait. At this pace the 2
// MiB of the third client would take longer than the test gives the first two.
func TestWaitingLargeRequestsDoNotDelaySmallOnes(t *testing.T) {
	onlyRingnbd(t)
	s := serve(t, measure.Unix, randomImage(t, 64<<20, 3), "--loops", "1")
	slow := []*peer{s.dial(t), s.dial(t)}
	stop := make(chan struct{})
	var drips sync.WaitGroup
	for _, p := range slow {
		if _, err := p.conn.Write(header(cmdRead, 0, 1, 0, 64<<20)); err != nil {
			t.Fatal(err)
		}
		drips.Go(func() { // 1.6 MB/s: above what is called standing still
			for b := make([]byte, 80_000); ; time.Sleep(50 * time.Millisecond) {
				select {
				case <-stop:
					return
				default:
				}
				p.conn.SetReadDeadline(time.Now().Add(time.Second))
				p.conn.Read(b)
			}
		})
		time.Sleep(200 * time.Millisecond) // so that one is first
	}
	p := s.dial(t)
	done := make(chan error, 1)
	go func() {
		for range 20 {
			if _, err := p.read(1<<20, 2<<20); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(15 * time.Second):
		t.Error("twenty reads of 2 MiB were not answered in 15 s beside two clients that want " +
			"64 MiB and take their time")
	}
	close(stop)
	drips.Wait()
}

// A crowd of clients read 2 MiB each, again and again: more than there is memory for, so that all
// have to wait, and none of them for ever.
func TestACrowdOfLongRequestsIsServed(t *testing.T) {
	onlyRingnbd(t)
	s := serve(t, measure.Unix, randomImage(t, 64<<20, 4), "--loops", "1")
	errs := make(chan error)
	for range 64 {
		p := s.dial(t)
		go func() {
			var err error
			for k := 0; k < 10 && err == nil; k++ {
				_, err = p.read(uint64(k)<<20, 2<<20)
			}
			errs <- err
		}()
	}
	timeout := time.After(time.Minute)
	for range 64 {
		select {
		case err := <-errs:
			if err != nil {
				t.Error(err)
			}
		case <-timeout:
			t.Fatal("640 reads of 2 MiB by 64 clients were not answered in a minute")
		}
	}
}

func TestHandshakeThatStopsIsEnded(t *testing.T) {
	onlyRingnbd(t)
	s := serve(t, measure.TCP, sparseImage(t, 1<<20), "--handshake-timeout", "1s")
	open, err := strangers(s, 3, []byte("\x00\x00\x00\x03IHAVEOPT\x00"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range open {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		for b := make([]byte, 64); err == nil; {
			_, err = c.Read(b)
		}
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Error("still open 5 s later with --handshake-timeout 1s")
		}
		c.Close()
		err = nil
	}
}
