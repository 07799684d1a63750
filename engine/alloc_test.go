// The data path does not allocate: a turn of a running loop is measured, on the real kernel, with requests in flight.

package engine

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// TestTurnsDoNotAllocate turns a loop on this goroutine while a client, driven by hand from the same goroutine, keeps requests of every kind coming.
func TestTurnsDoNotAllocate(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	d := fileDevice(t, 1<<20, unix.O_DIRECT)
	s := newShared([]Export{{Facts: factsOf(d), Device: d}}, 1)
	c := Config{Loops: 1, MaxConnections: 4}
	y, _ := layoutOf(MinMemory(c), connsPerLoop(c))
	l, err := newLoop(s, 0, y)
	if err != nil {
		t.Fatal(err)
	}
	s.loops[0] = l
	ring, wakeFD, err := l.openRing()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(pair[1], true); err != nil {
		t.Fatal(err)
	}
	l.listenForMail()
	l.live.Add(1)
	l.post(&mail{kind: mailAdopt, fd: int32(pair[0])})

	wire, answer, requests := everyKind(d)
	in := make([]byte, 1<<16)
	round := func() {
		if _, err := unix.Write(pair[1], wire); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < answer; {
			l.turn()
			n, err := unix.Read(pair[1], in)
			if err == nil {
				got += n
			}
		}
	}
	round()
	if allocs := testing.AllocsPerRun(200, round); allocs != 0 {
		t.Errorf("%v allocations in the turns that serve %d requests", allocs, requests)
	}
	_ = unix.Close(pair[1])
	for l.live.Load() > 0 {
		l.turn()
	}
	_ = ring.Close()
	_ = unix.Close(wakeFD)
	_ = l.pool.Close()
	_ = l.control.Close()
}

// everyKind is one request of every kind, as bytes, and how many bytes answer them.
func everyKind(d *Device) (wire []byte, answer, n int) {
	requests := []proto.Request{
		{Command: proto.CmdRead, Length: 4096, Offset: 4096},
		{Command: proto.CmdRead, Length: 1000, Offset: 777},
		{Command: proto.CmdWrite, Length: 4096, Offset: 8192},
		{Command: proto.CmdWrite, Length: 100, Offset: 8195},
		{Command: proto.CmdWrite, Length: 100, Offset: 8205, Flags: proto.CmdFlagFUA},
		{Command: proto.CmdWriteZeroes, Length: 9000, Offset: 20001},
		{Command: proto.CmdTrim, Length: 65536, Offset: 65536},
		{Command: proto.CmdFlush},
		{Command: proto.CmdRead, Length: 1, Offset: 1 << 40},
	}
	for i := range requests {
		requests[i].Cookie = uint64(i)
		head := make([]byte, proto.RequestSize)
		proto.PutRequest(head, &requests[i])
		wire = append(wire, head...)
		wire = append(wire, make([]byte, requests[i].Payload())...)
		answer += proto.SimpleReplySize
		if requests[i].Command == proto.CmdRead && requests[i].Offset < d.Size {
			answer += int(requests[i].Length)
		}
	}
	return wire, answer, len(requests)
}
