// Regular files: whether the file system takes O_DIRECT and in what units, and which kinds of
// fallocate it has.
//
// Invariant: Device.Direct is true only after the flag was set on the descriptor and the alignment
// is known; the granularity then covers both the file offset and the memory, so the engine needs
// one number.

package backing

import (
	"fmt"
	"math/bits"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxBlock is the coarsest granularity that the engine's read-modify-write handles, in bytes: a
// page of a lease.
const maxBlock = 4096

// maxFileBlock limits what is believed to be a file system's block, in bytes: no page is larger. A
// larger number is a wish about the length of transfers (NFS, XFS on stripes), not a length below
// which writes cost a read.
const maxFileBlock = 64 << 10

// fileSystemKind is what is known about a kind of file system.
type fileSystemKind struct {
	name             string
	punch, zeroRange bool // in Linux 5.19 and newer
	pageCache        bool // O_DIRECT can be set but is ignored, or has no meaning
	local            bool // writing into the page cache waits for no network and no other process
	freezes          bool // fsfreeze(8) can stop it
	waits            bool // reading and writing wait for a network or another process
}

// fileSystems are the known file systems, by statfs(2) magic.
var fileSystems = map[int64]fileSystemKind{
	unix.EXT4_SUPER_MAGIC: {name: "ext4", punch: true, zeroRange: true, local: true,
		freezes: true},
	unix.XFS_SUPER_MAGIC: {name: "xfs", punch: true, zeroRange: true, local: true,
		freezes: true},
	unix.BTRFS_SUPER_MAGIC: {name: "btrfs", punch: true, zeroRange: true, local: true,
		freezes: true},
	unix.F2FS_SUPER_MAGIC: {name: "f2fs", punch: true, zeroRange: true, local: true,
		freezes: true},
	unix.TMPFS_MAGIC:           {name: "tmpfs", punch: true, pageCache: true, local: true},
	unix.RAMFS_MAGIC:           {name: "ramfs", pageCache: true, local: true},
	unix.HUGETLBFS_MAGIC:       {name: "hugetlbfs", pageCache: true},
	unix.OVERLAYFS_SUPER_MAGIC: {name: "overlayfs"},
	unix.NFS_SUPER_MAGIC:       {name: "nfs", waits: true},
	unix.FUSE_SUPER_MAGIC:      {name: "fuse", waits: true},
	unix.CIFS_SUPER_MAGIC:      {name: "cifs", waits: true},
	unix.SMB2_SUPER_MAGIC:      {name: "smb3", waits: true},
	unix.SMB_SUPER_MAGIC:       {name: "smbfs", waits: true},
	unix.V9FS_MAGIC:            {name: "9p", waits: true},
	unix.CEPH_SUPER_MAGIC:      {name: "ceph", waits: true},
	unix.AFS_SUPER_MAGIC:       {name: "afs", waits: true},
	unix.AFS_FS_MAGIC:          {name: "afs", waits: true},
	unix.CODA_SUPER_MAGIC:      {name: "coda", waits: true},
	unix.OCFS2_SUPER_MAGIC:     {name: "ocfs2", waits: true},
	0x01161970:                 {name: "gfs2", waits: true},
	0x0bd00bd0:                 {name: "lustre", waits: true},
	0x786f4256:                 {name: "vboxsf", waits: true},
	0x47504653:                 {name: "gpfs", waits: true},
}

func (o *store) measureFile(st *unix.Statx_t) error {
	s, d := &o.spec, &o.device
	align, why := o.goDirect(st)
	if align > 0 && d.Size%uint64(align) != 0 {
		align, why = 0, fmt.Sprintf("its %d bytes are not whole units of O_DIRECT, %d bytes here",
			d.Size, align)
		if _, err := unix.FcntlInt(uintptr(d.FD), unix.F_SETFL, 0); err != nil {
			return fmt.Errorf("%s: O_DIRECT cannot be switched off: %w", s.Path, err)
		}
	}
	if align == 0 && s.Direct == DirectOn {
		return &DirectError{Path: s.Path, Why: why}
	}
	d.Direct = align > 0
	fs := fileSystemOf(d.FD)
	d.Cached, d.Waits = align == 0 && fs.local, fs.waits
	if fs.freezes {
		d.Freezes = uint64(st.Dev_major)<<32 | uint64(st.Dev_minor)
	}
	d.Block = max(align, 1)
	if odd := d.Size % sector; odd > 0 {
		o.note(fmt.Sprintf("its size, %d bytes, is not a multiple of %d: clients that count in "+
			"sectors do not see the last %d bytes, or see more", d.Size, sector, odd))
	}
	if !d.Direct && s.Direct == DirectAuto {
		o.note(why + ": reads and writes go through the page cache")
	}
	if !d.ReadOnly {
		d.Punch, d.ZeroRange = o.probeFallocate()
		d.FastZero = d.Punch || d.ZeroRange
	}
	// Of the disk below, only its sectors count: the file system does not tell where stripes begin
	// in the file. A file system that reports one disk and has data on others as well (XFS with a
	// realtime device, f2fs on several) is judged by the disk that it reports.
	disk := queueOf(st.Dev_major, st.Dev_minor)
	o.traits.preferred = max(minPreferred, align, disk.block("physical_block_size"))
	if bits.OnesCount32(st.Blksize) == 1 && st.Blksize <= maxFileBlock {
		o.traits.preferred = max(o.traits.preferred, st.Blksize)
	}
	o.traits.rotational = disk.rotational()
	return nil
}

// goDirect puts the descriptor into its final mode and returns the granularity of O_DIRECT, or 0
// and the reason why I/O is buffered. Either way O_NONBLOCK is gone afterwards: io_uring would
// answer EAGAIN instead of waiting for the disk.
func (o *store) goDirect(st *unix.Statx_t) (align uint32, why string) {
	fd := o.device.FD
	if o.spec.Direct != DirectOff {
		align, why = directAlign(fd, st)
	}
	flags := 0
	if align > 0 {
		flags = unix.O_DIRECT
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags); err != nil && align > 0 {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, 0)
		return 0, "O_DIRECT is refused"
	}
	return align, why
}

// directAlign returns the granularity of O_DIRECT: statx knows it since Linux 6.1 for the file
// systems that take part; with the others it is tried out.
func directAlign(fd int, st *unix.Statx_t) (align uint32, why string) {
	name := "the device"
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		var fs unix.Statfs_t
		name = fileSystem(fd)
		if unix.Fstatfs(fd, &fs) == nil && fileSystems[int64(fs.Type)].pageCache {
			return 0, name + " takes no O_DIRECT"
		}
	}
	if st.Mask&unix.STATX_DIOALIGN == 0 {
		align = tryDirect(fd)
	} else if st.Dio_mem_align > 0 && st.Dio_offset_align > 0 {
		align = max(st.Dio_mem_align, st.Dio_offset_align, sector)
	}
	switch {
	case align == 0:
		return 0, name + " takes no O_DIRECT here"
	case align > maxBlock || bits.OnesCount32(align) != 1:
		return 0, fmt.Sprintf("%s takes O_DIRECT only in units of %d bytes, more than %d", name,
			align, maxBlock)
	}
	return align, ""
}

// tryDirect reads the first block with O_DIRECT in growing units. Reading is the only trial that
// changes nothing.
func tryDirect(fd int) uint32 {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_DIRECT); err != nil {
		return 0
	}
	page, err := unix.Mmap(-1, 0, maxBlock, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0
	}
	defer unix.Munmap(page)
	for unit := sector; unit <= maxBlock; unit *= 2 {
		if _, err := unix.Pread(fd, page[:unit], 0); err == nil {
			return uint32(unit)
		}
	}
	return 0
}

// probeFallocate finds out whether holes can be punched and ranges zeroed. A trial on the image
// itself would change it (its modification time at least, blocks after the end with ZERO_RANGE), so
// the trial is on an unnamed file in the same directory, and where none can be made the kind of
// file system decides. The engine copes with a wrong guess: it writes zeroes instead.
func (o *store) probeFallocate() (punch, zeroRange bool) {
	fd := o.device.FD
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err == nil {
		known := fileSystems[int64(fs.Type)]
		punch, zeroRange = known.punch, known.zeroRange
	}
	if trial, ok := o.unnamedTwin(); ok {
		defer unix.Close(trial)
		if unix.Ftruncate(trial, 1<<20) == nil {
			punch = tryFallocate(trial, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE)
			zeroRange = tryFallocate(trial, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE)
		}
	}
	// EXT4_EXTENTS_FL: files that ext2 or ext3 made have none, and no ZERO_RANGE
	const extents = 0x80000
	if fs.Type == unix.EXT4_SUPER_MAGIC {
		if flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS); err == nil &&
			flags&extents == 0 {
			zeroRange = false
		}
	}
	return punch, zeroRange
}

// unnamedTwin opens a file without a name in the image's directory, on the same file system. It
// vanishes when it is closed.
func (o *store) unnamedTwin() (fd int, ok bool) {
	path, err := filepath.EvalSymlinks(o.spec.Path)
	if err != nil {
		return 0, false
	}
	fd, err = openRetry(filepath.Dir(path), unix.O_CLOEXEC|unix.O_RDWR|unix.O_TMPFILE, 0o600)
	if err != nil {
		return 0, false
	}
	var image, twin unix.Stat_t
	if unix.Fstat(o.device.FD, &image) != nil || unix.Fstat(fd, &twin) != nil ||
		image.Dev != twin.Dev {
		unix.Close(fd) // the image is a mount of its own
		return 0, false
	}
	return fd, true
}

func tryFallocate(fd int, mode uint32) bool {
	for {
		err := unix.Fallocate(fd, mode, 0, maxBlock)
		if err != unix.EINTR {
			// a full file system has the operation all the same
			return err == nil || err == unix.ENOSPC || err == unix.EDQUOT
		}
	}
}

// fileSystemOf returns what is known about the file system of a descriptor. An unknown file system
// is assumed to wait for a network.
func fileSystemOf(fd int) fileSystemKind {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) == nil {
		if known, ok := fileSystems[int64(fs.Type)]; ok {
			return known
		}
	}
	return fileSystemKind{waits: true}
}

// fileSystem names the file system of a descriptor for a message.
func fileSystem(fd int) string {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return "its file system"
	}
	if known, ok := fileSystems[int64(fs.Type)]; ok {
		return known.name
	}
	return fmt.Sprintf("its file system (type %#x)", uint32(fs.Type))
}

// ShellQuote makes a path safe to copy from a message into a shell.
func ShellQuote(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("/._-+=:,@%", r)
	}
	if strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
