// Scripts of operations that run on the simulated kernel and on Linux, and must have the same
// results.

package sim

import (
	"bytes"
	"testing"

	"ringnbd/engine/uring"
)

// script is a dialogue with a kernel. Two forms of socket exist; some answers depend on it, and
// those scripts say which they are about.
type script struct {
	name string
	unix bool // holds for Unix sockets too
	run  func(r *rig)
}

func TestSimAgreesWithLinux(t *testing.T) {
	for _, s := range append(socketScripts, diskScripts...) {
		t.Run(s.name, func(t *testing.T) {
			simulated := simRig(t)
			s.run(simulated)
			linux := realRig(t, true)
			s.run(linux)
			sameLogs(t, simulated, linux)
		})
		if !s.unix {
			continue
		}
		t.Run(s.name+" (unix)", func(t *testing.T) {
			simulated := simRig(t)
			s.run(simulated)
			linux := realRig(t, false)
			s.run(linux)
			sameLogs(t, simulated, linux)
		})
	}
}

func (r *rig) recv(data uint64, fd int32, off uint64, n, flags uint32) {
	uring.PrepRecv(r.ring.SQE(), data, fd, r.arena.Addr(off), n, flags)
}

func (r *rig) send(data uint64, fd int32, flags uint32, pieces ...[2]uint64) {
	uring.PrepSendMsg(r.ring.SQE(), data, fd, r.message(rigArena-4096, pieces...),
		flags|uring.MsgNoSignal)
}

var socketScripts = []script{
	{"a receive takes what has arrived", true, func(r *rig) {
		fd, p := r.pair()
		p.write(10)
		p.settle()
		r.recv(1, fd, 0, 100, 0)
		r.submit(1)
		r.note("%s", r.show(0, 20))
	}},
	{"a receive waits", true, func(r *rig) {
		fd, p := r.pair()
		r.recv(1, fd, 0, 100, 0)
		r.quiet()
		p.write(3)
		p.settle()
		r.submit(1)
		r.note("%s", r.show(0, 8))
	}},
	{"MSG_WAITALL collects", true, func(r *rig) {
		fd, p := r.pair()
		p.write(10)
		p.settle()
		r.recv(1, fd, 0, 28, uring.MsgWaitAll)
		r.quiet()
		p.write(18)
		p.settle()
		r.submit(1)
		r.note("%s", r.show(0, 40))
	}},
	{"MSG_WAITALL is short at the end of the stream, then comes the end", true, func(r *rig) {
		fd, p := r.pair()
		r.recv(1, fd, 0, 28, uring.MsgWaitAll)
		p.write(10)
		p.settle()
		r.quiet()
		p.close()
		p.settle()
		r.submit(1)
		r.recv(2, fd, 0, 28, uring.MsgWaitAll)
		r.submit(1)
	}},
	{"MSG_WAITALL swallows a reset after data", false, func(r *rig) {
		fd, p := r.pair()
		r.recv(1, fd, 0, 28, uring.MsgWaitAll)
		p.write(10)
		p.settle()
		r.quiet()
		p.reset()
		p.settle()
		r.submit(1)
		r.recv(2, fd, 0, 28, 0)
		r.submit(1)
		r.send(3, fd, 0, [2]uint64{0, 10})
		r.submit(1)
	}},
	{"a reset is reported once, then the stream has ended", false, func(r *rig) {
		fd, p := r.pair()
		r.recv(1, fd, 0, 28, 0)
		r.quiet()
		p.reset()
		p.settle()
		r.submit(1)
		r.recv(2, fd, 0, 28, 0)
		r.submit(1)
		r.send(3, fd, 0, [2]uint64{0, 10})
		r.submit(1)
	}},
	{"data comes before the reset after it", false, func(r *rig) {
		fd, p := r.pair()
		p.write(10)
		p.settle()
		p.reset()
		p.settle()
		r.recv(1, fd, 0, 4, 0)
		r.submit(1)
		r.recv(2, fd, 0, 28, 0)
		r.submit(1)
		r.recv(3, fd, 0, 28, 0)
		r.submit(1)
		r.recv(4, fd, 0, 28, 0)
		r.submit(1)
	}},
	{"a reset met by a send", false, func(r *rig) {
		fd, p := r.pair()
		p.reset()
		p.settle()
		r.send(1, fd, 0, [2]uint64{0, 10})
		r.submit(1)
		r.send(2, fd, 0, [2]uint64{0, 10})
		r.submit(1)
		r.recv(3, fd, 0, 28, 0)
		r.submit(1)
	}},
	{"after a half-close the other direction works", true, func(r *rig) {
		fd, p := r.pair()
		p.write(5)
		p.closeWrite()
		p.settle()
		r.recv(1, fd, 0, 28, 0)
		r.submit(1)
		r.recv(2, fd, 0, 28, 0)
		r.submit(1)
		r.send(3, fd, uring.MsgWaitAll, [2]uint64{0, 5}, [2]uint64{100, 10})
		r.submit(1)
		r.note("the client got %d", p.read(15))
	}},
	{"shutdown ends a waiting receive and a later send", true, func(r *rig) {
		fd, _ := r.pair()
		r.recv(1, fd, 0, 28, 0)
		r.quiet()
		r.ring.Shutdown(fd)
		r.submit(1)
		r.send(2, fd, 0, [2]uint64{0, 5})
		r.submit(1)
		r.recv(3, fd, 0, 28, 0)
		r.submit(1)
	}},
	{"shutdown ends a MSG_WAITALL receive with what it has", true, func(r *rig) {
		fd, p := r.pair()
		r.recv(1, fd, 0, 28, uring.MsgWaitAll)
		p.write(7)
		p.settle()
		r.quiet()
		r.ring.Shutdown(fd)
		r.submit(1)
	}},
	{"after shutdown what has arrived can still be read", true, func(r *rig) {
		fd, p := r.pair()
		p.write(7)
		p.settle()
		r.ring.Shutdown(fd)
		r.recv(1, fd, 0, 28, 0)
		r.submit(1)
		r.recv(2, fd, 0, 28, 0)
		r.submit(1)
		r.note("the client got %d", p.read(1))
	}},
	{"shutdown ends a poll", true, func(r *rig) {
		fd, _ := r.pair()
		uring.PrepPoll(r.ring.SQE(), 1, fd, uring.PollIn|uring.PollRdHup)
		r.quiet()
		r.ring.Shutdown(fd)
		r.submit(1)
	}},
	{"poll reports data", true, func(r *rig) {
		fd, p := r.pair()
		uring.PrepPoll(r.ring.SQE(), 1, fd, uring.PollIn|uring.PollRdHup)
		r.quiet()
		p.write(1)
		p.settle()
		r.submit(1)
	}},
	{"poll reports a half-close", true, func(r *rig) {
		fd, p := r.pair()
		uring.PrepPoll(r.ring.SQE(), 1, fd, uring.PollIn|uring.PollRdHup)
		r.quiet()
		p.closeWrite()
		p.settle()
		r.submit(1)
	}},
	{"poll reports a reset", false, func(r *rig) {
		fd, p := r.pair()
		uring.PrepPoll(r.ring.SQE(), 1, fd, uring.PollIn|uring.PollRdHup)
		r.quiet()
		p.reset()
		p.settle()
		r.submit(1)
	}},
	{"cancelling a receive", true, func(r *rig) {
		fd, p := r.pair()
		r.recv(1, fd, 0, 28, 0)
		r.quiet()
		uring.PrepCancel(r.ring.SQE(), 2, 1)
		r.submit(2)
		uring.PrepCancel(r.ring.SQE(), 3, 1)
		r.submit(1)
		p.write(5)
		p.settle()
		r.recv(4, fd, 0, 28, 0)
		r.submit(1)
	}},
	{"cancelling a receive that has something", true, func(r *rig) {
		fd, p := r.pair()
		r.recv(1, fd, 0, 28, uring.MsgWaitAll)
		p.write(9)
		p.settle()
		r.quiet()
		uring.PrepCancel(r.ring.SQE(), 2, 1)
		r.submit(2)
		p.write(4)
		p.settle()
		r.recv(3, fd, 100, 28, 0)
		r.submit(1)
		r.note("%s", r.show(100, 4))
	}},
	{"cancelling a poll", true, func(r *rig) {
		fd, _ := r.pair()
		uring.PrepPoll(r.ring.SQE(), 1, fd, uring.PollIn|uring.PollRdHup)
		r.quiet()
		uring.PrepCancel(r.ring.SQE(), 2, 1)
		r.submit(2)
	}},
	{"a MSG_WAITALL send goes on as the reader reads", true, func(r *rig) {
		fd, p := r.pair()
		p.buffers(16 << 10)
		r.send(1, fd, uring.MsgWaitAll, [2]uint64{0, 400 << 10}, [2]uint64{500 << 10, 400 << 10})
		r.quiet()
		got := 0
		for tries := 0; got < 800<<10 && tries < 500; tries++ { // the send goes on in Enter only
			_ = r.ring.Enter(0, 0)
			got += max(0, p.read(64<<10))
		}
		r.submit(1)
		r.note("the client got %d", got)
	}},
	{"a send into a shut socket that had moved something", true, func(r *rig) {
		fd, p := r.pair()
		p.buffers(16 << 10)
		r.send(1, fd, uring.MsgWaitAll, [2]uint64{0, 900 << 10})
		r.quiet()
		r.ring.Shutdown(fd)
		var out [4]uring.CQE
		for n := 0; n == 0; {
			_ = r.ring.Enter(1, 1e6)
			if r.pending != nil {
				r.pending()
			}
			n = r.ring.Reap(out[:])
		}
		r.note("short: %t", out[0].Res > 0 && out[0].Res < 900<<10)
		r.note("the client got all of it: %t", p.drain() == int(out[0].Res))
	}},
	{"an eventfd read waits, and takes all notifications", true, func(r *rig) {
		fd, notify := r.event()
		uring.PrepRead(r.ring.SQE(), 1, fd, r.arena.Addr(0), 8, 0)
		r.quiet()
		notify()
		r.submit(1)
		r.note("%s", r.show(0, 8))
		notify()
		notify()
		uring.PrepRead(r.ring.SQE(), 2, fd, r.arena.Addr(0), 8, 0)
		r.submit(1)
		r.note("%s", r.show(0, 8))
	}},
	{"a NOP", true, func(r *rig) {
		uring.PrepNop(r.ring.SQE(), 1)
		r.submit(1)
	}},
	{"advice", true, func(r *rig) {
		fill(r.arena.Bytes(0, 8192), 7, 0)
		uring.PrepMadvise(r.ring.SQE(), 1, r.arena.Addr(4096), 4096, uring.AdviceDontNeed)
		r.submit(1)
		r.note("%s", r.show(0, 4096))
	}},
}

// put and get are transfers between the arena and the disk.
func (r *rig) put(data, at uint64, n uint32, off uint64, flags uint32) {
	uring.PrepWriteFixed(r.ring.SQE(), data, 0, 0, r.arena.Addr(at), n, off, flags)
}

func (r *rig) get(data, at uint64, n uint32, off uint64) {
	uring.PrepReadFixed(r.ring.SQE(), data, 0, 0, r.arena.Addr(at), n, off, 0)
}

var diskScripts = []script{
	{"what is written is read", false, func(r *rig) {
		fill(r.arena.Bytes(0, 16384), 3, 0)
		r.put(1, 0, 8192, 4096, 0)
		r.submit(1)
		r.put(2, 512, 512, 512, uring.WriteDsync)
		r.submit(1)
		r.get(3, 65536, 16384, 0)
		r.submit(1)
		r.note("%s", r.show(65536, 16384))
		uring.PrepFsync(r.ring.SQE(), 4, 0, true)
		r.submit(1)
		uring.PrepFsync(r.ring.SQE(), 5, 0, false)
		r.submit(1)
	}},
	{"a truncated file is short, and then empty", false, func(r *rig) {
		fill(r.arena.Bytes(0, 16384), 3, 0)
		r.put(1, 0, 16384, 0, 0)
		r.submit(1)
		r.disk.truncate(8192 + 100)
		r.get(2, 65536, 16384, 4096)
		r.submit(1)
		r.note("%s", r.show(65536, 4196))
		r.get(3, 65536, 4096, 12288)
		r.submit(1)
		r.put(4, 0, 512, 20480, 0)
		r.submit(1)
		r.get(5, 65536, 16384, 8192)
		r.submit(1)
		r.note("%s", r.show(65536, 12288))
	}},
	{"holes and zeroes", false, func(r *rig) {
		fill(r.arena.Bytes(0, 65536), 3, 0)
		r.put(1, 0, 65536, 0, 0)
		r.submit(1)
		uring.PrepFallocate(r.ring.SQE(), 2, 0, punch, 4096, 8192)
		r.submit(1)
		uring.PrepFallocate(r.ring.SQE(), 3, 0, zero, 20000, 10000)
		r.submit(1)
		uring.PrepFallocate(r.ring.SQE(), 4, 0, punch, 50001, 3)
		r.submit(1)
		r.get(5, 131072, 65536, 0)
		r.submit(1)
		r.note("%s", r.show(131072, 65536))
	}},
	{"a disk operation cannot be cancelled once it is done", false, func(r *rig) {
		r.get(1, 65536, 4096, 0)
		r.submit(1)
		uring.PrepCancel(r.ring.SQE(), 2, 1)
		r.submit(1)
	}},
	{"random transfers", false, func(r *rig) {
		x := uint64(88172645463325252)
		next := func(n uint64) uint64 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			return x % n
		}
		for i := range uint64(40) {
			n, off := 512*(1+next(40)), 512*next(rigDisk/512-40)
			if next(2) == 0 {
				fill(r.arena.Bytes(0, int(n)), uint32(i), off)
				r.put(i, 0, uint32(n), off, 0)
				r.submit(1)
				continue
			}
			r.get(i, 65536, uint32(n), off)
			r.submit(1)
			r.note("%s", r.show(65536, int(n)))
		}
		uring.PrepFsync(r.ring.SQE(), 50, 0, true)
		r.submit(1)
		r.note("%d bytes, zeroes at the end: %t", len(r.disk.content()),
			bytes.HasSuffix(r.disk.content(), make([]byte, 512)))
	}},
}
