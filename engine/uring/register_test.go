// Tests of registration: buffers larger than one piece, files, workers, and the limit on locked
// memory.

package uring

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestArenaLargerThanOneBuffer(t *testing.T) {
	const size = bufferSize + 4<<20
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil || info.Freeram*uint64(info.Unit) < 3*size {
		t.Skip("less than 3 GiB of memory are free")
	}
	if err := CheckMemlock(size); err != nil {
		t.Skip(err)
	}
	r, a := newRing(t, 8, 16), newArena(t, size, true)
	if err := r.RegisterBuffers(a); err != nil {
		t.Fatal(err)
	}
	fd := newFile(t, t.TempDir(), 1<<20, 0)
	if err := r.RegisterFiles([]int32{fd}); err != nil {
		t.Fatal(err)
	}
	for i, off := range []uint64{0, bufferSize - 4096, bufferSize, size - 4096} {
		want := bytes.Repeat([]byte{byte(i + 1)}, 4096)
		copy(a.Bytes(off, 4096), want)
		buffer := uint16(off >> BufferShift)
		if res := single(t, r, func(s *SQE) {
			PrepWriteFixed(s, 1, 0, buffer, a.Addr(off), 4096, 0, 0)
		}); res != 4096 {
			t.Fatalf("write from %#x in buffer %d: %d", off, buffer, res)
		}
		clear(a.Bytes(off, 4096))
		if res := single(t, r, func(s *SQE) {
			PrepReadFixed(s, 1, 0, buffer, a.Addr(off), 4096, 0, 0)
		}); res != 4096 {
			t.Fatalf("read to %#x in buffer %d: %d", off, buffer, res)
		}
		if !bytes.Equal(a.Bytes(off, 4096), want) {
			t.Errorf("at %#x", off)
		}
		if res := single(t, r, func(s *SQE) {
			PrepReadFixed(s, 1, 0, 1-buffer, a.Addr(off), 4096, 0, 0)
		}); errno(res) != syscall.EFAULT {
			t.Errorf("read to %#x in the other buffer: %d, want EFAULT", off, res)
		}
	}
	if res := single(t, r, func(s *SQE) {
		PrepReadFixed(s, 1, 0, 0, a.Addr(bufferSize-4096), 8192, 0, 0)
	}); errno(res) != syscall.EFAULT {
		t.Errorf("read over the line between two buffers: %d, want EFAULT", res)
	}
}

// giouring passes 8-byte numbers, so that the kernel sees descriptor 0 in every second place.
func TestEveryRegisteredFileIsTheRightOne(t *testing.T) {
	r, a := newRing(t, 8, 16), newArena(t, 4096, false)
	if err := r.RegisterBuffers(a); err != nil {
		t.Fatal(err)
	}
	var fds []int32
	for i := range 5 {
		fd := newFile(t, t.TempDir(), 16, 0)
		if _, err := unix.Pwrite(int(fd), []byte{byte(i)}, 0); err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	if err := r.RegisterFiles(nil); err != nil {
		t.Errorf("no files: %v", err)
	}
	if err := r.RegisterFiles(fds); err != nil {
		t.Fatal(err)
	}
	for i := range fds {
		a.Bytes(0, 1)[0] = 0xff
		if res := single(t, r, func(s *SQE) {
			PrepReadFixed(s, 1, uint32(i), 0, a.Addr(0), 1, 0, 0)
		}); res != 1 || a.Bytes(0, 1)[0] != byte(i) {
			t.Errorf("file %d: result %d, byte %d", i, res, a.Bytes(0, 1)[0])
		}
	}
}

func TestRegistrationErrorsAreNotLost(t *testing.T) {
	r, a := newRing(t, 8, 16), newArena(t, 4096, false)
	fd := int32(newEventfd(t))
	if err := r.RegisterFiles([]int32{fd, 9999}); errnoOf(err) != syscall.EBADF {
		t.Errorf("a descriptor that is not open: %v", err)
	}
	if err := r.RegisterFiles([]int32{fd}); err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterFiles([]int32{fd}); errnoOf(err) != syscall.EBUSY {
		t.Errorf("files again: %v, want EBUSY", err)
	}
	if err := r.RegisterBuffers(a); err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterBuffers(a); errnoOf(err) != syscall.EBUSY {
		t.Errorf("buffers again: %v, want EBUSY", err)
	}
	if err := r.RegisterBuffers(&Arena{}); err == nil {
		t.Error("an empty arena was registered")
	}
}

func TestCloseReleasesRegisteredFilesAtOnce(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	name := t.TempDir() + "/disk"
	for rung := range rungs {
		for i := range 150 {
			fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
				t.Fatalf("rung %d, round %d: the file is still locked by the ring before: %v", rung,
					i, err)
			}
			syncAndClose(t, rungs[rung:], []int32{int32(fd), -1, int32(fd)}[:1+i%3], i%4 == 3)
			CloseFD(int32(fd))
		}
	}
}

// syncAndClose runs an fsync on registered file 0 of a new ring and closes the ring, with the fsync
// still in flight if wanted.
func syncAndClose(t *testing.T, ladder []uint32, files []int32, inFlight bool) {
	t.Helper()
	r, err := open(Config{Entries: 8}, ladder)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterFiles(files); err != nil {
		t.Fatal(err)
	}
	if inFlight {
		PrepFsync(r.SQE(), 1, 0, true)
		if err := r.Enter(0, 0); err != nil {
			t.Fatal(err)
		}
	} else if res := single(t, r, func(s *SQE) { PrepFsync(s, 1, 0, true) }); res != 0 {
		t.Fatalf("fsync: %v", errno(res))
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if r.files != 0 {
		t.Fatalf("%d files are still held after Close", r.files)
	}
}

func TestWorkersAreLimited(t *testing.T) {
	r := newRing(t, 8, 16)
	if err := r.LimitWorkers(3, 5); err != nil {
		t.Fatal(err)
	}
	// The call returns the values before it, in place: read them back with two zeroes.
	limits := [2]uint32{}
	// SAFETY: the kernel reads and writes two 32-bit numbers during the call only.
	if errno := r.register(19, unsafe.Pointer(&limits[0]), 2); errno != 0 ||
		limits != [2]uint32{3, 5} {
		t.Errorf("limits are %v, %v", limits, errno)
	}
}

// The roles run in a process of their own, which may lower its limits and filter its system calls.
func playRole(role string) int {
	runtime.LockOSThread()
	switch role {
	case "memlock":
		return playMemlock()
	case "memlock cycles":
		return playMemlockCycles()
	case "EPERM":
		return playFiltered(syscall.EPERM)
	case "ENOSYS":
		return playFiltered(syscall.ENOSYS)
	}
	fmt.Println("unknown role", role)
	return 1
}

func runRole(t *testing.T, role string) string {
	t.Helper()
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), "URING_TEST_ROLE="+role)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("role %s: %v\n%s", role, err, out)
	}
	return strings.TrimSpace(string(out))
}

// limitMemlock takes CAP_IPC_LOCK from this thread and lowers the limit.
func limitMemlock(bytes uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_IPC_LOCK
	data[0].Permitted &^= 1 << unix.CAP_IPC_LOCK
	if err := unix.Capset(&header, &data[0]); err != nil {
		return err
	}
	return unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: bytes, Max: bytes})
}

func playMemlock() int {
	if err := limitMemlock(1 << 20); err != nil {
		fmt.Println(err)
		return 1
	}
	r, err := Open(Config{Entries: 8})
	if err != nil {
		fmt.Println("Open:", err)
		return 1
	}
	small, _ := NewArena(256<<10, false)
	large, _ := NewArena(3<<20, false)
	if err := r.RegisterBuffers(large); err != nil {
		fmt.Println("register:", err)
	}
	fmt.Println("check:", CheckMemlock(5<<20))
	fmt.Println("small check:", CheckMemlock(256<<10))
	fmt.Println("small:", r.RegisterBuffers(small))
	second, err := Open(Config{Entries: 8})
	if err != nil {
		fmt.Println("Open:", err)
		return 1
	}
	fmt.Println("second:", second.RegisterBuffers(large))
	fmt.Println("shared:", pinError(4096, 1<<20))
	return 0
}

func TestMemlockErrorSaysHowMuchAndWhatToDo(t *testing.T) {
	out := runRole(t, "memlock")
	for _, want := range []string{
		"register: locked memory is limited to 1 MiB (RLIMIT_MEMLOCK) and 4 MiB are needed: " +
			"raise the limit (`ulimit -l 4096`;",
		"check: locked memory is limited to 1 MiB (RLIMIT_MEMLOCK) and 5 MiB are needed",
		"small check: <nil>",
		"small: <nil>",
		// with what the first ring holds
		"second: locked memory is limited to 1 MiB (RLIMIT_MEMLOCK) and 4 MiB are needed",
		"shared: locked memory is limited to 1 MiB (RLIMIT_MEMLOCK) for all programs of this " +
			"user, and they have left less than the 1 MiB that are needed: end some, raise the " +
			"limit (`ulimit -l 2048`;",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

// Without a limit, or with the right to go beyond it, memory that cannot be pinned is memory that
// is not there.
func TestPinErrorOfAFullMachine(t *testing.T) {
	if !mayLock(1 << 40) {
		t.Skip("RLIMIT_MEMLOCK holds for this user: it is the likelier cause")
	}
	var memory *memoryError
	if err := pinError(4096, 1<<40); !errors.As(err, &memory) || memory.Bytes != 4096 {
		t.Error(err)
	}
}

// Parts of an arena are registered one by one, when they are wanted; what was not may not be used.
func TestSparseBuffers(t *testing.T) {
	r, a := newRing(t, 8, 16), newArena(t, 5<<20, true)
	if err := r.SparseBuffers(a); err != nil {
		t.Fatal(err)
	}
	if err := r.FirstBuffer(); err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterFiles([]int32{newFile(t, t.TempDir(), 1<<20, 0)}); err != nil {
		t.Fatal(err)
	}
	read := func(buffer uint16, off uint64) int32 {
		return single(t, r, func(s *SQE) {
			PrepReadFixed(s, 1, 0, buffer, a.Addr(off), 4096, 0, 0)
		})
	}
	if res := read(0, 1<<20); res != 4096 {
		t.Errorf("through the first buffer: %d", res)
	}
	if res := read(1, 2<<20); res != -int32(syscall.EFAULT) {
		t.Errorf("through a buffer that is not registered: %d", res)
	}
	last := uint64(6<<20) - 4096 // the arena is whole huge pages
	if !r.RegisterBuffer(2) || read(2, last) != 4096 {
		t.Error("the last buffer does not serve")
	}
	if res := read(1, 2<<20); res != -int32(syscall.EFAULT) {
		t.Errorf("through a buffer that is still not registered: %d", res)
	}
	if res := single(t, r, func(s *SQE) {
		PrepReadFile(s, 1, 0, a.Addr(2<<20), 4096, 0, 0)
	}); res != 4096 {
		t.Errorf("without one: %d", res)
	}
	if res := single(t, r, func(s *SQE) {
		PrepWriteFile(s, 1, 0, a.Addr(2<<20), 4096, 0, WriteDsync)
	}); res != 4096 {
		t.Errorf("a write without one: %d", res)
	}
	if allocs := testing.AllocsPerRun(1, func() { r.fillBuffer(1) }); allocs != 0 {
		t.Errorf("registering a buffer allocates %v times", allocs)
	}
	if n := SparseShift(32 << 30); n != 21 {
		t.Errorf("32 GiB in parts of 2^%d", n)
	}
	if n := SparseShift(32<<30 + 1); n != 22 {
		t.Errorf("a byte more in parts of 2^%d", n)
	}
}

// Close unpins at once: the next ring may pin the same amount although both together would not fit.
func playMemlockCycles() int {
	if err := limitMemlock(1 << 20); err != nil {
		fmt.Println(err)
		return 1
	}
	for i := range 30 {
		r, err := Open(Config{Entries: 8})
		if err != nil {
			fmt.Println("Open:", err)
			return 1
		}
		a, err := NewArena(700<<10, false)
		if err != nil {
			fmt.Println("NewArena:", err)
			return 1
		}
		if err := r.RegisterBuffers(a); err != nil {
			fmt.Println("cycle", i, err)
			return 1
		}
		if err := r.Close(); err != nil {
			fmt.Println("Close:", err)
			return 1
		}
		if err := a.Close(); err != nil {
			fmt.Println("Arena.Close:", err)
			return 1
		}
	}
	fmt.Println("charged", chargedAll.Load())
	return 0
}

func TestCloseUnpinsAtOnce(t *testing.T) {
	if out := runRole(t, "memlock cycles"); out != "charged 0" {
		t.Error(out)
	}
}

// TestSetFile checks that a place is filled and emptied while the ring works: an operation finds
// the file that is there, the file stays locked until the kernel has let go of it, which a
// completion says, and the ring does not take that for the end of a request.
func TestSetFile(t *testing.T) {
	r := newRing(t, 8, 16)
	if err := r.RegisterFiles([]int32{-1, -1}); err != nil {
		t.Fatal(err)
	}
	for round := range 100 {
		path := filepath.Join(t.TempDir(), "f")
		fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CREAT|syscall.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			t.Fatal(err)
		}
		if err := r.SetFile(1, int32(fd)); err != nil {
			t.Fatal(err)
		}
		_ = syscall.Close(fd)
		PrepFsync(r.SQE(), uint64(round), 1, true)
		var out [1]CQE
		next := func() CQE {
			for r.Reap(out[:]) == 0 {
				if err := r.Enter(1, time.Second); err != nil {
					t.Fatal(err)
				}
			}
			return out[0]
		}
		if c := next(); c.Res != 0 || c.UserData != uint64(round) {
			t.Fatalf("round %d: %+v", round, c)
		}
		if err := r.SetFile(1, -1); err != nil {
			t.Fatal(err)
		}
		if c := next(); c.UserData != ReleasedKind<<56|1 {
			t.Fatalf("round %d: %+v", round, c)
		}
		r.FileReleased()
		if n := r.inFlight(); n != 0 || r.files != 0 {
			t.Fatalf("%d requests are in flight, %d files are there", n, r.files)
		}
		again, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Flock(again, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			t.Fatalf("round %d: the file is still locked: %v", round, err)
		}
		_ = syscall.Close(again)
	}
	if err := r.SetFile(1, 1<<20); errnoOf(err) != syscall.EBADF {
		t.Errorf("a descriptor that is not open: %v", err)
	}
	if err := r.SetFile(2, 0); errnoOf(err) != syscall.EINVAL {
		t.Errorf("a place that is not there: %v", err)
	}
}
