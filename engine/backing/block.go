// Block devices: what the kernel's block layer says about a device's request queue, read from
// sysfs.
//
// Invariant: an unreadable attribute counts as an ability that is missing.

package backing

import (
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxPreferred limits the preferred block that clients are told, in bytes: some RAID levels report
// stripes of many MiB, which no client should pad to.
const maxPreferred = 1 << 20

func (o *store) measureBlock(st *unix.Statx_t) error {
	s, d := &o.spec, &o.device
	queue := queueOf(st.Rdev_major, st.Rdev_minor)
	logical := uint32(queue.number("logical_block_size"))
	if size, err := unix.IoctlGetUint32(d.FD, unix.BLKSSZGET); err == nil {
		logical = size
	}
	if logical == 0 {
		logical = sector
	}
	if d.Size%uint64(logical) != 0 {
		return sizeError(s.Path, d.Size, logical, false)
	}
	align, why := o.goDirect(st)
	if align == 0 && s.Direct == DirectOn {
		return &DirectError{Path: s.Path, Why: why}
	}
	if align == 0 && s.Direct == DirectAuto {
		o.note(why + ": reads and writes go through the page cache")
	}
	d.Direct = align > 0
	// also for buffered I/O: discard and write-zeroes want whole logical blocks
	d.Block = max(align, logical)
	if d.Block > maxBlock {
		d.Block = 1
	}
	if !d.ReadOnly && d.Block >= logical {
		d.Discard = queue.number("discard_max_bytes") > 0
		// PUNCH_HOLE on a device is "zero without writing", which needs the device's help.
		// ZERO_RANGE always works: the kernel writes if it must.
		d.Punch = queue.number("write_zeroes_max_bytes") > 0
		d.ZeroRange = true
		d.FastZero = d.Punch
	}
	// minimum_io_size is what NBD means by a preferred block: the least that a RAID or a disk
	// writes without reading first. The optimal size counts as well: where it is a stripe, parity
	// makes smaller writes cost more.
	o.traits.logical = logical
	o.traits.preferred = max(minPreferred, d.Block, queue.block("logical_block_size"),
		queue.block("physical_block_size"), queue.block("minimum_io_size"),
		queue.block("optimal_io_size"))
	o.traits.rotational = queue.rotational()
	return nil
}

// blockReadOnly reports whether a block device is read-only. Some drivers let it be opened for
// writing all the same, and fail each write.
func blockReadOnly(path string) bool {
	fd, err := openRetry(path, unix.O_CLOEXEC|unix.O_RDONLY, 0)
	if err != nil {
		return false // the open that follows gives the reason
	}
	defer unix.Close(fd)
	flag, err := unix.IoctlGetUint32(fd, unix.BLKROGET)
	return err == nil && flag != 0
}

// queue is the sysfs directory of a device's request queue; partitions share their disk's.
type queue string

// queueOf returns the queue of a block device by its number. Numbers with major 0 belong to no
// device: file systems on several disks (btrfs) or on none (tmpfs, NFS, overlayfs) have them, and
// nothing is found there.
func queueOf(major, minor uint32) queue {
	device := fmt.Sprintf("/sys/dev/block/%d:%d", major, minor)
	if _, err := os.Stat(device + "/partition"); err == nil {
		// through the symbolic link, so the path must not be cleaned
		return queue(device + "/../queue")
	}
	return queue(device + "/queue")
}

// number reads an attribute; 0 if there is none, as for file systems without a single device.
func (q queue) number(attribute string) uint64 {
	text, err := os.ReadFile(string(q) + "/" + attribute)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// block reads an attribute that may be a preferred block, in bytes; 0 if its value cannot be one.
func (q queue) block(attribute string) uint32 {
	n := q.number(attribute)
	if n > maxPreferred || bits.OnesCount64(n) != 1 {
		return 0
	}
	return uint32(n)
}

// rotational reports whether seeking costs time on the device. Stacked devices (device mapper,
// RAID, loop) report it for the devices below.
func (q queue) rotational() bool { return q.number("rotational") == 1 }
