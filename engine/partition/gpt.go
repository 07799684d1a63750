// GPT: a header in sector 1 and an array of entries, each under a CRC32, and a backup of both at
// the end of the disk (UEFI specification, chapter 5).
//
// Invariant: a header is believed only when both of its checksums are right, it names its own
// sector, and everything that it points to lies on the disk.

package partition

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode/utf16"
)

const (
	gptSignature = "EFI PART"
	gptHeader    = 92  // bytes of a header that are defined
	gptEntry     = 128 // bytes of an entry that are defined
	// maxEntries limits the array of entries, in bytes: 128 entries of 128 bytes are usual.
	maxEntries = 4 << 20
)

// header is a header of a GPT that was found to be right, and its entries.
type header struct {
	sector      uint64 // bytes
	own, other  uint64 // sectors
	usable      [2]uint64
	entriesAt   uint64 // sector
	entrySize   uint32 // bytes
	entries     []byte
	entriesEnd  uint64 // sector
	diskUUID    [16]byte
	entriesSum  uint32
	entryNumber uint32
}

// readGPT reads the primary table, or else its backup.
func (d *disk) readGPT(first []byte) (*Table, error) {
	var why error // the primary table cannot be used
	for _, sector := range d.sectors {
		h, err := d.header(uint64(sector), 1)
		if err == nil {
			t, err := d.tableOf(h)
			if err != nil {
				return nil, err
			}
			d.compare(t, h)
			return hybrid(t, first), nil
		}
		if _, none := err.(*NoneError); why == nil || !none {
			why = err
		}
	}
	for _, sector := range d.sectors {
		for _, at := range d.backups(uint64(sector)) {
			h, err := d.header(uint64(sector), at)
			if err != nil {
				continue
			}
			t, err := d.tableOf(h)
			if err != nil {
				return nil, err
			}
			t.Notes = append(t.Notes, fmt.Sprintf("its primary GPT cannot be used (%s): the "+
				"backup at sector %d counts; a partitioning tool can restore the primary",
				plain(why), at))
			return hybrid(t, first), nil
		}
	}
	return nil, wrong(GPT, "%s, and there is no backup at the end of the disk that can", plain(why))
}

// plain is what an error of header says, without its introduction.
func plain(err error) string {
	switch e := err.(type) {
	case *TableError:
		return e.What
	case *NoneError:
		return "there is no header"
	}
	return err.Error()
}

// hybrid adds a note about an MBR that has more to say than that there is a GPT.
func hybrid(t *Table, first []byte) *Table {
	for _, e := range entries(first) {
		if e.kind != typeGPT && e.kind != 0 {
			t.Notes = append(t.Notes, "it has a hybrid MBR: its GPT counts, as for the kernel")
			break
		}
	}
	return t
}

// backups returns the sectors where the backup's header may be: the last of the disk, and where the
// primary says, although it cannot be believed, for a disk that has grown.
func (d *disk) backups(sector uint64) []uint64 {
	sectors := d.size / sector
	if sectors < 2 {
		return nil
	}
	places := []uint64{sectors - 1}
	if b, err := d.read(sector, minSector); err == nil && string(b[:8]) == gptSignature {
		if other := binary.LittleEndian.Uint64(b[32:]); other > 1 && other < sectors-1 {
			places = append(places, other)
		}
	}
	return places
}

// header reads the header in a sector and its entries. The error is a NoneError if there is none.
func (d *disk) header(sector, at uint64) (*header, error) {
	sectors := d.size / sector
	if at >= sectors {
		return nil, wrong(GPT, "its header would be in sector %d, and the disk has %d", at, sectors)
	}
	b, err := d.read(at*sector, uint32(sector))
	if err != nil {
		return nil, err
	}
	if string(b[:8]) != gptSignature {
		return nil, &NoneError{}
	}
	le := binary.LittleEndian
	length := le.Uint32(b[12:])
	if length < gptHeader || uint64(length) > sector {
		return nil, wrong(GPT, "its header claims a length of %d bytes", length)
	}
	sum := le.Uint32(b[16:])
	clear(b[16:20])
	if crc32.ChecksumIEEE(b[:length]) != sum {
		return nil, wrong(GPT, "the CRC32 of its header is wrong")
	}
	h := &header{sector: sector, own: le.Uint64(b[24:]), other: le.Uint64(b[32:]),
		usable: [2]uint64{le.Uint64(b[40:]), le.Uint64(b[48:])}, entriesAt: le.Uint64(b[72:]),
		entryNumber: le.Uint32(b[80:]), entrySize: le.Uint32(b[84:]), entriesSum: le.Uint32(b[88:])}
	copy(h.diskUUID[:], b[56:])
	if err := h.check(at, sectors); err != nil {
		return nil, err
	}
	size := uint64(h.entryNumber) * uint64(h.entrySize)
	if h.entries, err = d.read(h.entriesAt*sector, uint32(size)); err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(h.entries) != h.entriesSum {
		return nil, wrong(GPT, "the CRC32 of its entries is wrong")
	}
	return h, nil
}

// check checks what a header says of itself. It is in sector at of a disk of some sectors.
func (h *header) check(at, sectors uint64) error {
	size := uint64(h.entryNumber) * uint64(h.entrySize)
	h.entriesEnd = h.entriesAt + (size+h.sector-1)/h.sector
	switch {
	case h.own != at:
		return wrong(GPT, "the header in sector %d says that it is in sector %d", at, h.own)
	case h.usable[0] > h.usable[1]:
		return wrong(GPT, "its first usable sector, %d, is after its last, %d", h.usable[0],
			h.usable[1])
	case h.usable[1] >= sectors:
		return wrong(GPT, "its last usable sector is %d, and the disk has %d sectors: the disk "+
			"was larger, or has another sector size", h.usable[1], sectors)
	case h.entrySize < gptEntry || h.entrySize&(h.entrySize-1) != 0:
		return wrong(GPT, "its entries have %d bytes each", h.entrySize)
	case size > maxEntries:
		return wrong(GPT, "it has %d entries of %d bytes: more than %d bytes", h.entryNumber,
			h.entrySize, maxEntries)
	case h.entriesAt < 1 || h.entriesAt >= sectors || h.entriesEnd > sectors:
		return wrong(GPT, "its entries are in sectors %d to %d, and the disk has %d", h.entriesAt,
			h.entriesEnd, sectors)
	}
	return nil
}

// tableOf makes the table of a header that is right.
func (d *disk) tableOf(h *header) (*Table, error) {
	t := &Table{Kind: GPT, Sector: uint32(h.sector)}
	sectors := d.size / h.sector
	regions := []region{{"the MBR", 0, minSector},
		{"the header", h.own * h.sector, (h.own + 1) * h.sector},
		{"the array of entries", h.entriesAt * h.sector, h.entriesEnd * h.sector}}
	for i := range h.entryNumber {
		e := h.entries[uint64(i)*uint64(h.entrySize):][:gptEntry]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue // an empty place
		}
		first, last := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
		number := int(i) + 1
		switch {
		case first > last:
			return nil, wrong(GPT, "partition %d begins at sector %d and ends at sector %d", number,
				first, last)
		case last >= sectors:
			return nil, wrong(GPT, "partition %d ends at sector %d, and the disk has %d sectors",
				number, last, sectors)
		}
		p := Partition{Number: number, Start: first * h.sector, Size: (last - first + 1) * h.sector,
			Label: label(e[56:gptEntry]), UUID: uuid(e[16:32])}
		t.Partitions = append(t.Partitions, p)
		regions = append(regions, p.region())
	}
	if err := disjoint(GPT, regions); err != nil {
		return nil, err
	}
	return t, nil
}

// compare adds a note if the backup of a primary header is not as it should be.
func (d *disk) compare(t *Table, primary *header) {
	note := ""
	last := d.size/primary.sector - 1
	backup, err := d.header(primary.sector, primary.other)
	switch {
	case err != nil:
		note = "the backup of its GPT cannot be used (" + plain(err) + ")"
	case backup.entriesSum != primary.entriesSum || backup.diskUUID != primary.diskUUID:
		note = "the backup of its GPT differs: the primary counts, as for the kernel"
	case primary.other != last:
		note = "the backup of its GPT is not at the end of the disk, which has grown"
	default:
		return
	}
	t.Notes = append(t.Notes, note+"; a partitioning tool can mend that")
}

// label decodes the name of a partition: UTF-16 up to the first NUL.
func label(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// uuid writes a UUID as the kernel does. Its first three groups are stored with the least byte
// first.
func uuid(b []byte) string {
	le := binary.LittleEndian
	return strings.ToLower(fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]),
		le.Uint16(b[6:]), b[8:10], b[10:16]))
}
