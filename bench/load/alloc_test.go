// The loop does not allocate: turns of a running loop are measured, on the real kernel, with
// requests in flight.

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
				// zeroes, which are the wrong data where some were written: findings must not
				// allocate either
				to += int(r.Length)
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
		"zeroes":      func(o *Options) { o.Verify, o.ZeroPercent = true, 50 },
		"replay":      func(o *Options) { o.Replay, o.FlushEvery = Replay{Path: "x", Speed: 1}, 0 },
		"replay in its own time": func(o *Options) {
			o.Replay, o.FlushEvery, o.Verify = Replay{Path: "x", Timed: true, Speed: 10}, 0, true
		},
		"recording": func(o *Options) { o.Record = "/dev/null" },
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, "nbd://localhost", "randrw", "4k:2,16k:1")
			o.Connections, o.Depth, o.FlushEvery, o.Count, o.Duration = 2, 8, 10, 0, 1<<50
			change(&o)
			turnsDoNotAllocate(t, &o)
		})
	}
}

// drawnTrace is n reads, writes, flushes and zeroes of the first MiB, 10 µs apart.
func drawnTrace(n int) *trace {
	tr, r := &trace{unit: 512}, random(3)
	for i := range n {
		e := entry{at: int64(i) * 10 * us, offset: r.below(200) * 4096,
			length: uint32(1+r.below(16)) * 512,
			kind:   [...]requestKind{kindRead, kindWrite, kindZero, kindRead}[r.below(4)]}
		if r.below(50) == 0 {
			e = entry{at: e.at, kind: kindFlush}
		}
		tr.add(e, i+2)
	}
	return tr
}

func turnsDoNotAllocate(t *testing.T, o *Options) {
	f := &subject{Export: proto.Export{Facts: proto.Facts{Size: 1 << 20, Flags: everyFlag}}}
	var tr *trace
	if o.Replay.Path != "" {
		tr = drawnTrace(200000)
		if err := o.adopt(tr); err != nil {
			t.Fatal(err)
		}
	}
	p, err := newPlan(o, f, tr, 1)
	if err != nil {
		t.Fatal(err)
	}
	p.ring = ringConfig(o, o.Connections)
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
	if o.Record != "" {
		r, err := newRecorder(o.Record, &o.Target, s, 1, tapeSize)
		if err != nil {
			t.Fatal(err)
		}
		l.tape = r.tapes[0]
		defer func() {
			if err := r.close(); err != nil {
				t.Error(err)
			}
		}()
	}
	if err := l.openRing(); err != nil {
		t.Fatal(err)
	}
	l.now = uring.Now()
	l.touchAll()
	for l.tally.kinds[kindFlush].requests < 50 { // through all the phases, and all the kinds
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
