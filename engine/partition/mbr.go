// MBR: four primary partitions in the first sector, and a chain of sectors in an extended one, with
// a logical partition each. The rules are those of the kernel (block/partitions/msdos.c), by which
// the numbers come out the same: logical partitions have numbers from 5 on, in the order of the
// chain, whatever the order on the disk.
//
// Invariant: the chain ends: each of its sectors is read once, and a chain that comes back to one
// is refused.

package partition

import (
	"encoding/binary"
	"fmt"
	"slices"
)

const (
	entriesAt    = 446 // of the four entries of 16 bytes in a sector
	signatureAt  = 510
	diskSigAt    = 440
	typeGPT      = 0xee
	firstLogical = 5
	// maxLogical limits the chain: the kernel shows no number above 255
	maxLogical = 251
)

// entry is one of the four in a sector of an MBR.
type entry struct {
	boot, kind    byte
	start, length uint32 // sectors
}

// entries returns the four entries of a sector.
func entries(b []byte) [4]entry {
	var all [4]entry
	for i := range all {
		e := b[entriesAt+16*i:]
		all[i] = entry{boot: e[0], kind: e[4], start: binary.LittleEndian.Uint32(e[8:]),
			length: binary.LittleEndian.Uint32(e[12:])}
	}
	return all
}

func (e *entry) extended() bool { return e.kind == 0x05 || e.kind == 0x0f || e.kind == 0x85 }

// signed reports whether a sector ends as one of an MBR does. Boot sectors of file systems do, too.
func signed(b []byte) bool { return b[signatureAt] == 0x55 && b[signatureAt+1] == 0xaa }

// protective reports whether an MBR leaves the disk to a GPT: an entry has its type and begins at
// sector 1. Further entries make it a hybrid, of which the GPT counts.
func protective(b []byte) bool {
	if !signed(b) {
		return false
	}
	for _, e := range entries(b) {
		if e.kind == typeGPT && e.start == 1 {
			return true
		}
	}
	return false
}

// fileSystem recognises, by its boot sector, a file system that needs no partition table around it;
// "" if it is none of them. Of FAT the kernel believes these three fields.
func fileSystem(b []byte) string {
	reserved, fats, media := binary.LittleEndian.Uint16(b[14:]), b[16], b[21]
	switch {
	case string(b[3:11]) == "NTFS    ":
		return "an NTFS file system"
	case string(b[3:11]) == "EXFAT   ":
		return "an exFAT file system"
	case signed(b) && reserved > 0 && fats > 0 && (media == 0xf0 || media >= 0xf8):
		return "a FAT file system"
	}
	return ""
}

// chain is an MBR that is being read.
type chain struct {
	*disk
	table     *Table
	sector    uint64 // bytes
	signature uint32 // of the disk
	next      int    // the number of the next logical partition
	regions   []region
}

// readMBR reads the table that begins in the first sector.
func (d *disk) readMBR(first []byte) (*Table, error) {
	sector := d.sectors[0]
	c := chain{disk: d, table: &Table{Kind: MBR, Sector: sector}, sector: uint64(sector),
		signature: binary.LittleEndian.Uint32(first[diskSigAt:]), next: firstLogical}
	c.regions = append(c.regions, region{"the table itself", 0, c.sector})
	slots := entries(first)
	used := 0
	for _, e := range slots {
		if e.boot&0x7f != 0 { // a boot sector with code or text where the entries would be
			return nil, &NoneError{Instead: fileSystem(first)}
		}
		if e.kind == typeGPT {
			return nil, wrong(GPT, "its protective MBR does not begin at sector 1")
		}
		if e.length > 0 {
			used++
		}
	}
	if instead := fileSystem(first); used == 0 && instead != "" {
		return nil, &NoneError{Instead: instead}
	}
	for i := range slots {
		if err := c.primary(i+1, &slots[i]); err != nil {
			return nil, err
		}
	}
	if err := disjoint(MBR, c.regions); err != nil {
		return nil, err
	}
	slices.SortFunc(c.table.Partitions, func(a, b Partition) int { return a.Number - b.Number })
	return c.table, nil
}

// primary adds a primary partition, or the logical ones that an extended partition holds.
func (c *chain) primary(number int, e *entry) error {
	if e.length == 0 {
		return nil
	}
	start, length := uint64(e.start)*c.sector, uint64(e.length)*c.sector
	if err := c.onDisk(fmt.Sprintf("partition %d", number), start, length); err != nil {
		return err
	}
	if !e.extended() {
		c.add(number, start, length)
		return nil
	}
	c.table.Extended = append(c.table.Extended, number)
	whole := region{fmt.Sprintf("partition %d", number), start, start + length}
	inside := chain{disk: c.disk, table: c.table, sector: c.sector, signature: c.signature,
		next: c.next}
	if err := inside.follow(whole); err != nil {
		return err
	}
	if err := disjoint(MBR, inside.regions); err != nil {
		return err
	}
	c.next = inside.next
	c.regions = append(c.regions, whole)
	return nil
}

// onDisk returns an error if a range does not lie on the disk.
func (c *chain) onDisk(what string, start, length uint64) error {
	if start > c.size || length > c.size-start {
		return wrong(MBR, "%s ends at byte %d, and the disk at %d", what, start+length, c.size)
	}
	return nil
}

// add adds a partition that lies on the disk.
func (c *chain) add(number int, start, length uint64) {
	p := Partition{Number: number, Start: start, Size: length,
		UUID: fmt.Sprintf("%08x-%02x", c.signature, number)}
	c.table.Partitions = append(c.table.Partitions, p)
	c.regions = append(c.regions, p.region())
}

// follow adds the logical partitions of an extended one.
func (c *chain) follow(whole region) error {
	at, length := whole.start, whole.end-whole.start
	seen := make(map[uint64]bool)
	for {
		if seen[at] {
			return wrong(MBR, "the chain of logical partitions comes back to sector %d",
				at/c.sector)
		}
		seen[at] = true
		if len(seen) > maxLogical {
			return wrong(MBR, "the chain of logical partitions has more than %d links", maxLogical)
		}
		b, err := c.read(at, minSector)
		if err != nil {
			return err
		}
		if !signed(b) {
			if at == whole.start {
				c.table.Notes = append(c.table.Notes, "its extended "+whole.what+
					" has no table of logical partitions")
				return nil
			}
			return wrong(MBR, "the chain of logical partitions leads to sector %d, which holds "+
				"none", at/c.sector)
		}
		c.regions = append(c.regions, region{"a link of the chain", at, at + c.sector})
		slots := entries(b)
		if err := c.logical(slots, at, length, whole); err != nil {
			return err
		}
		link := slots[:]
		for len(link) > 0 && (link[0].length == 0 || !link[0].extended()) {
			link = link[1:]
		}
		if len(link) == 0 {
			return nil
		}
		at, length = whole.start+uint64(link[0].start)*c.sector, uint64(link[0].length)*c.sector
		if at < whole.start || at >= whole.end || whole.end-at < c.sector {
			return wrong(MBR, "the chain of logical partitions leads to sector %d, outside of %s",
				at/c.sector, whole.what)
		}
	}
}

// logical adds the logical partitions of one link of the chain, which is at a byte and claims a
// length for itself.
func (c *chain) logical(slots [4]entry, at, length uint64, whole region) error {
	for i, e := range slots {
		if e.length == 0 || e.extended() {
			continue
		}
		start, size := at+uint64(e.start)*c.sector, uint64(e.length)*c.sector
		outside := start+size > whole.end
		if i >= 2 && (outside || uint64(e.start)*c.sector+size > length) {
			continue // the kernel has seen rubbish there
		}
		if outside {
			return wrong(MBR, "partition %d ends at byte %d, outside of the extended %s, which "+
				"ends at %d", c.next, start+size, whole.what, whole.end)
		}
		c.add(c.next, start, size)
		c.next++
	}
	return nil
}
