// MBR: primary and logical partitions, and what only looks like a table.
//
// Invariant: numbers are those that the kernel gives, which the live tests compare.

package partition

import (
	"errors"
	"strings"
	"testing"
)

// link writes a link of a chain: a logical partition, and where the next link is.
func (s *sparse) link(at uint32, logical mbrEntry, next ...mbrEntry) {
	s.mbr(uint64(at)*512, append([]mbrEntry{logical}, next...)...)
}

// extended is an MBR with a primary partition, an extended one from sector 1000 to 1999 with three
// logical ones, and another primary partition behind it.
func extended() *sparse {
	s := newSparse(512 * 4096)
	s.mbr(0, mbrEntry{boot: 0x80, kind: 0x83, start: 63, length: 100},
		mbrEntry{kind: 0x0f, start: 1000, length: 1000},
		mbrEntry{},
		mbrEntry{kind: 0x07, start: 2000, length: 2096})
	s.link(1000, mbrEntry{kind: 0x83, start: 63, length: 37},
		mbrEntry{kind: 0x05, start: 500, length: 200})
	s.link(1500, mbrEntry{kind: 0x82, start: 1, length: 100},
		mbrEntry{kind: 0x05, start: 100, length: 300})
	s.link(1100,
		mbrEntry{kind: 0x83, start: 10, length: 290})
	return s
}

func TestMBR(t *testing.T) {
	table, err := read(t, extended(), 512, 4096)
	if err != nil {
		t.Fatal(err)
	}
	want := []Partition{
		{Number: 1, Start: 63 * 512, Size: 100 * 512, UUID: "cafe0001-01"},
		{Number: 4, Start: 2000 * 512, Size: 2096 * 512, UUID: "cafe0001-04"},
		{Number: 5, Start: 1063 * 512, Size: 37 * 512, UUID: "cafe0001-05"},
		{Number: 6, Start: 1501 * 512, Size: 100 * 512, UUID: "cafe0001-06"},
		{Number: 7, Start: 1110 * 512, Size: 290 * 512, UUID: "cafe0001-07"},
	}
	if table.Kind != MBR || len(table.Partitions) != len(want) || len(table.Extended) != 1 ||
		table.Extended[0] != 2 {
		t.Fatalf("%+v", table)
	}
	for i, p := range table.Partitions {
		if p != want[i] {
			t.Errorf("%+v, want %+v", p, want[i])
		}
	}
	for selector, words := range map[string]string{
		"2":       "partition 2 is an extended one",
		"3":       "there is no partition 3; there are 1, 4, 5, 6, 7",
		"label:x": "an MBR has no labels",
	} {
		if _, err := table.Find(selector); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", selector, err)
		}
	}
	if p, err := table.Find("uuid:CAFE0001-06"); err != nil || p.Number != 6 {
		t.Errorf("%+v %v", p, err)
	}
}

func TestMBRInLargeSectors(t *testing.T) {
	s := newSparse(4096 << 32)
	s.mbr(0, mbrEntry{kind: 0x83, start: 1, length: 99},
		mbrEntry{kind: 0x83, start: 100, length: 1<<32 - 100})
	table, err := read(t, s, 4096)
	if err != nil {
		t.Fatal(err)
	}
	if p := table.Partitions[1]; p.Start != 409600 || p.Size != (1<<32-100)*4096 {
		t.Errorf("%+v", p)
	}
}

func TestImpossibleMBRsAreRefused(t *testing.T) {
	primary := func(list ...mbrEntry) func(s *sparse) {
		return func(s *sparse) { s.mbr(0, list...) }
	}
	link := func(at uint32, list ...mbrEntry) func(s *sparse) {
		return func(s *sparse) { s.mbr(uint64(at)*512, list...) }
	}
	for words, spoil := range map[string]func(s *sparse){
		"partition 1 and partition 2 overlap": primary(mbrEntry{kind: 0x83, start: 63, length: 100},
			mbrEntry{kind: 0x83, start: 162, length: 100}),
		"partition 2 ends at byte 2097664, and the disk at 2097152": primary(mbrEntry{},
			mbrEntry{kind: 0x83, start: 1, length: 4096}),
		"partition 1 ends at byte": primary(mbrEntry{kind: 0x83, start: 1<<32 - 1,
			length: 1<<32 - 1}),
		"the table itself and partition 1 overlap": primary(mbrEntry{kind: 0x83, length: 64}),
		"partition 1 and partition 2 overlap (": primary(
			mbrEntry{kind: 0x83, start: 900, length: 101},
			mbrEntry{kind: 0x05, start: 1000, length: 1000}),
		"comes back to sector 1500": link(1100, mbrEntry{},
			mbrEntry{kind: 5, start: 500, length: 9}),
		"comes back to sector 1100": link(1100, mbrEntry{},
			mbrEntry{kind: 5, start: 100, length: 9}),
		"leads to sector 2000, outside of partition 2": link(1100, mbrEntry{},
			mbrEntry{kind: 5, start: 1000, length: 9}),
		"leads to sector 4294968295, outside": link(1100, mbrEntry{},
			mbrEntry{kind: 5, start: 1<<32 - 1, length: 9}),
		"leads to sector 1700, which holds none": link(1100, mbrEntry{},
			mbrEntry{kind: 5, start: 700, length: 9}),
		"partition 7 ends at byte 1024512, outside of the extended partition 2": link(1100,
			mbrEntry{kind: 0x83, start: 1, length: 900}),
		"partition 5 and a link of the chain overlap": link(1000,
			mbrEntry{kind: 0x83, start: 63, length: 100},
			mbrEntry{kind: 5, start: 500, length: 200}),
		"a link of the chain and partition 7 overlap": link(1100,
			mbrEntry{kind: 0x83, length: 100}),
		"partition 7 and a link of the chain overlap": link(1100,
			mbrEntry{kind: 0x83, start: 10, length: 391}),
		"partition 6 and partition 7 overlap": link(1100,
			mbrEntry{kind: 0x83, start: 410, length: 100}),
	} {
		s := extended()
		spoil(s)
		refused(t, s, words, 512)
	}
}

func TestAChainIsBounded(t *testing.T) {
	s := newSparse(512 * 4096)
	s.mbr(0, mbrEntry{kind: 0x05, start: 1, length: 4095})
	for i := range uint32(1000) {
		s.link(1+2*i, mbrEntry{kind: 0x83, start: 1, length: 1},
			mbrEntry{kind: 0x05, start: 2 * (i + 1), length: 2})
	}
	refused(t, s, "more than 251 links", 512)
	s.link(1+2*250, mbrEntry{kind: 0x83, start: 1, length: 1})
	table, err := read(t, s, 512)
	if err != nil || len(table.Partitions) != 251 || table.Partitions[250].Number != 255 {
		t.Errorf("%+v %v", table, err)
	}
}

func TestAnExtendedPartitionThatIsEmpty(t *testing.T) {
	s := newSparse(512 * 4096)
	s.mbr(0, mbrEntry{kind: 0x05, start: 100, length: 100},
		mbrEntry{kind: 0x85, start: 300, length: 100})
	s.link(300, mbrEntry{kind: 0x83, start: 1, length: 9})
	table, err := read(t, s, 512)
	if err != nil || len(table.Partitions) != 1 || table.Partitions[0].Number != 5 ||
		len(table.Notes) != 1 || len(table.Extended) != 2 {
		t.Errorf("%+v %v", table, err)
	}
}

// The third and fourth entries of a link sometimes hold rubbish; what fits is a partition.
func TestRubbishInALink(t *testing.T) {
	s := extended()
	s.mbr(1100*512, mbrEntry{kind: 0x83, start: 10, length: 100}, mbrEntry{},
		mbrEntry{kind: 0x83, start: 1 << 31, length: 1 << 31},
		mbrEntry{kind: 0x83, start: 150, length: 100})
	table, err := read(t, s, 512)
	if err != nil || len(table.Partitions) != 6 {
		t.Fatalf("%+v %v", table, err)
	}
	if p := table.Partitions[5]; p.Number != 8 || p.Start != 1250*512 || p.Size != 100*512 {
		t.Errorf("%+v", p)
	}
}

func TestWhatHasNoTable(t *testing.T) {
	fat := func(boot byte) *sparse {
		s := newSparse(1 << 20)
		s.mbr(0, mbrEntry{boot: boot})
		s.write(0, []byte("\xeb\x3c\x90mkfs.fat\x00\x02\x04\x01\x00\x02\x00\x02\x00\x08\xf8"))
		return s
	}
	ntfs := fat('t')
	ntfs.write(3, []byte("NTFS    "))
	exfat := fat('t')
	exfat.write(3, []byte("EXFAT   "))
	text := newSparse(1 << 20)
	text.mbr(0, mbrEntry{boot: 'x'})
	for _, c := range []struct {
		disk    *sparse
		instead string
	}{
		{newSparse(0), ""}, {newSparse(511), ""}, {newSparse(512), ""}, {newSparse(1 << 20), ""},
		{text, ""},
		{fat(0), "a FAT file system"}, {fat('t'), "a FAT file system"},
		{ntfs, "an NTFS file system"}, {exfat, "an exFAT file system"},
	} {
		_, err := read(t, c.disk, 512, 4096)
		var none *NoneError
		if !errors.As(err, &none) || none.Instead != c.instead {
			t.Errorf("%d bytes: %v, want %q", c.disk.size, err, c.instead)
		}
	}
	// an MBR without partitions is a table, and so is one behind a FAT's boot code
	empty := newSparse(1 << 20)
	empty.mbr(0)
	if table, err := read(t, empty, 512); err != nil || len(table.Partitions) != 0 {
		t.Errorf("%+v %v", table, err)
	}
	both := fat(0)
	both.bytes[entriesAt+4], both.bytes[entriesAt+8], both.bytes[entriesAt+12] = 0x0c, 63, 100
	if table, err := read(t, both, 512); err != nil || len(table.Partitions) != 1 {
		t.Errorf("%+v %v", table, err)
	}
}
