// Many connections: idle connections cost little, closed connections cost nothing.

package live_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// busy reads 4 KiB blocks at depth 32 on one connection for a time and returns
// requests per second.
func busy(p *peer, limit time.Duration) (float64, error) {
	const depth = 32
	random := rand.New(rand.NewPCG(8, 9))
	start, n, inFlight := time.Now(), 0, 0
	for time.Since(start) < limit || inFlight > 0 {
		for time.Since(start) < limit && inFlight < depth {
			if _, err := p.send(cmdRead, 0, uint64(random.IntN(int(p.size>>12)))<<12, 4096,
				nil); err != nil {
				return 0, err
			}
			inFlight++
		}
		r, err := p.receive()
		if err != nil || r.errno != 0 {
			return 0, fmt.Errorf("error %d: %w", r.errno, err)
		}
		inFlight--
		n++
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// What the process may hold beyond the arena that --memory bounds: the Go
// runtime, the binary's pages, tables of connections.
const overhead = 64 << 20

func TestThousandIdleConnectionsAndABusyOne(t *testing.T) {
	onlyRingnbd(t)
	const memory, idle = 192 << 20, 1000
	s := serve(t, measure.Unix, randomImage(t, 64<<20, 1), "--memory", fmt.Sprint(memory),
		"--max-connections", "1100", "--loops", "2")
	p := s.dial(t)
	alone, err := busy(p, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	before := s.status("VmRSS")
	for range idle {
		q := s.dial(t)
		if _, err := q.read(0, 4096); err != nil { // it has worked once
			t.Fatal(err)
		}
	}
	among, err := busy(p, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	resident, peak := s.status("VmRSS"), s.status("VmHWM")
	t.Logf("busy connection: %.0f requests/s alone, %.0f among %d idle ones (ratio %.2f)", alone,
		among, idle, among/alone)
	t.Logf("resident: %d KiB before, %d KiB with them (%d bytes each), peak %d KiB", before>>10,
		resident>>10, (resident-before)/idle, peak>>10)
	if peak > memory+overhead {
		t.Errorf("peak resident memory %d MiB is above --memory %d MiB and %d MiB", peak>>20,
			memory>>20, overhead>>20)
	}
}

func TestLargeRequestsOfManyClientsStayWithinMemory(t *testing.T) {
	onlyRingnbd(t)
	const memory = 192 << 20
	s := serve(t, measure.Unix, randomImage(t, 128<<20, 1), "--memory", fmt.Sprint(memory),
		"--loops", "2")
	var all sync.WaitGroup
	errs := make(chan error, 64)
	for k := range 16 {
		p := s.dial(t)
		all.Go(func() {
			for range 4 { // all at once, larger than the arena together
				p.send(cmdRead, 0, uint64(k)<<20, 32<<20, nil)
			}
			for range 4 {
				if r, err := p.receive(); err != nil || r.errno != 0 {
					errs <- fmt.Errorf("connection %d: error %d: %v", k, r.errno, err)
				}
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if peak := s.status("VmHWM"); peak > memory+overhead {
		t.Errorf("peak resident memory %d MiB is above --memory %d MiB and %d MiB", peak>>20,
			memory>>20, overhead>>20)
	}
}

func TestTenThousandConnectionsLeaveNoDescriptor(t *testing.T) {
	cycles := 10_000
	if testing.Short() || underTest != "ringnbd" { // peers: a process for each, a backlog of one
		cycles = 400
	}
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			s := serve(t, transport, sparseImage(t, 1<<20))
			p := s.dial(t)
			before := s.descriptors()
			for i := range cycles / len(transports) {
				if err := abandon(s.address, s.export, i); err != nil {
					t.Fatalf("cycle %d: %v", i, err)
				}
			}
			if !eventually(10*time.Second, func() bool { return s.descriptors() <= before }) {
				t.Errorf("%d open files, %d before %d connections", s.descriptors(), before, cycles)
			}
			if _, err := p.read(0, 512); err != nil {
				t.Errorf("the connection from before: %v", err)
			}
		})
	}
}

// abandon connects and leaves, each time at another point of a session.
func abandon(a measure.Address, export string, i int) error {
	if i%4 < 2 {
		c, err := dialRaw(a)
		if err != nil {
			return err
		}
		defer c.Close()
		if i%4 == 1 {
			c.Write([]byte{0, 0, 0, 3, 'I', 'H', 'A', 'V'}) // half an option
		}
		return nil
	}
	p, err := connect(a, export)
	if err != nil {
		return err
	}
	if i%4 == 2 { // in the middle of a request, with a reset on TCP
		p.send(cmdRead, 0, 0, 65536, nil)
		if tcp, ok := p.conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		return p.conn.Close()
	}
	p.conn.Write(header(cmdWrite, 0, 1, 0, 4096)[:20])
	return p.conn.Close()
}
