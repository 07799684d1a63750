// The simulated kernel must notice the engine's mistakes: each of these submissions can never be
// right, and ends the run with a text that says why.

package sim

import (
	"strings"
	"testing"

	"ringnbd/engine/uring"
)

// caught runs something and returns why it ended the run, or "".
func caught(run func()) (why string) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case verdictPanic:
			why = p.why
		default:
			panic(p)
		}
	}()
	run()
	return ""
}

// blockRig is a simulated rig over a block device with 4096-byte blocks, with one socket.
func blockRig(t *testing.T, flags uint16) (r *rig, w *World, fd int32, p farEnd) {
	t.Helper()
	e := ExportPlan{Block: 4096, Backing: Block, Discard: true, Punch: true}
	e.Size, e.Flags = rigDisk, flags
	w = plainWorld(t, e)
	k := w.NewKernel(32, 64)
	r = &rig{t: t, ring: k, arena: newArena(t)}
	k.Attach(newArena(t))
	k.registerBuffers(r.arena)
	k.RegisterFiles([]int32{w.exports[0].opening.fds[0], -1})
	s := w.newSocket(&client{world: w, x: w.exports[0]})
	s.in.limit, s.out.limit = 4096, 4096
	k.pause = func() { w.clock += 1000 }
	return r, w, s.fd, &simEnd{w: w, s: s}
}

const punch, zero = uring.FallocatePunchHole | uring.FallocateKeepSize,
	uring.FallocateZeroRange | uring.FallocateKeepSize

func sqe(r *rig) *uring.SQE { return r.ring.SQE() }

// mistakes, and a part of what the kernel must say about each.
var mistakes = []struct {
	name, want string
	make       func(r *rig, k *Kernel, fd int32)
}{
	{"offset", "not aligned", func(r *rig, _ *Kernel, _ int32) { r.get(1, 0, 4096, 512) }},
	{"length", "not aligned", func(r *rig, _ *Kernel, _ int32) { r.put(1, 0, 512, 0, 0) }},
	{"address", "not aligned", func(r *rig, _ *Kernel, _ int32) { r.get(1, 512, 4096, 0) }},
	{"end of the disk", "on a disk of", func(r *rig, _ *Kernel, _ int32) {
		r.get(1, 0, 8192, rigDisk-4096)
	}},
	{"nothing", "of 0 bytes", func(r *rig, _ *Kernel, _ int32) { r.get(1, 0, 0, 0) }},
	{"read flags", "left over", func(r *rig, _ *Kernel, _ int32) {
		uring.PrepReadFixed(sqe(r), 1, 0, 0, r.arena.Addr(0), 4096, 0, uring.WriteDsync)
	}},
	{"write flags", "left over", func(r *rig, _ *Kernel, _ int32) { r.put(1, 0, 4096, 0, 0x40) }},
	{"registered file", "registered file 7", func(r *rig, _ *Kernel, _ int32) {
		uring.PrepReadFixed(sqe(r), 1, 7, 0, r.arena.Addr(0), 4096, 0, 0)
	}},
	{"hole in the table", "registered file 1", func(r *rig, _ *Kernel, _ int32) {
		uring.PrepFsync(sqe(r), 1, 1, true)
	}},
	{"read ahead of nothing", "not read through the page cache", func(r *rig, _ *Kernel, _ int32) {
		uring.PrepFadvise(sqe(r), 1, 0, 0, 4096, uring.AdviceWillNeed)
	}},
	{"other advice", "with advice 4", func(r *rig, _ *Kernel, _ int32) {
		uring.PrepFadvise(sqe(r), 1, 0, 0, 4096, 4)
	}},
	{"plain file", "without IOSQE_FIXED_FILE", func(r *rig, _ *Kernel, _ int32) {
		s := sqe(r)
		uring.PrepFsync(s, 1, 0, true)
		s.Flags = 0
	}},
	{"buffer index", "does not cover", func(r *rig, _ *Kernel, _ int32) {
		uring.PrepReadFixed(sqe(r), 1, 0, 1, r.arena.Addr(0), 4096, 0, 0)
	}},
	{"unregistered arena", "does not cover", func(r *rig, k *Kernel, _ int32) {
		uring.PrepReadFixed(sqe(r), 1, 0, 0, k.arenas[0].Addr(0), 4096, 0, 0)
	}},
	{"buffer not registered", "is not registered", func(r *rig, k *Kernel, _ int32) {
		k.SparseBuffers(r.arena, fixedShift)
		uring.PrepReadFixed(sqe(r), 1, 0, 0, r.arena.Addr(0), 4096, 0, 0)
	}},
	{"buffer registered twice", "is filled twice", func(_ *rig, k *Kernel, _ int32) {
		k.RegisterBuffer(0)
	}},
	{"plain read with a buffer", "names registered buffer", func(r *rig, _ *Kernel, _ int32) {
		s := sqe(r)
		uring.PrepReadFile(s, 1, 0, r.arena.Addr(0), 4096, 0, 0)
		s.BufIG = 1
	}},
	{"no arena", "lies in no arena", func(r *rig, _ *Kernel, fd int32) {
		uring.PrepRecv(sqe(r), 1, fd, 4096, 10, 0)
	}},
	{"end of the arena", "leaves its arena", func(r *rig, _ *Kernel, fd int32) {
		r.recv(1, fd, rigArena-8, 16, 0)
	}},
	{"unknown receive flag", "left over", func(r *rig, _ *Kernel, fd int32) {
		r.recv(1, fd, 0, 16, 1<<20)
	}},
	{"empty receive", "end of the stream", func(r *rig, _ *Kernel, fd int32) {
		r.recv(1, fd, 0, 0, 0)
	}},
	{"empty vector", "a vector of 0", func(r *rig, _ *Kernel, fd int32) { r.send(1, fd, 0) }},
	{"stale field", "left over", func(r *rig, _ *Kernel, _ int32) {
		s := sqe(r)
		uring.PrepNop(s, 1)
		s.Len = 3
	}},
	{"opcode", "does not know", func(r *rig, _ *Kernel, _ int32) { sqe(r).OpCode = 1 }},
	{"closed descriptor", "is not open", func(r *rig, _ *Kernel, fd int32) {
		r.recv(1, fd+100, 0, 16, 0)
	}},
	{"receive from a disk", "not a socket", func(r *rig, _ *Kernel, _ int32) {
		r.recv(1, firstFD, 0, 16, 0)
	}},
	{"fallocate mode", "with mode", func(r *rig, _ *Kernel, _ int32) {
		uring.PrepFallocate(sqe(r), 1, 0, 0, 0, 4096)
	}},
	{"fallocate alignment", "not aligned", func(r *rig, _ *Kernel, _ int32) {
		uring.PrepFallocate(sqe(r), 1, 0, punch, 512, 4096)
	}},
	{"fallocate beyond", "on a disk of", func(r *rig, _ *Kernel, _ int32) {
		uring.PrepFallocate(sqe(r), 1, 0, zero, 4096, rigDisk)
	}},
	{"discard alignment", "not aligned", func(r *rig, _ *Kernel, _ int32) {
		uring.PrepDiscard(sqe(r), 1, 0, 0, 4097)
	}},
	{"two receives", "while RECV", func(r *rig, _ *Kernel, fd int32) {
		r.recv(1, fd, 0, 16, 0)
		r.recv(2, fd, 4096, 16, 0)
	}},
	{"two sends", "while SENDMSG", func(r *rig, _ *Kernel, fd int32) {
		r.send(1, fd, uring.MsgWaitAll, [2]uint64{0, 100000})
		r.send(2, fd, uring.MsgWaitAll, [2]uint64{0, 100000})
	}},
	{"one buffer for two", "in flight with", func(r *rig, k *Kernel, fd int32) {
		r.recv(1, fd, 4000, 200, 0)
		k.world.mix.inline = 0
		r.put(2, 4096, 4096, 0, 0)
	}},
	{"close under a receive", "in flight on it", func(r *rig, k *Kernel, fd int32) {
		r.recv(1, fd, 0, 16, 0)
		r.quiet()
		k.CloseFD(fd)
	}},
	{"close under a queued poll", "is queued", func(r *rig, k *Kernel, fd int32) {
		uring.PrepPoll(sqe(r), 1, fd, uring.PollIn)
		k.CloseFD(fd)
	}},
	{"close twice", "is not open", func(_ *rig, k *Kernel, fd int32) {
		k.CloseFD(fd)
		k.CloseFD(fd)
	}},
}

func TestStrictKernel(t *testing.T) {
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			r, w, fd, _ := blockRig(t, 0)
			why := caught(func() {
				m.make(r, w.kernels[0], fd)
				r.quiet()
			})
			if !strings.HasPrefix(why, "engine bug: ") || !strings.Contains(why, m.want) {
				t.Errorf("found %q, want an engine bug with %q", why, m.want)
			}
		})
	}
	t.Run("write to a read-only export", func(t *testing.T) {
		r, _, _, _ := blockRig(t, flagReadOnly)
		r.put(1, 0, 4096, 0, 0)
		if why := caught(r.quiet); !strings.Contains(why, "read-only") {
			t.Errorf("found %q", why)
		}
	})
}

// TestBuffersInFlightBelongToTheKernel checks that a write into a buffer in flight is noticed,
// wherever in the buffer it is.
func TestBuffersInFlightBelongToTheKernel(t *testing.T) {
	for _, place := range []uint64{0, 700, 4095} {
		r, w, fd, p := blockRig(t, 0)
		w.mix.inline = 0
		r.recv(1, fd, 0, 4096, 0)
		_ = r.ring.Enter(0, 0)
		r.arena.Bytes(place, 1)[0]++
		p.write(100)
		p.settle()
		if why := caught(func() {
			w.kernels[0].advance()
		}); !strings.Contains(why, "wrote into the buffer of RECV") {
			t.Errorf("a byte written at %d of a receive's buffer: found %q", place, why)
		}
		r, w, _, _ = blockRig(t, 0)
		w.mix.inline = 0
		r.put(1, 0, 4096, 0, 0)
		_ = r.ring.Enter(0, 0)
		r.arena.Bytes(place, 1)[0]++
		if why := caught(func() {
			w.kernels[0].advance()
		}); !strings.Contains(why, "changed the source of WRITE_FIXED") {
			t.Errorf("a byte changed at %d of a write's source: found %q", place, why)
		}
	}
}

// TestSmallQueues checks that a full submission queue returns nil, and that completions that do not
// fit wait for the next Enter, in order.
func TestSmallQueues(t *testing.T) {
	w := plainWorld(t, ExportPlan{Block: 1})
	k := w.NewKernel(4, 2)
	for i := range uint64(4) {
		uring.PrepNop(k.SQE(), i)
	}
	if k.SQE() != nil {
		t.Fatal("a fifth submission fitted into a queue of four")
	}
	_ = k.Enter(0, 0)
	var out [8]uring.CQE
	next := uint64(0)
	for range 2 {
		n := k.Reap(out[:])
		if n != 2 {
			t.Fatalf("%d completions in a queue of two", n)
		}
		for _, c := range out[:n] {
			if c.UserData != next {
				t.Fatalf("completion %d came when %d was due", c.UserData, next)
			}
			next++
		}
		_ = k.Enter(0, 0)
	}
	if w.Marks[markQueueFull] == 0 || w.Marks[markQueueOverflow] == 0 {
		t.Error("the marks of full queues were not set")
	}
}
