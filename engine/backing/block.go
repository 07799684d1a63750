// Block devices: what the kernel's block layer says about the queue behind a device, read from
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

// optimalMost bounds the preferred block that is passed on to clients: some RAID levels report
// stripes of many MiB, which no client should pad to.
const optimalMost = 1 << 20

func (b *Backing) measureBlock(st *unix.Statx_t) error {
	s, d := &b.spec, &b.Device
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
	align, why := b.goDirect(st)
	if align == 0 && s.Direct == DirectOn {
		return &DirectError{Path: s.Path, Why: why}
	}
	if align == 0 && s.Direct == DirectAuto {
		b.note(why + ": reads and writes go through the page cache")
	}
	d.Direct = align > 0
	// buffered too: discard and write-zeroes want whole logical blocks
	d.Block = max(align, logical)
	if d.Block > blockMost {
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
	// makes anything less cost more.
	b.facts.preferred = max(preferredLeast, d.Block, queue.block("logical_block_size"),
		queue.block("physical_block_size"),
		queue.block("minimum_io_size"), queue.block("optimal_io_size"))
	b.facts.rotational = queue.rotational()
	return nil
}

// blockReadOnly asks before opening for writing, because some drivers let such an open succeed and
// fail each write.
func blockReadOnly(path string) bool {
	fd, err := openRetry(path, unix.O_CLOEXEC|unix.O_RDONLY, 0)
	if err != nil {
		return false // the open that follows gives the reason
	}
	defer unix.Close(fd)
	flag, err := unix.IoctlGetUint32(fd, unix.BLKROGET)
	return err == nil && flag != 0
}

// queue is the sysfs directory of a device's request queue; partitions share that of their disk.
type queue string

// queueOf finds the queue of a block device by its number. Device numbers of major 0 belong to no
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

// number reads one attribute; 0 when the device has none, as with file systems that have no single
// device.
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

// block reads an attribute that is a number of bytes and may be a preferred block; 0 when it cannot
// be one.
func (q queue) block(attribute string) uint32 {
	n := q.number(attribute)
	if n > optimalMost || bits.OnesCount64(n) != 1 {
		return 0
	}
	return uint32(n)
}

// rotational says whether seeking costs time on the device. Those that stand on others (device
// mapper, RAID, loop) tell it of what they stand on.
func (q queue) rotational() bool { return q.number("rotational") == 1 }
