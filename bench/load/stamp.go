// Stamps: what Options.Verify writes into every sector of 512 bytes, and what can be wrong with a
// sector that is read back.
//
//	  0  magic
//	  8  offset in the export
//	 16  generation
//	 24  run
//	 32  filling, made of these three
//	508  CRC-32C of the 508 bytes before it
//
// Invariant: two sectors with the same offset, generation and run are the same bytes, and any two
// other sectors differ all over, so that a mixture of them fails the checksum.

package load

import (
	"encoding/binary"
	"hash/crc32"
	"strconv"
)

const (
	sector     = 512
	stampMagic = 0x31706d6174536252 // "RbStamp1"
	checksumAt = sector - 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// putStamp fills one sector.
func putStamp(b []byte, offset, generation, run uint64) {
	b = b[:sector]
	order := binary.LittleEndian
	order.PutUint64(b, stampMagic)
	order.PutUint64(b[8:], offset)
	order.PutUint64(b[16:], generation)
	order.PutUint64(b[24:], run)
	word := scramble(offset ^ generation<<40 ^ run)
	for i := 32; i < sector; i += 8 {
		order.PutUint64(b[i:], word)
		word += 0x9e3779b97f4a7c15
	}
	order.PutUint32(b[checksumAt:], crc32.Update(0, castagnoli, b[:checksumAt]))
}

// faultKind is what is wrong with data that was read.
type faultKind uint8

// The kinds of fault.
const (
	faultNone        faultKind = iota
	faultWrong                 // no stamp at all
	faultCorrupt               // a stamp with a wrong checksum: a mixture, or flipped bits
	faultMisdirected           // the stamp of another offset
	faultForeign               // the stamp of another run: older than anything written now
	faultStale                 // an older generation
	faultAhead                 // a generation that has not been written yet
	faultTorn                  // some sectors of a block as they should be, others older
	faultUnzeroed              // something where zeroes were written
)

var faultNames = [...]string{"", "wrong", "corrupt", "misdirected", "foreign", "stale", "ahead",
	"torn", "unzeroed"}

var faultTexts = [...]string{
	faultWrong:       "wrong data: no stamp of ours where one was written",
	faultCorrupt:     "corrupt data: the sector's checksum does not fit",
	faultMisdirected: "misdirected: this is the data of offset ",
	faultForeign:     "stale: data of an earlier run, written over in this one",
	faultStale:       "stale: an older generation",
	faultAhead:       "wrong data: a generation that was not acknowledged",
	faultTorn:        "torn: the sectors of one block are of different generations",
	faultUnzeroed:    "wrong data: zeroes were written here",
}

func (f faultKind) String() string { return faultNames[f] }

// checkStamp judges a sector. found is the generation that its stamp has, and from the offset.
func checkStamp(b []byte, offset, generation, run uint64) (fault faultKind, found, from uint64) {
	b = b[:sector]
	order := binary.LittleEndian
	if order.Uint64(b) != stampMagic {
		return faultWrong, 0, 0
	}
	from, found = order.Uint64(b[8:]), order.Uint64(b[16:])
	switch {
	case crc32.Update(0, castagnoli, b[:checksumAt]) != order.Uint32(b[checksumAt:]):
		return faultCorrupt, found, from
	case from != offset:
		return faultMisdirected, found, from
	case order.Uint64(b[24:]) != run:
		return faultForeign, found, from
	case found < generation:
		return faultStale, found, from
	case found > generation:
		return faultAhead, found, from
	}
	return faultNone, found, from
}

// checkZeroes judges a sector that must be zeroes. Other content is judged like a stamp.
func checkZeroes(b []byte, offset, generation, run uint64) (fault faultKind, found, from uint64) {
	b = b[:sector]
	var any uint64
	for i := 0; i < sector; i += 8 {
		any |= binary.LittleEndian.Uint64(b[i:])
	}
	if any == 0 {
		return faultNone, 0, 0
	}
	fault, found, from = checkStamp(b, offset, generation, run)
	if fault == faultNone || fault == faultWrong {
		fault = faultUnzeroed
	}
	return fault, found, from
}

// finding is a block that was not what it should be.
type finding struct {
	Offset   uint64    `json:"offset"` // bytes in the export, of the first sector that is wrong
	Fault    faultKind `json:"-"`
	Name     string    `json:"fault"`
	Expected uint64    `json:"expectedGeneration"`
	// Zeroes says that the expected generation is zeroes, which carry no stamp.
	Zeroes bool   `json:"expectedZeroes,omitempty"`
	Found  uint64 `json:"foundGeneration"` // 0: none
	// From is the offset at which the data belongs, if it has a stamp.
	From       uint64 `json:"foundOffset"`
	Connection int    `json:"connection"` // counted from 1
}

// String returns one line.
func (f finding) String() string {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	text := "offset " + number(f.Offset) + ": " + faultTexts[f.Fault]
	if f.Fault == faultMisdirected {
		text += number(f.From)
	}
	found := number(f.Found)
	if f.Fault == faultWrong || f.Found == 0 {
		found = "none"
	}
	expected := number(f.Expected)
	if f.Zeroes {
		expected += ", zeroes"
	}
	return text + " (expected generation " + expected + ", found " + found + ", connection " +
		strconv.Itoa(f.Connection) + ")"
}

// judge checks the sectors of a read in order, however they arrive, and makes one finding per block
// at most.
type judge struct {
	table      *table
	at, end    uint64 // bytes in the export: the next sector, and where the read ends
	good       uint32 // sectors of the block so far
	older      uint32
	first      finding
	connection int
}

// begin is the start of a read's payload.
func (j *judge) begin(offset, length uint64) {
	j.at, j.end, j.good, j.older, j.first = offset, offset+length, 0, 0, finding{}
}

// look judges a sector. The finding is valid at the block's last sector, if something was wrong.
func (j *judge) look(b []byte) (f finding, bad bool) {
	expected, holds := j.table.expect(j.at)
	if holds != unknown {
		check := checkStamp
		if holds == zeroed {
			check = checkZeroes
		}
		fault, found, from := check(b, j.at, expected, j.table.run)
		switch fault {
		case faultNone:
			j.good++
		case faultStale, faultForeign:
			j.older++
		}
		if fault != faultNone && j.first.Fault == faultNone {
			j.first = finding{Offset: j.at, Fault: fault, Expected: expected,
				Zeroes: holds == zeroed, Found: found, From: from, Connection: j.connection}
		}
	}
	j.at += sector
	if !j.table.boundary(j.at) && j.at < j.end {
		return finding{}, false
	}
	f = j.first
	if j.good > 0 && j.older > 0 {
		f.Fault = faultTorn
	}
	j.good, j.older, j.first = 0, 0, finding{}
	f.Name = f.Fault.String()
	return f, f.Fault != faultNone
}
