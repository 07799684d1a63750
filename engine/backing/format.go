// Images that are not raw, recognised by their first bytes or their last. Served as they are,
// clients would see the container and not the disk in it, and their writes would destroy it.
//
// The first bytes of a raw disk are for its clients to write: a guest with a blank disk can put the
// header of any format there, and its next start is refused. So the format decides only to stop; no
// store is ever opened in the format that was found, which is how QEMU's guess gave guests other
// files of the host. Spec.Raw overrides it, and belongs in a unit file.
//
// Invariant: looking reads through the page cache, and never writes.

package backing

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"ringnbd/engine/layer/overlay"
)

// headSize is how much of the beginning is read, in bytes.
const headSize = 4096

// format is a kind of file that is not a raw disk.
type format struct {
	name   string
	qemu   string // what qemu-img calls it
	unpack string // the program that unpacks a compressed file
}

// magics are the first bytes of formats. QED and the rest of QEMU's formats are as in its
// block/*.c; zstd, xz, lz4 and bzip2 as in their specifications. VHD is found at the end as well,
// and VDI after a text.
var magics = []struct {
	magic string
	format
}{
	{overlay.Magic, format{name: "an overlay's file"}},
	{"QFI\xfb\x00\x00\x00\x01", format{name: "a qcow image", qemu: "qcow"}},
	{"QFI\xfb", format{name: "a qcow2 image", qemu: "qcow2"}},
	{"QED\x00", format{name: "a QED image", qemu: "qed"}},
	{"KDMV", format{name: "a VMDK image", qemu: "vmdk"}},
	{"COWD", format{name: "a VMDK image", qemu: "vmdk"}},
	{"conectix", vhd},
	{"vhdxfile", format{name: "a VHDX image", qemu: "vhdx"}},
	{"WithoutFreeSpace", format{name: "a Parallels image", qemu: "parallels"}},
	{"WithouFreSpacExt", format{name: "a Parallels image", qemu: "parallels"}},
	{"\x1f\x8b\x08", format{name: "a gzip file", unpack: "gzip"}},
	{"\xfd7zXZ\x00", format{name: "an xz file", unpack: "xz"}},
	{"\x28\xb5\x2f\xfd", format{name: "a zstd file", unpack: "zstd"}},
	{"\x04\x22\x4d\x18", format{name: "an lz4 file", unpack: "lz4"}},
}

var (
	vhd   = format{name: "a VHD image", qemu: "vpc"}
	vdi   = format{name: "a VDI image", qemu: "vdi"}
	vmdk  = format{name: "a VMDK descriptor", qemu: "vmdk"}
	dmg   = format{name: "a DMG image", qemu: "dmg"}
	bzip2 = format{name: "a bzip2 file", unpack: "bzip2"}
)

// formatOf recognises a format by the first bytes of a store and, if it is that long, the last 512.
func formatOf(head, tail []byte) (f format, found bool) {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.format, true
		}
	}
	const vdiSignature, vdiAt = 0xbeda107f, 64
	switch {
	case len(head) >= vdiAt+4 && binary.LittleEndian.Uint32(head[vdiAt:]) == vdiSignature:
		return vdi, true
	case bytes.HasPrefix(bytes.TrimLeft(head, " \t\r\n"), []byte("# Disk DescriptorFile")):
		return vmdk, true
	case bytes.HasPrefix(head, []byte("BZh")) && len(head) >= 10 && head[3] >= '1' &&
		head[3] <= '9' &&
		// a block, or the end
		(string(head[4:10]) == "1AY&SY" || string(head[4:10]) == "\x17rE8P\x90"):
		return bzip2, true
	case bytes.HasPrefix(tail, []byte("conectix")): // a fixed VHD is a raw disk and this footer
		return vhd, true
	case bytes.HasPrefix(tail, []byte("koly\x00\x00\x00\x04")):
		return dmg, true
	}
	return format{}, false
}

// encrypted reports whether a store begins as a LUKS volume does, which is a raw disk that only its
// owner can read.
func encrypted(head []byte) bool { return bytes.HasPrefix(head, []byte("LUKS\xba\xbe")) }

// ReadAt reads at an offset, as io.ReaderAt does.
type ReadAt func(b []byte, offset int64) (int, error)

// Look reads, by at, the beginning and the end of a store of a size. The error is a FormatError
// about what is not a raw disk; luks reports a LUKS volume, which is one. Of a stream, or of what
// cannot be read, there is less to see.
func Look(path string, size uint64, at ReadAt) (luks bool, err error) {
	head, tail := make([]byte, min(headSize, size)), make([]byte, 512)
	n, _ := at(head, 0) // the first request that needs it tells what cannot be read
	head = head[:max(n, 0)]
	if size >= uint64(len(tail)) {
		n, _ = at(tail, int64(size)-int64(len(tail)))
		tail = tail[:max(n, 0)]
	} else {
		tail = nil
	}
	if f, found := formatOf(head, tail); found {
		return false, &FormatError{Path: path, Name: f.name, QEMU: f.qemu, Unpack: f.unpack}
	}
	return encrypted(head), nil
}

// look finds out what the store holds. What is not a raw disk is an error, unless the user says
// that it is. The pages that were read leave the page cache again: while they are there, SEEK_DATA
// takes blocks that are allocated and not written for data.
func (o *store) look() error {
	s, fd := &o.spec, o.device.FD
	if o.made {
		return nil
	}
	_ = unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM) // no reading ahead; all three calls are hints
	defer func() { _ = unix.Fadvise(fd, 0, 0, unix.FADV_NORMAL) }()
	luks, err := Look(s.Path, o.device.Size, func(p []byte, at int64) (int, error) {
		n, err := preadRetry(fd, p, at)
		from, to := at&^(maxBlock-1), (at+int64(len(p))+maxBlock-1)&^(maxBlock-1)
		_ = unix.Fadvise(fd, from, to-from, unix.FADV_DONTNEED)
		return n, err
	})
	o.encrypted, o.foreign = luks, err
	return o.raw(s)
}
