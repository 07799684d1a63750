// Clients that hold shared resources: memory, requests in flight.
//
// Invariant: what they do is bounded in time and size, and none of them outlives its test.

package live_test

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// reads asks for 4 KiB again and again, one at a time, for a time and at least 30 times, and says
// how long each took, in order.
func reads(p *peer, limit time.Duration) (took []time.Duration, err error) {
	for start, i := time.Now(), 0; time.Since(start) < limit || i < 30; i++ {
		began := time.Now()
		if _, err := p.read(uint64(i%4096)<<12, 4096); err != nil {
			return took, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}

// crowd keeps connections that ask for 64 KiB, many times, and take no reply, for as long as its
// test runs. One that is cut comes back. warm of them take some replies first.
func crowd(t *testing.T, s *server, connections int, warm int) {
	t.Helper()
	done := make(chan struct{})
	var all sync.WaitGroup
	var ready sync.WaitGroup
	ready.Add(connections)
	for k := range connections {
		all.Go(func() {
			first := true
			for {
				p, err := connect(s.address, s.export)
				if err == nil {
					if k < warm {
						for i := range 20 {
							p.read(uint64(i)<<16, 64<<10)
						}
					}
					hog(p)
				}
				if first {
					ready.Done()
					first = false
				}
				if err == nil {
					ended := make(chan struct{})
					go func() { // it peeks at the end of the connection only
						defer close(ended)
						for err := error(nil); err == nil; {
							time.Sleep(50 * time.Millisecond)
							p.conn.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
							_, err = p.conn.Write(header(cmdRead, 0, 1, 0, 64<<10))
							if e, ok := err.(net.Error); ok && e.Timeout() {
								err = nil
							}
						}
					}()
					select {
					case <-ended:
					case <-done:
					}
					p.conn.Close()
					<-ended
				}
				select {
				case <-done:
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	ready.Wait()
	t.Cleanup(func() { close(done); all.Wait() })
}

// hog asks for 64 times 64 KiB and takes nothing.
func hog(p *peer) {
	var b []byte
	for k := range 64 {
		b = append(b, header(cmdRead, 0, uint64(1000+k), uint64(k)<<16, 64<<10)...)
	}
	p.conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	p.conn.Write(b)
}

// TestCrowdThatReadsNoReplies checks that 200 connections that ask for much, read nothing, and
// return when they are cut, do not keep an honest client from its 4 KiB, neither new connections
// nor connections that have read replies before.
func TestCrowdThatReadsNoReplies(t *testing.T) {
	onlyRingnbd(t)
	for _, c := range []struct {
		name        string
		connections int
		warm        int
		memory      string
	}{{"New", 200, 0, ""}, {"Warm", 40, 40, ""}, {"Least", 60, 20, "180M"}} {
		t.Run(c.name, func(t *testing.T) {
			flags := []string{"--max-connections", "300"}
			if c.memory != "" {
				flags = append(flags, "--memory", c.memory)
			}
			s := serve(t, measure.Unix, randomImage(t, 64<<20, 1), flags...)
			p, q := s.dial(t), s.dial(t) // on both loops, if there are two
			before, err := reads(p, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			crowd(t, s, c.connections, c.warm)
			for i, p := range []*peer{p, q, s.dial(t)} {
				took, err := reads(p, time.Second)
				if err != nil {
					t.Fatal(fmt.Errorf("client %d: %w", i, err))
				}
				t.Logf("client %d: %d reads, p50 %v, max %v; %d, %v, %v without the crowd",
					i, len(took), took[len(took)/2], took[len(took)-1],
					len(before), before[len(before)/2], before[len(before)-1])
				if most := max(20*before[len(before)/2], time.Second); took[len(took)/2] > most {
					t.Errorf("client %d: p50 is %v beside a crowd, above %v", i, took[len(took)/2],
						most)
				}
				// Who is cut for the sake of others is cut after three seconds.
				if took[len(took)-1] > 2500*time.Millisecond {
					t.Errorf("client %d waited %v for a read", i, took[len(took)-1])
				}
			}
		})
	}
}
