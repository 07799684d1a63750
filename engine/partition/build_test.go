// Disks for tests: bytes at places, zeroes elsewhere, and writers of GPT and MBR on them that also
// write what no partitioning tool would.
//
// Invariant: what is written here is written by this file's own understanding of the formats, and
// the live tests compare with sgdisk, sfdisk, parted and the kernel.

package partition

import (
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"
)

// sparse is a disk of any size that holds what was written to it.
type sparse struct {
	size  uint64
	bytes map[uint64]byte
	reads int // bytes that were read
}

func newSparse(size uint64) *sparse { return &sparse{size: size, bytes: make(map[uint64]byte)} }

// ReadAt implements io.ReaderAt.
func (s *sparse) ReadAt(p []byte, at int64) (int, error) {
	for i := range p {
		if uint64(at)+uint64(i) >= s.size {
			return i, io.EOF
		}
		p[i] = s.bytes[uint64(at)+uint64(i)]
		s.reads++
	}
	return len(p), nil
}

func (s *sparse) write(at uint64, p []byte) {
	for i, c := range p {
		s.bytes[at+uint64(i)] = c
	}
}

// mbrEntry is an entry of an MBR, in sectors.
type mbrEntry struct {
	boot, kind    byte
	start, length uint32
}

// mbr writes a sector of an MBR at a byte.
func (s *sparse) mbr(at uint64, list ...mbrEntry) {
	b := make([]byte, minSector)
	binary.LittleEndian.PutUint32(b[diskSigAt:], 0xcafe0001)
	for i, e := range list {
		p := b[entriesAt+16*i:]
		p[0], p[4] = e.boot, e.kind
		binary.LittleEndian.PutUint32(p[8:], e.start)
		binary.LittleEndian.PutUint32(p[12:], e.length)
	}
	b[signatureAt], b[signatureAt+1] = 0x55, 0xaa
	s.write(at, b)
}

// protect writes a protective MBR.
func (s *sparse) protect(more ...mbrEntry) {
	s.mbr(0, append([]mbrEntry{{kind: typeGPT, start: 1, length: 0xffffffff}}, more...)...)
}

// gptPart is an entry of a GPT, in sectors.
type gptPart struct {
	place       int // in the array, from 1
	first, last uint64
	label, uuid string
}

// gpt is a GPT to be written.
type gpt struct {
	sector    uint64
	entrySize uint32 // 0: 128
	number    uint32 // 0: 128
	parts     []gptPart
	usable    [2]uint64 // 0, 0: all
	last      uint64    // sector of the backup; 0: the last of the disk
	spoil     func(header []byte, backup bool)
	spoilLate func(header []byte, backup bool) // after the checksum
}

const linuxData = "0fc63daf-8483-4772-8e79-3d69d8477de4"

// uuidBytes is a UUID as it is stored.
func uuidBytes(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != 16 {
		panic("not a UUID: " + text)
	}
	b[0], b[1], b[2], b[3] = b[3], b[2], b[1], b[0]
	b[4], b[5], b[6], b[7] = b[5], b[4], b[7], b[6]
	return b
}

// array returns the entries.
func (g *gpt) array() []byte {
	b := make([]byte, g.entrySize*g.number)
	for _, p := range g.parts {
		e := b[uint32(p.place-1)*g.entrySize:]
		copy(e, uuidBytes(linuxData))
		id := p.uuid
		if id == "" {
			id = "11111111-2222-3333-4444-555555555555"
		}
		copy(e[16:], uuidBytes(id))
		binary.LittleEndian.PutUint64(e[32:], p.first)
		binary.LittleEndian.PutUint64(e[40:], p.last)
		for i, u := range utf16.Encode([]rune(p.label)) {
			binary.LittleEndian.PutUint16(e[56+2*i:], u)
		}
	}
	return b
}

// gpt writes a protective MBR and a GPT with its backup.
func (s *sparse) gpt(g gpt) *sparse {
	s.protect()
	if g.entrySize == 0 {
		g.entrySize = gptEntry
	}
	if g.number == 0 {
		g.number = 128
	}
	if g.last == 0 {
		g.last = s.size/g.sector - 1
	}
	array := g.array()
	sectors := (uint64(len(array)) + g.sector - 1) / g.sector
	if g.usable == [2]uint64{} {
		g.usable = [2]uint64{2 + sectors, g.last - sectors - 1}
	}
	for _, backup := range []bool{false, true} {
		own, other, entries := uint64(1), g.last, uint64(2)
		if backup {
			own, other, entries = g.last, 1, g.last-sectors
		}
		h := make([]byte, gptHeader)
		le := binary.LittleEndian
		copy(h, gptSignature)
		le.PutUint32(h[8:], 0x10000)
		le.PutUint32(h[12:], gptHeader)
		le.PutUint64(h[24:], own)
		le.PutUint64(h[32:], other)
		le.PutUint64(h[40:], g.usable[0])
		le.PutUint64(h[48:], g.usable[1])
		le.PutUint64(h[72:], entries)
		le.PutUint32(h[80:], g.number)
		le.PutUint32(h[84:], g.entrySize)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(array))
		if g.spoil != nil {
			g.spoil(h, backup)
		}
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h))
		if g.spoilLate != nil {
			g.spoilLate(h, backup)
		}
		s.write(own*g.sector, h)
		s.write(entries*g.sector, array)
	}
	return s
}
