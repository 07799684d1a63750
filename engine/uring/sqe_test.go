// Tests of the operations on real sockets, files and devices.

package uring

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Sends and receives far more than a socket holds, so that both sides see short transfers and go on
// where they stopped.
func TestStreamThroughShortTransfers(t *testing.T) {
	const total, chunk, vectors = 4 << 20, 1 << 18, 7
	r := newRing(t, 8, 32)
	a := newArena(t, 2*total+1<<16, false)
	left, right := socketpair(t)
	if err := unix.SetsockoptInt(int(left), unix.SOL_SOCKET, unix.SO_SNDBUF, 20000); err != nil {
		t.Fatal(err)
	}
	const from, to, head = 0, total, 2 * total
	random := rand.New(rand.NewPCG(1, 2))
	for b := a.Bytes(from, total); len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, random.Uint64())
	}
	sent, received, short := 0, 0, 0
	send := func() {
		rest := min(total-sent, chunk)
		iov, at := a.Iovecs(head+64, vectors), uint64(from+sent)
		for i := range iov {
			n := uint64(rest / (vectors - i))
			iov[i] = Iovec{Base: a.Addr(at), Len: n}
			at, rest = at+n, rest-int(n)
		}
		*a.Msghdr(head) = Msghdr{Iov: a.Addr(head + 64), IovLen: vectors}
		PrepSendMsg(r.SQE(), 1, left, a.Addr(head), MsgNoSignal)
	}
	receive := func() {
		PrepRecv(r.SQE(), 2, right, a.Addr(uint64(to+received)), uint32(min(total-received, 30000)),
			0)
	}
	send()
	receive()
	for received < total {
		c := collect(t, r, 1)[0]
		if c.Res <= 0 {
			t.Fatalf("operation %d: %v after %d sent, %d received", c.UserData, errno(c.Res), sent,
				received)
		}
		switch c.UserData {
		case 1:
			if int(c.Res) < min(total-sent, chunk) {
				short++
			}
			if sent += int(c.Res); sent < total {
				send()
			}
		case 2:
			if received += int(c.Res); received < total {
				receive()
			}
		}
	}
	if sent != total {
		collect(t, r, 1)
	}
	if !bytes.Equal(a.Bytes(from, total), a.Bytes(to, total)) {
		t.Error("what arrived is not what was sent")
	}
	if short == 0 {
		t.Error("no send was short: the test shows nothing")
	}
}

func TestReceiveAllIsShortOnlyAtTheEnd(t *testing.T) {
	r := newRing(t, 8, 32)
	a := newArena(t, 4096, false)
	left, right := socketpair(t)
	PrepRecv(r.SQE(), 1, right, a.Addr(0), 28, MsgWaitAll)
	for _, part := range []string{"0123456789", "012345678901234567"} {
		if err := r.Enter(0, 0); err != nil {
			t.Fatal(err)
		}
		if r.Reap(make([]CQE, 1)) != 0 {
			t.Fatal("completed with a part of it")
		}
		if _, err := unix.Write(int(left), []byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if c := collect(t, r, 1)[0]; c.Res != 28 ||
		string(a.Bytes(0, 28)) != "0123456789012345678901234567" {
		t.Errorf("%+v %q", c, a.Bytes(0, 28))
	}
	PrepRecv(r.SQE(), 2, right, a.Addr(0), 28, MsgWaitAll)
	if _, err := unix.Write(int(left), make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	Shutdown(left)
	if c := collect(t, r, 1)[0]; c.Res != 10 {
		t.Errorf("at the end of the stream: %+v, want 10 bytes", c)
	}
	if res := single(t, r, func(s *SQE) { PrepRecv(s, 3, right, a.Addr(0), 28, 0) }); res != 0 {
		t.Errorf("after the end: %d", res)
	}
	*a.Msghdr(0) = Msghdr{Iov: a.Addr(64), IovLen: 1}
	a.Iovecs(64, 1)[0] = Iovec{Base: a.Addr(128), Len: 8}
	if res := single(t, r, func(s *SQE) {
		PrepSendMsg(s, 4, right, a.Addr(0), MsgNoSignal)
	}); errno(res) != syscall.EPIPE {
		t.Errorf("send to a closed stream: %d, want EPIPE", res)
	}
}

func TestPollAndCancel(t *testing.T) {
	r := newRing(t, 8, 32)
	fd := newEventfd(t)
	PrepPoll(r.SQE(), 1, int32(fd), PollIn)
	if err := r.Enter(0, 0); err != nil {
		t.Fatal(err)
	}
	PrepCancel(r.SQE(), 2, 1)
	if c := results(t, r, 2); errno(c[0].Res) != syscall.ECANCELED || c[1].Res != 0 {
		t.Errorf("poll %+v, cancel %+v", c[0], c[1])
	}
	if res := single(t, r, func(s *SQE) { PrepCancel(s, 3, 1) }); errno(res) != syscall.ENOENT {
		t.Errorf("cancel of what is gone: %d, want ENOENT", res)
	}
	PrepPoll(r.SQE(), 4, int32(fd), PollIn)
	if err := r.Enter(0, 0); err != nil {
		t.Fatal(err)
	}
	Notify(fd)
	if c := collect(t, r, 1)[0]; c.UserData != 4 || c.Res != int32(PollIn) ||
		c.Flags&completionMore != 0 {
		t.Errorf("%+v, want POLLIN once", c)
	}
	left, right := socketpair(t)
	PrepPoll(r.SQE(), 5, left, PollRdHup)
	Shutdown(right)
	if c := collect(t, r, 1)[0]; uint32(c.Res)&PollRdHup == 0 || uint32(c.Res)&unix.POLLHUP == 0 {
		t.Errorf("poll of a socket that hangs up: %#x", c.Res)
	}
}

func TestEventfdCountsNotifications(t *testing.T) {
	r := newRing(t, 8, 32)
	fd, a := newEventfd(t), newArena(t, 4096, false)
	for _, times := range []uint64{1, 3} {
		PrepRead(r.SQE(), 1, int32(fd), a.Addr(8), 8, 0)
		if times > 1 { // else let the read wait first
			for range times {
				Notify(fd)
			}
		} else {
			if err := r.Enter(0, 0); err != nil {
				t.Fatal(err)
			}
			Notify(fd)
		}
		if c := collect(t, r, 1)[0]; c.Res != 8 ||
			binary.LittleEndian.Uint64(a.Bytes(8, 8)) != times {
			t.Errorf("%+v, count %d, want %d", c, binary.LittleEndian.Uint64(a.Bytes(8, 8)), times)
		}
	}
}

// disk runs every operation of a file on registered file 0 and registered buffer 0.
func disk(t *testing.T, dir string, flags int) {
	r := newRing(t, 16, 64)
	a := newArena(t, 2<<20, true) // within the usual RLIMIT_MEMLOCK of 8 MiB
	if err := r.RegisterBuffers(a); err != nil {
		t.Fatal(err)
	}
	fd := newFile(t, dir, 1<<20, flags)
	if err := r.RegisterFiles([]int32{fd, -1}); err != nil {
		t.Fatal(err)
	}
	const out, in, block = 0, 1 << 20, 64 << 10
	for i, b := 0, a.Bytes(out, block); i < block; i++ {
		b[i] = byte(i%251 + 1)
	}
	want := bytes.Clone(a.Bytes(out, block))
	for i, rwf := range []uint32{0, WriteDsync} {
		off := uint64(i * 2 * block)
		if res := single(t, r, func(s *SQE) {
			PrepWriteFixed(s, 1, 0, 0, a.Addr(out), block, off, rwf)
		}); res != block {
			t.Fatalf("write: %d", res)
		}
		if res := single(t, r, func(s *SQE) {
			PrepReadFixed(s, 2, 0, 0, a.Addr(in), block, off, 0)
		}); res != block {
			t.Fatalf("read: %d", res)
		}
		if !bytes.Equal(a.Bytes(in, block), want) {
			t.Errorf("what was read at %d is not what was written", off)
		}
	}
	for _, datasync := range []bool{false, true} {
		if res := single(t, r, func(s *SQE) { PrepFsync(s, 3, 0, datasync) }); res != 0 {
			t.Errorf("fsync, datasync %v: %v", datasync, errno(res))
		}
	}
	if res := single(t, r, func(s *SQE) {
		PrepFallocate(s, 4, 0, FallocatePunchHole|FallocateKeepSize, 4096, 8192)
	}); res != 0 {
		t.Fatalf("punch: %v", errno(res))
	}
	copy(want[4096:4096+8192], make([]byte, 8192))
	diskEdges(t, r, a, in, block, want)
}

// diskEdges reads after the punch, at the end of the file, and from places that do not exist.
func diskEdges(t *testing.T, r *Ring, a *Arena, in uint64, block uint32, want []byte) {
	t.Helper()
	if res := single(t, r, func(s *SQE) {
		PrepReadFixed(s, 5, 0, 0, a.Addr(in), block, 0, 0)
	}); res != int32(block) || !bytes.Equal(a.Bytes(in, int(block)), want) {
		t.Errorf("read after the punch: %d", res)
	}
	if res := single(t, r, func(s *SQE) {
		PrepReadFixed(s, 6, 0, 0, a.Addr(in), block, 1<<20-4096, 0)
	}); res != 4096 {
		t.Errorf("read over the end: %d, want 4096", res)
	}
	if res := single(t, r, func(s *SQE) {
		PrepReadFixed(s, 7, 0, 0, a.Addr(in), block, 1<<20, 0)
	}); res != 0 {
		t.Errorf("read beyond the end: %d", res)
	}
	if res := single(t, r, func(s *SQE) {
		PrepReadFixed(s, 8, 1, 0, a.Addr(in), block, 0, 0)
	}); errno(res) != syscall.EBADF {
		t.Errorf("an empty file slot: %d, want EBADF", res)
	}
	if res := single(t, r, func(s *SQE) {
		PrepReadFixed(s, 9, 0, 0, a.Addr(a.Size()), block, 0, 0)
	}); errno(res) != syscall.EFAULT {
		t.Errorf("an address outside of the buffer: %d, want EFAULT", res)
	}
	if res := single(t, r, func(s *SQE) {
		PrepReadFixed(s, 10, 0, 1, a.Addr(in), block, 0, 0)
	}); errno(res) != syscall.EFAULT {
		t.Errorf("a buffer that is not registered: %d, want EFAULT", res)
	}
}

func TestFileDirect(t *testing.T) {
	dir := t.TempDir()
	if !directWorks(t, dir) {
		t.Skipf("the file system of %s has no O_DIRECT: set TMPDIR to one that has", dir)
	}
	disk(t, dir, unix.O_DIRECT)
}

func TestFileBuffered(t *testing.T) { disk(t, t.TempDir(), 0) }

func TestFileOnTmpfs(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "uring")
	if err != nil {
		t.Skipf("no tmpfs to write to: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	disk(t, dir, 0)
}

func TestZeroRange(t *testing.T) {
	r := newRing(t, 8, 16)
	fd := newFile(t, t.TempDir(), 1<<16, 0)
	if err := r.RegisterFiles([]int32{fd}); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Pwrite(int(fd), bytes.Repeat([]byte{7}, 1<<16), 0); err != nil {
		t.Fatal(err)
	}
	res := single(t, r, func(s *SQE) {
		PrepFallocate(s, 1, 0, FallocateZeroRange|FallocateKeepSize, 4096, 4096)
	})
	if errno(res) == syscall.EOPNOTSUPP {
		t.Skip("the file system of TMPDIR has no FALLOC_FL_ZERO_RANGE")
	}
	got := make([]byte, 3*4096)
	if _, err := unix.Pread(int(fd), got, 0); err != nil || res != 0 {
		t.Fatal(res, err)
	}
	if got[4095] != 7 || got[8192] != 7 || !bytes.Equal(got[4096:8192], make([]byte, 4096)) {
		t.Error("not exactly the range is zero")
	}
}

func directWorks(t *testing.T, dir string) bool {
	t.Helper()
	fd, err := unix.Open(dir+"/probe", unix.O_RDWR|unix.O_CREAT|unix.O_DIRECT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false
	}
	CloseFD(int32(fd))
	return true
}

func TestMadviseGivesPagesBack(t *testing.T) {
	r := newRing(t, 8, 16)
	a := newArena(t, 16384, false)
	for i := range a.Bytes(0, 16384) {
		a.Bytes(0, 16384)[i] = 3
	}
	if res := single(t, r, func(s *SQE) {
		PrepMadvise(s, 1, a.Addr(4096), 8192, AdviceDontNeed)
	}); res != 0 {
		t.Fatalf("madvise: %v", errno(res))
	}
	b := a.Bytes(0, 16384)
	if b[4095] != 3 || b[12288] != 3 || !bytes.Equal(b[4096:12288], make([]byte, 8192)) {
		t.Error("not exactly the range is zero")
	}
}

func TestDiscardOnALoopDevice(t *testing.T) {
	r := newRing(t, 8, 16)
	if !r.Features().Discard {
		t.Skip("this kernel has no BLOCK_URING_CMD_DISCARD (Linux 6.12)")
	}
	name := t.TempDir() + "/disk"
	if err := os.WriteFile(name, bytes.Repeat([]byte{5}, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", name).CombinedOutput()
	if err != nil {
		t.Skipf("losetup makes no loop device (it takes root): %v %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %v %s", device, err, out)
		}
	})
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("cannot open %s: %v", device, err)
	}
	t.Cleanup(func() { CloseFD(int32(fd)) })
	if err := r.RegisterFiles([]int32{int32(fd)}); err != nil {
		t.Fatal(err)
	}
	if res := single(t, r, func(s *SQE) { PrepDiscard(s, 1, 0, 1<<20, 2<<20) }); res != 0 {
		t.Fatalf("discard: %v", errno(res))
	}
	got := make([]byte, 4<<20)
	if _, err := unix.Pread(fd, got, 0); err != nil {
		t.Fatal(err)
	}
	if got[1<<20-1] != 5 || got[3<<20] != 5 || !bytes.Equal(got[1<<20:3<<20], make([]byte, 2<<20)) {
		t.Error("not exactly the range is zero")
	}
	if res := single(t, r, func(s *SQE) {
		PrepDiscard(s, 2, 0, 1, 3)
	}); errno(res) != syscall.EINVAL {
		t.Errorf("a discard that is not aligned: %d, want EINVAL", res)
	}
}
