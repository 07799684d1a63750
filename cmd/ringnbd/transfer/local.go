// Files and block devices of this machine.
//
// Invariant: a destination is never made smaller, and a file that existed and is not empty is never
// made larger either.

package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"ringnbd/engine/backing"
	"ringnbd/engine/client"
)

// local is a file or block device.
type local struct {
	f      *os.File
	length uint64
	device bool
	part   string // the partition that this is of the file or device; "": the whole
	base   uint64 // where the partition begins
	fresh  bool   // created or grown by us: all of it reads as zeroes
	made   bool
	ours   bool // made here and locked since: no other program has it, so it may be removed
	grows  bool // with a stream, whose length is not known

	calls chan struct{} // its capacity limits the concurrent system calls; nil: no limit
	// file systems serialize writes to a file, and waiting for that in the kernel spins
	writing   sync.Mutex
	writeback writeback

	settling sync.RWMutex          // held for a flush
	lost     atomic.Pointer[error] // the first error of the disk
}

// calls makes the channel that limits the system calls on a file.
func (o *Options) calls() chan struct{} {
	if o.Blocked < 1 {
		return nil
	}
	return make(chan struct{}, o.Blocked)
}

// acquireCall waits until another system call may run; releaseCall ends the call.
func (l *local) acquireCall() {
	if l.calls != nil {
		l.calls <- struct{}{}
	}
}

func (l *local) releaseCall() {
	if l.calls != nil {
		<-l.calls
	}
}

// openSource opens a file or device, or a partition of it, to read.
func openSource(o *Options, text string) (*local, error) {
	path, part := backing.ParsePath(text)
	if info, err := os.Stat(path); err == nil && hasNoBlocks(info.Mode()) {
		return nil, noBlocksError(path, info)
	}
	// O_NONBLOCK because the path may lead to a FIFO by now, which would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, pathError(path, err)
	}
	l := &local{f: f, calls: o.calls(), part: part}
	err = l.measure()
	if err == nil {
		err = o.claimFile(f, backing.Claim{Path: path, Still: true})
	}
	if err == nil && !o.Raw {
		_, err = backing.Look(path, l.length, f.ReadAt)
	}
	if err == nil {
		err = l.narrow(o)
	}
	if err == nil && !o.Raw && part != "" {
		_, err = backing.Look(text, l.length, io.NewSectionReader(f, int64(l.base),
			int64(l.length)).ReadAt)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	// A hint for the kernel: the reads of several slots do not look sequential.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
	return l, nil
}

// narrow finds the partition that is wanted of what is open.
func (l *local) narrow(o *Options) error {
	if l.part == "" {
		return nil
	}
	sector := uint32(0)
	if l.device {
		n, err := unix.IoctlGetInt(int(l.f.Fd()), unix.BLKSSZGET)
		if err != nil {
			return pathError(l.name(), err)
		}
		sector = uint32(n)
	}
	start, length, notes, err := backing.FindPartition(l.name(), l.part, l.length, sector, l.f)
	if err != nil {
		return err
	}
	for _, note := range notes {
		if o.Note != nil {
			o.Note(note)
		}
	}
	l.base, l.length = start, length
	return nil
}

// fixed reports whether the length is given: of a device or a partition, not of a file.
func (l *local) fixed() bool { return l.device || l.part != "" }

// claimFile refuses a file that another program uses in a way that a copy would disturb.
func (o *Options) claimFile(f *os.File, c backing.Claim) error {
	c.Force = o.Force
	notes, err := c.Take(int(f.Fd()))
	for _, note := range notes {
		if o.Note != nil {
			o.Note(note)
		}
	}
	return err
}

// errDestinationGone is a destination that should have the data of an earlier run, and has none.
var errDestinationGone = errors.New("the destination is gone or empty, and should have what was " +
	"copied before")

// openDestination opens a file or device, or a partition of it, to write, and creates a file that
// is missing. If an earlier run has begun, a missing or empty file is an error.
func openDestination(o *Options, text string, source end, begun bool) (*local, error) {
	path, part := backing.ParsePath(text)
	if _, err := os.Stat(path); part != "" && err != nil {
		return nil, pathError(path, err) // nothing is made to find a partition in
	}
	flags, err := destinationFlags(o, path, source.size(), begun)
	if err != nil {
		return nil, err
	}
	c := backing.Claim{Path: path, Write: true, Resize: true}
	f, err := os.OpenFile(path, flags, 0o666)
	if errors.Is(err, syscall.EBUSY) {
		f, err = openBusy(c, path, flags)
	} else if err != nil {
		err = pathError(path, err)
	}
	if err != nil {
		return nil, err
	}
	l := &local{f: f, calls: o.calls(), made: flags&os.O_CREATE != 0, part: part}
	err = l.measure()
	if err == nil {
		err = errors.Join(checkDistinct(source, f, path), l.writable())
	}
	if err == nil {
		err = o.claimFile(f, c)
	}
	if err == nil {
		err = l.checkNotReplaced()
		l.ours = l.made && err == nil
	}
	if err == nil {
		err = l.narrow(o)
	}
	switch _, stream := source.(*inflow); {
	case err != nil:
	case stream:
		err = l.await()
	default:
		err = l.fit(source.size())
	}
	if err != nil {
		return nil, errors.Join(err, l.discard(), f.Close())
	}
	return l, nil
}

// checkNotReplaced refuses a file that the path no longer leads to: until the file was locked,
// another program could put a new file there, and a copy to the old file would be lost with it.
func (l *local) checkNotReplaced() error {
	if !l.device && !l.there() {
		return fmt.Errorf("%s: was replaced or removed while it was opened; start again", l.name())
	}
	return nil
}

// there reports whether the path still leads to the file.
func (l *local) there() bool {
	opened, errOpened := l.f.Stat()
	named, errNamed := os.Stat(l.name())
	return errOpened == nil && errNamed == nil && os.SameFile(opened, named)
}

// discard removes a file that was created here, while its lock keeps other programs out: a file
// that another program has locked first, or has put in its place, is not removed.
func (l *local) discard() error {
	if !l.ours || !l.there() {
		return nil
	}
	return discard(l.name())
}

// destinationFlags are the flags to open a destination with, given what exists there.
func destinationFlags(o *Options, path string, size uint64, begun bool) (flags int, err error) {
	flags = os.O_RDWR | syscall.O_NONBLOCK
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if to, err := os.Readlink(path); err == nil {
			return 0,
				fmt.Errorf("%s: is a symbolic link to %s, which does not exist; name that, or "+
					"remove the link", path, to)
		}
		if begun {
			return 0, errDestinationGone
		}
		return flags | os.O_CREATE | os.O_EXCL, backing.MayMake(path)
	case err != nil:
		return flags, nil // opening it will give the reason
	case hasNoBlocks(info.Mode()):
		return 0, noBlocksError(path, info)
	case backing.BelowDev(path) && isPlain(path):
		return 0,
			fmt.Errorf("%s: is a regular file in a folder of devices, probably made by mistake; "+
				"remove it first", path)
	case info.Mode()&fs.ModeDevice != 0 && !o.Force:
		flags |= os.O_EXCL // a device that is mounted, or otherwise in use, refuses
	case begun && info.Mode().IsRegular() && info.Size() == 0 && size > 0:
		return 0, errDestinationGone
	}
	return flags, nil
}

// isPlain reports whether a path is itself a regular file, and not a link: /dev/stdout may be a
// link.
func isPlain(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().IsRegular()
}

// openBusy opens a device that was busy a moment ago, or returns an error that names its user.
func openBusy(c backing.Claim, path string, flags int) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, pathError(path, err)
	}
	err = c.Occupied(int(f.Fd()))
	_ = f.Close()
	if err != nil {
		return nil, err
	}
	f, err = os.OpenFile(path, flags, 0)
	switch {
	case errors.Is(err, syscall.EBUSY):
		return nil, c.Occupied(-1)
	case err != nil:
		return nil, pathError(path, err)
	}
	return f, nil
}

// noBlocksError is the error for a path that is neither a file nor a block device.
func noBlocksError(path string, info fs.FileInfo) error {
	if info.IsDir() {
		return fmt.Errorf("%s: is a directory; name a file in it", path)
	}
	if info.Mode()&(fs.ModeNamedPipe|fs.ModeCharDevice) != 0 {
		return fmt.Errorf("%s: neither a file nor a block device; a pipe is standard input or "+
			"output, which is written -", path)
	}
	return fmt.Errorf("%s: neither a file nor a block device", path)
}

// fit gives an empty file the size of the source, and refuses a file of another size.
func (l *local) fit(size uint64) error {
	switch {
	case l.length == size:
		l.fresh = l.made
	case l.length == 0 && !l.fixed():
		if err := l.f.Truncate(int64(size)); err != nil {
			return pathError(l.name(), err)
		}
		l.length, l.fresh = size, true
	case l.length < size:
		return fmt.Errorf("%s: has %d bytes, fewer than the source's %d", l.name(), l.length, size)
	case !l.fixed():
		return fmt.Errorf("%s: has %d bytes, more than the source's %d, and is not truncated; "+
			"remove it first", l.name(), l.length, size)
	}
	return nil
}

// measure reads the size, and refuses a path that is neither a file nor a block device.
func (l *local) measure() error {
	info, err := l.f.Stat()
	if err != nil {
		return err
	}
	if hasNoBlocks(info.Mode()) {
		return noBlocksError(l.name(), info)
	}
	l.length = uint64(info.Size())
	if info.Mode()&fs.ModeDevice != 0 {
		n, err := l.f.Seek(0, io.SeekEnd)
		if err != nil {
			return pathError(l.name(), err)
		}
		l.length, l.device = uint64(n), true
	}
	return nil
}

// writable refuses a read-only device, which some kernels let open for writing.
func (l *local) writable() error {
	if !l.device {
		return nil
	}
	flag, err := unix.IoctlGetUint32(int(l.f.Fd()), unix.BLKROGET)
	if err == nil && flag != 0 {
		return fmt.Errorf("%s: the device is read-only (blockdev --setrw makes it writable, "+
			"if it can be)", l.name())
	}
	return nil
}

// hasNoBlocks reports whether a mode is neither that of a file nor of a block device.
func hasNoBlocks(mode fs.FileMode) bool {
	return !mode.IsRegular() && (mode&fs.ModeDevice == 0 || mode&fs.ModeCharDevice != 0)
}

// pathError is an error with the path and without the name of the system call.
func pathError(path string, err error) error { return fmt.Errorf("%s: %w", path, bareError(err)) }

// bareError is an error without the names of the system call and the file.
func bareError(err error) error {
	var inner *fs.PathError
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return err
}

func (l *local) name() string    { return l.f.Name() }
func (l *local) block() uint64   { return 1 }
func (l *local) payload() uint64 { return 1 << 30 }
func (l *local) stretch() uint64 { return 1 << 30 }
func (l *local) grain() uint64   { return 4 << 10 }
func (l *local) lanes() int      { return 1 }
func (l *local) mapped() bool    { return !l.device }
func (l *local) close() error    { return l.f.Close() }

func (l *local) size() uint64 {
	if l.grows {
		return math.MaxInt64
	}
	return l.length
}

// await prepares a destination for a source whose size is not known.
func (l *local) await() error {
	switch {
	case l.fixed():
		return nil
	case l.length > 0:
		return fmt.Errorf("%s: has %d bytes, and the length of standard input is not known "+
			"before its end; remove it first", l.name(), l.length)
	}
	l.fresh, l.grows = true, true
	return nil
}

// finish gives a file that grew its final length: zeroes at the end were not written.
func (l *local) finish(length uint64) error {
	if err := l.f.Truncate(int64(length)); err != nil {
		return pathError(l.name(), err)
	}
	l.length, l.grows = length, false
	return nil
}

// extents asks the file system for holes. A range that it does not describe counts as data.
func (l *local) extents(ctx context.Context, end uint64, visit func(extent) error) error {
	end = min(end, l.length)
	for at := uint64(0); at < end; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		data, err := l.seek(at, unix.SEEK_DATA)
		switch {
		case errors.Is(err, syscall.ENXIO):
			return visit(extent{at, end - at, true})
		case err != nil || l.device:
			return visit(extent{at, end - at, false})
		case data > at:
			if err := visit(extent{at, min(data, end) - at, true}); err != nil {
				return err
			}
		}
		if at = data; at >= end {
			break
		}
		hole, err := l.seek(at, unix.SEEK_HOLE)
		if err != nil || hole <= at {
			hole = end
		}
		to := min(hole, end)
		if err := visit(extent{at, to - at, false}); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// seek finds data or a hole.
func (l *local) seek(at uint64, whence int) (uint64, error) {
	found, err := unix.Seek(int(l.f.Fd()), int64(l.base+at), whence)
	return uint64(found) - l.base, err
}

func (l *local) read(_ context.Context, _ int, _ *client.Request, b []byte, offset uint64) error {
	l.acquireCall()
	n, err := l.f.ReadAt(b, int64(l.base+offset))
	l.releaseCall()
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: ends before offset %d, and had %d bytes when the copy began: it "+
			"must not change during the copy", l.name(), offset+uint64(len(b)), l.length)
	}
	return fmt.Errorf("%w at offset %d", pathError(l.name(), err), offset+uint64(n))
}

func (l *local) write(_ context.Context, _ int, _ *client.Request, b []byte, offset uint64) error {
	l.writing.Lock()
	n, err := l.f.WriteAt(b, int64(l.base+offset))
	begin, settle := l.writeback.noteWritten(l.base+offset, uint64(n))
	l.writing.Unlock()
	if err != nil {
		return fmt.Errorf("%w at offset %d", pathError(l.name(), err), offset+uint64(n))
	}
	return l.startWriteback(begin, settle)
}

func (l *local) zero(_ context.Context, _ int, _ *client.Request, offset, length uint64,
	hole bool) (bool, error) {
	mode := uint32(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
	if !hole {
		mode = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
	}
	for {
		l.acquireCall()
		err := unix.Fallocate(int(l.f.Fd()), mode, int64(l.base+offset), int64(length))
		l.releaseCall()
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.EINVAL),
			errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENOSYS),
			errors.Is(err, syscall.EPERM):
			return false, nil
		}
		return false, fmt.Errorf("%s: zeroes at offset %d: %w", l.name(), offset, err)
	}
}

// unwritten is the error of a disk that has lost data of the page cache.
func (l *local) unwritten(err error) error {
	return fmt.Errorf("%w while flushing: not all of the copy is on the disk",
		pathError(l.name(), err))
}

// flush brings all data to the disk. Once a flush has failed, every later flush fails: the kernel
// reports an error once, and the data stays lost.
func (l *local) flush(context.Context) error {
	l.settling.Lock()
	defer l.settling.Unlock()
	if err := l.f.Sync(); err != nil {
		err = l.unwritten(err)
		l.lost.CompareAndSwap(nil, &err)
	}
	if lost := l.lost.Load(); lost != nil {
		return *lost
	}
	return nil
}

func (l *local) dropCache() {
	// Only clean pages are dropped, and a file system without a disk ignores the call.
	_ = unix.Fadvise(int(l.f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// checkDistinct refuses a destination that is the source, by whatever names or redirections.
func checkDistinct(source end, to *os.File, name string) error {
	var from *os.File
	switch s := source.(type) {
	case *local:
		from = s.f
	case *inflow:
		from = s.f
	default:
		return nil
	}
	a, errA := from.Stat()
	b, errB := to.Stat()
	if errA != nil || errB != nil || hasNoBlocks(a.Mode()) || hasNoBlocks(b.Mode()) {
		return nil
	}
	x, okX := a.Sys().(*syscall.Stat_t)
	y, okY := b.Sys().(*syscall.Stat_t)
	device := a.Mode()&fs.ModeDevice != 0 && b.Mode()&fs.ModeDevice != 0
	if os.SameFile(a, b) || okX && okY && device && x.Rdev == y.Rdev {
		return fmt.Errorf("%s and %s are the same file", source.name(), name)
	}
	return nil
}
