// base:allocation on real files: what is called zero is zero, whatever was done to the file and
// however little of it has reached the disk; what is a hole is found.

package backing

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/uring"
)

// said is one extent.
type said struct{ off, length, status uint64 }

// status asks a context about a range, checks that the answer has no gaps, and cuts it at the end
// of the range.
func status(t *testing.T, c engine.Context, off, n uint64) (list []said) {
	t.Helper()
	at, end := off, off+n
	err := c.Status(off, n, func(length, status uint64) bool {
		if length == 0 || at >= end {
			t.Fatalf("%d bytes of %d at %d, asked for [%d, %d)", length, status, at, off, end)
		}
		length = min(length, end-at)
		if k := len(list); k > 0 && list[k-1].status == status {
			list[k-1].length += length
		} else {
			list = append(list, said{at, length, status})
		}
		at += length
		return at < end
	})
	if err != nil || at < end {
		t.Fatalf("[%d, %d): covered up to %d: %v", off, end, at, err)
	}
	return list
}

// places are the file systems that can be had here.
func places(t *testing.T, test func(t *testing.T, directory string)) {
	t.Run("temporary directory", func(t *testing.T) { test(t, t.TempDir()) })
	t.Run("tmpfs", func(t *testing.T) { test(t, tmpfs(t)) })
	t.Run("ext4", func(t *testing.T) {
		test(t, mounted(t, loopDevice(t, 512<<20), "ext4", "-q", "-b", "4096"))
	})
	t.Run("ext4 of small blocks", func(t *testing.T) {
		test(t, mounted(t, loopDevice(t, 512<<20), "ext4", "-q", "-b", "1024"))
	})
	t.Run("xfs", func(t *testing.T) { test(t, mounted(t, loopDevice(t, 512<<20), "xfs", "-q")) })
}

// opened is a fresh sparse file, a second descriptor to change it through, and its context.
func opened(t *testing.T, directory string, size int64) (*os.File, engine.Context) {
	t.Helper()
	path := image(t, directory, size)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	b := mustOpen(t, Spec{Path: path})
	t.Cleanup(func() { b.Close() }) // before what it lies on is unmounted
	return f, b.Engine().Contexts[0]
}

// write writes ones.
func write(t *testing.T, f *os.File, off, n int64) {
	t.Helper()
	if _, err := f.WriteAt(bytes.Repeat([]byte{1}, int(n)), off); err != nil {
		t.Fatal(err)
	}
}

// allocate is fallocate, skipped where the file system has none of this kind.
func allocate(t *testing.T, f *os.File, mode uint32, off, n int64) {
	t.Helper()
	if err := unix.Fallocate(int(f.Fd()), mode, off, n); err == unix.EOPNOTSUPP {
		t.Skipf("fallocate with mode %#x does not work here", mode)
	} else if err != nil {
		t.Fatal(err)
	}
}

// at is the status of one byte.
func at(list []said, off uint64) uint64 {
	for _, x := range list {
		if off >= x.off && off < x.off+x.length {
			return x.status
		}
	}
	return ^uint64(0)
}

func TestAllocationOfASparseFile(t *testing.T) {
	const size = 64 << 20
	places(t, func(t *testing.T, directory string) {
		f, c := opened(t, directory, size)
		if list := status(t, c, 0, size); len(list) != 1 || list[0].status != hole {
			t.Fatalf("an empty file: %+v", list)
		}
		write(t, f, 1<<20, 1<<20)
		write(t, f, 32<<20, 4096)
		for _, synced := range []bool{false, true} {
			if synced {
				if err := f.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			list := status(t, c, 0, size)
			for off, want := range map[uint64]uint64{0: hole, 1<<20 - 1: hole, 1 << 20: data,
				2<<20 - 1: data, 3 << 20: hole, 32 << 20: data, 32<<20 + 4095: data,
				size - 1: hole} {
				if got := at(list, off); got != want {
					t.Errorf("synced %v: %d at %d, want %d: %+v", synced, got, off, want, list)
				}
			}
			if part := status(t, c, 1<<20+777, 512); len(part) != 1 || part[0].status != data {
				t.Errorf("inside the data: %+v", part)
			}
			if part := status(t, c, size-1, 1); len(part) != 1 || part[0].status != hole {
				t.Errorf("the last byte: %+v", part)
			}
		}
	})
}

// Blocks without data are zeroes; data that only the page cache
// has is not.
func TestAllocationOfPreallocatedBlocks(t *testing.T) {
	const size = 16 << 20
	places(t, func(t *testing.T, directory string) {
		f, c := opened(t, directory, size)
		allocate(t, f, 0, 0, 8<<20)
		list := status(t, c, 0, size)
		// elsewhere they look like a hole
		if got := at(list, 0); fileSystem(int(f.Fd())) == "ext4" && got != zeroes {
			t.Errorf("blocks that are there, and without data: %+v", list)
		}
		if got := at(list, 12<<20); got != hole {
			t.Errorf("behind them: %+v", list)
		}
		write(t, f, 4<<20, 4096) // not synced
		write(t, f, 6<<20+100, 1)
		list = status(t, c, 0, size)
		if at(list, 4<<20) != data || at(list, 4<<20+4095) != data || at(list, 6<<20+100) != data {
			t.Fatalf("data in the page cache is called zero: %+v", list)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		list = status(t, c, 0, size)
		if at(list, 4<<20) != data || at(list, 6<<20+100) != data {
			t.Fatalf("after fsync: %+v", list)
		}
		truth(t, f, list)
	})
}

// Where blocks are shared with another file, XFS keeps new data for the
// blocks next to them where FIEMAP does not look.
func TestAllocationBesideAClone(t *testing.T) {
	const size = 4 << 20
	directory := mounted(t, loopDevice(t, 512<<20), "xfs", "-q", "-m", "reflink=1")
	f, err := os.OpenFile(image(t, directory, size), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	b := mustOpen(t, Spec{Path: f.Name(), Direct: DirectOff})
	t.Cleanup(func() { b.Close() })
	write(t, f, 0, 4096)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	clone, err := os.Create(filepath.Join(directory, "clone"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = clone.Close() })
	if err := unix.IoctlFileClone(int(clone.Fd()), int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	write(t, f, 0, 4096)
	write(t, f, 8192, 4096)
	list := status(t, b.Engine().Contexts[0], 0, size)
	if at(list, 0) != data || at(list, 8192) != data {
		t.Fatalf("data in the page cache is called zero: %+v", list)
	}
	truth(t, f, list)
}

// What it has lost is not zero, for to read it is an error.
func TestAllocationOfAFileThatShrank(t *testing.T) {
	const size = 8 << 20
	places(t, func(t *testing.T, directory string) {
		f, c := opened(t, directory, size)
		if err := f.Truncate(1 << 20); err != nil {
			t.Fatal(err)
		}
		list := status(t, c, 0, size)
		if at(list, 0) != hole || at(list, 1<<20) != data || at(list, size-1) != data {
			t.Errorf("%+v", list)
		}
		if list := status(t, c, 2<<20, 1<<20); len(list) != 1 || list[0].status != data {
			t.Errorf("behind the end: %+v", list)
		}
	})
}

// Extents that were not written are not looked into one by one, nor at all
// for a while after that took long.
func TestLookaheadAsksOnce(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	var statuses []uint64
	emit := func(_, status uint64) bool { statuses = append(statuses, status); return true }
	look := lookahead{fd: int(f.Fd()), rest: new(atomic.Int64)}
	look.extent(0, 4096, uring.FiemapUnwritten, emit)
	look.fd = -1 // a second seek fails, and means data
	look.extent(8192, 12288, uring.FiemapUnwritten, emit)
	look.extent(65536, 1<<20, uring.FiemapUnwritten, emit)
	if !slices.Equal(statuses, []uint64{zeroes, zeroes, zeroes}) {
		t.Errorf("three extents without data: %v", statuses)
	}
	statuses = nil
	tired := lookahead{fd: int(f.Fd()), rest: new(atomic.Int64)}
	tired.rest.Store(1 << 62)
	tired.extent(0, 4096, uring.FiemapUnwritten, emit)
	if !slices.Equal(statuses, []uint64{data}) {
		t.Errorf("while it rests: %v", statuses)
	}
}

// Extents that were not written and are in the page cache cost
// as little as those that are not. Each of many used to be a walk over all that follow it.
func TestLookaheadRemembersBothAnswers(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	var list []said
	emit := func(length, status uint64) bool {
		list = append(list, said{length: length, status: status})
		return true
	}
	look := lookahead{fd: int(f.Fd()), rest: new(atomic.Int64)}
	look.extent(0, 4096, uring.FiemapUnwritten, emit)
	look.fd = -1 // a second seek would mean data; what counts is that nothing is forgotten
	for off := uint64(8192); off < 1<<20; off += 8192 {
		if _, status, ok := look.at(off); !ok || status != data {
			t.Fatalf("at %d: status %d, known %t", off, status, ok)
		}
	}
	if len(list) != 1 || list[0].status != data {
		t.Errorf("%+v", list)
	}
}

// truth reads what is called zero.
func truth(t *testing.T, f *os.File, list []said) {
	t.Helper()
	b := make([]byte, 1<<20)
	for _, x := range list {
		for off, end := x.off, x.off+x.length; x.status&zeroes != 0 &&
			off < end; off += uint64(len(b)) {
			part := b[:min(uint64(len(b)), end-off)]
			if _, err := f.ReadAt(part, int64(off)); err != nil {
				t.Fatal(err)
			}
			if i := bytes.IndexFunc(part, func(r rune) bool { return r != 0 }); i >= 0 {
				t.Fatalf("[%d, +%d) is called zero, and byte %d is not", x.off, x.length,
					off+uint64(i))
			}
		}
	}
}

// TestAllocationIsTrue does everything to files that can be done, in any order, and compares.
func TestAllocationIsTrue(t *testing.T) {
	const size = 8 << 20
	places(t, func(t *testing.T, directory string) {
		random := rand.New(rand.NewPCG(11, 12))
		f, c := opened(t, directory, size)
		fd := int(f.Fd())
		for range 120 {
			off := random.Int64N(size)
			n := 1 + random.Int64N(min(size-off, []int64{600, 9000, 1 << 20}[random.IntN(3)]))
			switch random.IntN(8) {
			case 0:
				_ = unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n)
			case 1:
				_ = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
			case 2:
				_ = unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
			case 3:
				_ = unix.Fdatasync(fd)
			case 4:
				_ = unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
			default:
				write(t, f, off, n)
			}
			from := random.Uint64N(size)
			truth(t, f, status(t, c, from, 1+random.Uint64N(size-from)))
		}
		truth(t, f, status(t, c, 0, size))
	})
}

// A write that was answered is seen by every lookup that begins
// then.
func TestAllocationWhileOthersWrite(t *testing.T) {
	const size, block, rounds = 16 << 20, 4096, 500
	places(t, func(t *testing.T, directory string) {
		f, c := opened(t, directory, size)
		_ = unix.Fallocate(int(f.Fd()), 0, 0, size/2)
		var all sync.WaitGroup
		for w := range int64(3) {
			all.Go(func() {
				random := rand.New(rand.NewPCG(uint64(w), 1))
				for i := range rounds {
					off := (random.Int64N(size/block/3)*3 + w) * block // each its own blocks
					if _, err := f.WriteAt(bytes.Repeat([]byte{1}, block), off); err != nil {
						t.Error(err)
						return
					}
					if i%100 == 0 && w == 0 {
						_ = unix.Fdatasync(int(f.Fd()))
					}
					bad := false
					err := c.Status(uint64(off), block, func(_, status uint64) bool {
						bad = status&zeroes != 0
						return false
					})
					if err != nil || bad {
						t.Errorf("block at %d is called zero right after it was written (%v)", off,
							err)
						return
					}
				}
			})
		}
		all.Wait()
	})
}

// Offsets and lengths have 64 bits.
func TestAllocationBeyond4GiB(t *testing.T) {
	const size = 1 << 40
	f, c := opened(t, t.TempDir(), size)
	write(t, f, 5<<30, 4096)
	write(t, f, size-4096, 4096)
	list := status(t, c, 0, size)
	if len(list) != 4 || list[0].length != 5<<30 || at(list, 5<<30) != data ||
		at(list, 6<<30) != hole || at(list, size-1) != data {
		t.Fatalf("%+v", list)
	}
	if part := status(t, c, 6<<30, 1<<39); len(part) != 1 || part[0].status != hole {
		t.Errorf("%+v", part)
	}
}

// A file in so many pieces is walked in a moment, from the beginning
// and from the middle.
func TestAllocationOfManyExtents(t *testing.T) {
	const pieces, block = 20000, 4096
	for _, directory := range []string{t.TempDir(), tmpfs(t)} {
		f, c := opened(t, directory, 2*pieces*block)
		for i := range int64(pieces) {
			write(t, f, 2*i*block, block)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		list := status(t, c, 0, 2*pieces*block)
		took := time.Since(start)
		if len(list) != 2*pieces {
			t.Fatalf("%d extents, want %d", len(list), 2*pieces)
		}
		for i, x := range list {
			if x.off != uint64(i)*block || x.length != block ||
				x.status != [2]uint64{data, hole}[i%2] {
				t.Fatalf("extent %d: %+v", i, x)
			}
		}
		if took > 20*time.Second {
			t.Errorf("%d extents took %v", len(list), took)
		}
		if part := status(t, c, pieces*block, 10*block); len(part) != 10 ||
			part[0].off != pieces*block {
			t.Errorf("from the middle: %+v", part)
		}
	}
}

func TestAllocationOfReadOnlyExports(t *testing.T) {
	path := image(t, t.TempDir(), 1<<20)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, 512<<10, 4096)
	_ = f.Close()
	for _, mode := range []DirectMode{DirectAuto, DirectOff} {
		c := mustOpen(t, Spec{Path: path, ReadOnly: true, Direct: mode}).Engine().Contexts[0]
		if list := status(t, c, 0, 1<<20); len(list) != 3 || at(list, 0) != hole ||
			at(list, 512<<10) != data {
			t.Errorf("%+v", list)
		}
	}
}

// A null export is a hole; of a block device and of memory nothing is
// known.
func TestAllocationOfOthers(t *testing.T) {
	for path, want := range map[string]uint64{"null:1G": hole, "memory:1M": data} {
		c := mustOpen(t, Spec{Path: path}).Engine().Contexts[0]
		if list := status(t, c, 512, 1<<20-512); len(list) != 1 || list[0].status != want {
			t.Errorf("%s: %+v", path, list)
		}
	}
	c := mustOpen(t, Spec{Path: loopDevice(t, 8<<20)}).Engine().Contexts[0]
	if list := status(t, c, 0, 8<<20); len(list) != 1 || list[0].status != data {
		t.Errorf("block device: %+v", list)
	}
}
