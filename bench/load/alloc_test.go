// The loop does not allocate: turns of a running loop are measured, on the real kernel, with requests in flight.

package load

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// echo answers requests on a raw socket without allocating, until it is closed.
func echo(fd int) {
	in, out := make([]byte, 1<<20), make([]byte, 1<<20)
	have := 0
	for {
		n, err := unix.Read(fd, in[have:])
		if n <= 0 || err != nil {
			return
		}
		have += n
		at, to := 0, 0
		for have-at >= proto.RequestSize {
			r, _ := proto.ParseRequest(in[at:])
			if have-at < proto.RequestSize+int(r.Payload()) {
				break
			}
			at += proto.RequestSize + int(r.Payload())
			if r.Command == proto.CmdDisc {
				return
			}
			proto.PutSimpleReply(out[to:], r.Cookie, proto.Success)
			to += proto.SimpleReplySize
			if r.Command == proto.CmdRead {
				to += int(r.Length) // zeroes, which are the wrong data where some were written: findings must not allocate either
			}
		}
		copy(in, in[at:have])
		have -= at
		for from := 0; from < to; {
			n, err := unix.Write(fd, out[from:to])
			if err != nil {
				return
			}
			from += n
		}
	}
}

func TestTurnsDoNotAllocate(t *testing.T) {
	for name, change := range map[string]func(o *Options){
		"closed loop": func(*Options) {},
		"open loop":   func(o *Options) { o.Rate, o.Poisson = 2e5, true },
		"verifying":   func(o *Options) { o.Verify = true },
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, "nbd://localhost", "randrw", "4k:2,16k:1")
			o.Connections, o.Depth, o.FlushEvery, o.Count, o.Duration = 2, 8, 10, 0, 1<<50
			change(&o)
			turnsDoNotAllocate(t, &o)
		})
	}
}

func turnsDoNotAllocate(t *testing.T, o *Options) {
	f := &facts{Export: proto.Export{Facts: proto.Facts{Size: 1 << 20, Flags: everyFlag}}}
	p, err := newPlan(o, f, 1)
	if err != nil {
		t.Fatal(err)
	}
	var sockets []int
	for range o.Connections {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, pair[0])
		ended := make(chan struct{})
		go func() { echo(pair[1]); close(ended) }()
		defer func() { <-ended; _ = unix.Close(pair[1]) }()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := new(shared)
	s.filling.Store(1)
	l, err := newLoop(p, s, 0, sockets, 0, o.Connections)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.openRing(); err != nil {
		t.Fatal(err)
	}
	l.now = uring.Now()
	l.touchAll()
	for l.tally.kinds[Flush].requests < 50 { // through all the phases, and all the kinds
		l.turn()
	}
	before := l.tally.done
	if allocs := testing.AllocsPerRun(500, l.turn); allocs != 0 {
		t.Errorf("%v allocations in a turn", allocs)
	}
	if n := l.tally.done - before; n < 100 {
		t.Errorf("only %d requests in 500 turns", n)
	}
	s.stop.Store(true)
	for l.phase != phaseDone {
		l.turn()
	}
	if l.trouble != nil || l.left != 0 {
		t.Errorf("%v, %d connections left", l.trouble, l.left)
	}
	l.closeRing()
}
