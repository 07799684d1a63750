// GPT: what is found, and what is refused and why.
//
// Invariant: each table that is refused differs from a good one in what the test names alone.

package partition

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

const (
	uuidA = "a0b1c2d3-e4f5-4607-8192-a3b4c5d6e7f8"
	uuidB = "00112233-4455-4677-8899-aabbccddeeff"
)

// good is a GPT of three partitions with empty places between them.
func good(sector uint64) gpt {
	return gpt{sector: sector, parts: []gptPart{
		{place: 1, first: 40, last: 99, label: "boot", uuid: uuidA},
		{place: 5, first: 300, last: 300, label: "Größe 😀"},
		{place: 128, first: 100, last: 199, label: "boot", uuid: uuidB}}}
}

// read reads a table, and checks what holds for every table.
func read(t *testing.T, s *sparse, sectors ...uint32) (*Table, error) {
	t.Helper()
	table, err := Read(s, s.size, sectors...)
	if most := 40 << 20; s.reads > most {
		t.Errorf("%d bytes were read, want at most %d", s.reads, most)
	}
	if err != nil {
		if table != nil {
			t.Errorf("a table and an error: %v", err)
		}
		if text := err.Error(); strings.Contains(text, "\n") || strings.Contains(text, "%!") {
			t.Errorf("error %q", text)
		}
		return nil, err
	}
	sound(t, s.size, table)
	return table, nil
}

// sound checks the invariants of a table.
func sound(t *testing.T, size uint64, table *Table) {
	t.Helper()
	for i, p := range table.Partitions {
		if p.Size < uint64(table.Sector) || p.Start < minSector || p.Start+p.Size < p.Start ||
			p.Start+p.Size > size {
			t.Errorf("partition %+v on a disk of %d bytes", p, size)
		}
		for _, q := range table.Partitions[i+1:] {
			if p.Number >= q.Number || p.Start < q.Start+q.Size && q.Start < p.Start+p.Size {
				t.Errorf("partitions %+v and %+v", p, q)
			}
		}
	}
}

// refused checks that a table is refused with words.
func refused(t *testing.T, s *sparse, words string, sectors ...uint32) {
	t.Helper()
	table, err := read(t, s, sectors...)
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("%+v, %v; want an error with %q", table, err, words)
	}
}

func TestGPTIsFoundInSectorsOfBothSizes(t *testing.T) {
	for _, sector := range []uint64{512, 4096} {
		for _, g := range []gpt{{}, {entrySize: 256}, {entrySize: 1024, number: 200}} {
			g.sector, g.parts = sector, good(sector).parts
			if g.number == 0 {
				g.number = 128
			}
			for i := range g.parts { // after the largest array
				g.parts[i].first += 1000
				g.parts[i].last += 1000
			}
			table, err := read(t, newSparse(sector*4096).gpt(g), 512, 4096)
			if err != nil {
				t.Errorf("sector %d, entries of %d bytes: %v", sector, g.entrySize, err)
				continue
			}
			want := []Partition{
				{1, 1040 * sector, 60 * sector, "boot", uuidA},
				{5, 1300 * sector, sector, "Größe 😀", "11111111-2222-3333-4444-555555555555"},
				{128, 1100 * sector, 100 * sector, "boot", uuidB}}
			if table.Kind != GPT || uint64(table.Sector) != sector || len(table.Notes) > 0 ||
				len(table.Partitions) != len(want) {
				t.Fatalf("%+v", table)
			}
			for i, p := range table.Partitions {
				if p != want[i] {
					t.Errorf("%+v, want %+v", p, want[i])
				}
			}
		}
	}
}

func TestABlockDeviceHasOneSectorSize(t *testing.T) {
	refused(t, newSparse(4096*4096).gpt(good(4096)), "there is no header", 512)
	refused(t, newSparse(512*4096).gpt(good(512)), "there is no header", 4096)
}

func TestGPTBeyondTwoTiB(t *testing.T) {
	for _, size := range []uint64{3 << 40, 1<<63 - 1} {
		last := size/512 - 100
		s := newSparse(size).gpt(gpt{sector: 512, parts: []gptPart{
			{place: 1, first: 40, last: 1<<32 + 5}, {place: 2, first: 1<<32 + 6, last: last}}})
		table, err := read(t, s, 512)
		if err != nil {
			t.Fatal(err)
		}
		p := table.Partitions[1]
		if p.Start != (1<<32+6)*512 || p.Start+p.Size != (last+1)*512 {
			t.Errorf("%+v", p)
		}
	}
	if _, err := Read(newSparse(1<<63), 1<<63, 512); err == nil {
		t.Error("a disk of 2^63 bytes")
	}
}

func TestABrokenPrimaryIsReadFromItsBackup(t *testing.T) {
	for words, spoil := range map[string]func(s *sparse){
		"CRC32 of its header":  func(s *sparse) { s.bytes[512+40] ^= 1 },
		"CRC32 of its entries": func(s *sparse) { s.bytes[1024] ^= 1 },
		"there is no header":   func(s *sparse) { clear512(s, 512) },
	} {
		s := newSparse(512 * 4096).gpt(good(512))
		spoil(s)
		table, err := read(t, s, 512, 4096)
		if err != nil || len(table.Partitions) != 3 || len(table.Notes) != 1 ||
			!strings.Contains(table.Notes[0], words) ||
			!strings.Contains(table.Notes[0], "the backup at sector 4095 counts") {
			t.Errorf("%s: %+v %v", words, table, err)
		}
		clear512(s, 4095*512)
		refused(t, s, words, 512, 4096)
		refused(t, s, "no backup", 512, 4096)
	}
	// of a disk that has grown the primary still knows where
	s := newSparse(512 * 4096).gpt(good(512))
	s.size *= 2
	s.bytes[512+40] ^= 1
	if table, err := read(t, s, 512); err != nil || len(table.Partitions) != 3 {
		t.Errorf("%+v %v", table, err)
	}
}

func clear512(s *sparse, at uint64) { s.write(at, make([]byte, 512)) }

func TestABackupThatIsWrongIsNoted(t *testing.T) {
	for words, spoil := range map[string]func(s *sparse){
		"the backup of its GPT cannot be used":    func(s *sparse) { clear512(s, 4095*512) },
		"at the end of the disk, which has grown": func(s *sparse) { s.size *= 2 },
		"the backup of its GPT differs": func(s *sparse) {
			other := good(512)
			other.parts = other.parts[:1]
			t := newSparse(s.size).gpt(other)
			for at := uint64(4000 * 512); at < s.size; at++ {
				s.bytes[at] = t.bytes[at]
			}
		},
	} {
		s := newSparse(512 * 4096).gpt(good(512))
		spoil(s)
		table, err := read(t, s, 512)
		if err != nil || len(table.Partitions) != 3 || len(table.Notes) != 1 ||
			!strings.Contains(table.Notes[0], words) {
			t.Errorf("%s: %+v %v", words, table, err)
		}
	}
}

func TestImpossibleGPTsAreRefused(t *testing.T) {
	put64 := func(at int, v uint64) func(h []byte, backup bool) {
		return func(h []byte, _ bool) { binary.LittleEndian.PutUint64(h[at:], v) }
	}
	put32 := func(at int, v uint32) func(h []byte, backup bool) {
		return func(h []byte, _ bool) { binary.LittleEndian.PutUint32(h[at:], v) }
	}
	for words, g := range map[string]gpt{
		"partition 1 and partition 2 overlap (bytes 51200 to 103423, and 102912 to 153599)": {
			parts: []gptPart{{place: 1, first: 100, last: 201}, {place: 2, first: 201, last: 299}}},
		"partition 1 and partition 3 overlap": {parts: []gptPart{{place: 1, first: 100, last: 900},
			{place: 3, first: 500, last: 510}}},
		"partition 2 begins at sector 300 and ends at sector 299": {
			parts: []gptPart{{place: 2, first: 300, last: 299}}},
		"partition 1 ends at sector 4096, and the disk has 4096": {
			parts: []gptPart{{place: 1, first: 300, last: 4096}}},
		"partition 1 ends at sector 18446744073709551615": {
			parts: []gptPart{{place: 1, first: 300, last: 1<<64 - 1}}},
		"the array of entries and partition 1 overlap": {
			parts: []gptPart{{place: 1, first: 33, last: 40}}},
		"the MBR and partition 1 overlap": {
			parts: []gptPart{{place: 1, first: 0, last: 40}}},
		"says that it is in sector 7":                        {spoil: put64(24, 7)},
		"its first usable sector, 50, is after its last, 40": {usable: [2]uint64{50, 40}},
		"its last usable sector is 4096, and the disk has 4096": {
			usable: [2]uint64{34, 4096}},
		"its entries have 64 bytes":            {spoil: put32(84, 64)},
		"its entries have 384 bytes":           {spoil: put32(84, 384)},
		"it has 4294967295 entries":            {spoil: put32(80, 1<<32-1)},
		"its entries are in sectors 5000":      {spoil: put64(72, 5000)},
		"its entries are in sectors 0":         {spoil: put64(72, 0)},
		"its entries are in sectors 18446744":  {spoil: put64(72, 1<<64-1)},
		"its header claims a length of 91":     {spoil: put32(12, 91)},
		"its header claims a length of 513":    {spoil: put32(12, 513)},
		"the CRC32 of its header is wrong":     {spoilLate: put32(16, 1)},
		"the CRC32 of its entries is wrong, a": {spoil: put32(88, 1)},
	} {
		g.sector = 512
		refused(t, newSparse(512*4096).gpt(g), words, 512)
	}
}

func TestGPTWithoutItsProtectiveMBR(t *testing.T) {
	s := newSparse(512 * 4096).gpt(good(512))
	clear512(s, 0)
	refused(t, s, "protective MBR in front of it is missing", 512, 4096)
	// an MBR of another kind has taken the disk over
	s.mbr(0, mbrEntry{kind: 0x83, start: 100, length: 100})
	if table, err := read(t, s, 512, 4096); err != nil || table.Kind != MBR ||
		len(table.Partitions) != 1 {
		t.Errorf("%+v %v", table, err)
	}
	s.mbr(0, mbrEntry{kind: typeGPT, start: 2, length: 100})
	refused(t, s, "does not begin at sector 1", 512, 4096)
}

func TestOfAHybridTheGPTCounts(t *testing.T) {
	s := newSparse(512 * 4096).gpt(good(512))
	s.protect(mbrEntry{kind: 0x83, start: 40, length: 60})
	table, err := read(t, s, 512)
	if err != nil || table.Kind != GPT || len(table.Partitions) != 3 || len(table.Notes) != 1 ||
		!strings.Contains(table.Notes[0], "hybrid MBR") {
		t.Errorf("%+v %v", table, err)
	}
}

func TestSelectors(t *testing.T) {
	table, err := read(t, newSparse(512*4096).gpt(good(512)), 512)
	if err != nil {
		t.Fatal(err)
	}
	for selector, number := range map[string]int{"1": 1, "128": 128, "label:Größe 😀": 5,
		"uuid:" + uuidA: 1, "uuid:" + strings.ToUpper(uuidB): 128} {
		if p, err := table.Find(selector); err != nil || p.Number != number {
			t.Errorf("%s: %+v %v, want %d", selector, p, err, number)
		}
	}
	for selector, words := range map[string]string{
		"2":          `there is no partition 2; there are 1 ("boot"), 5 ("Größe 😀"), 128 ("boot")`,
		"label:root": `there is no partition label:root; there are 1 ("boot")`,
		"label:boot": "partitions 1 and 128 both have label:boot",
		"uuid:x":     "there is no partition uuid:x",
		"0":          "is not understood", "-1": "is not understood", "": "is not understood",
		"label:": "is not understood", "name:x": "is not understood", "two": "is not understood",
		"99999999999999999999": "is not understood",
	} {
		if p, err := table.Find(selector); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %+v %v, want an error with %q", selector, p, err, words)
		}
	}
	empty := Table{Kind: GPT}
	if _, err := empty.Find("1"); err == nil || !strings.Contains(err.Error(), "the GPT is empty") {
		t.Error(err)
	}
	many := Table{Kind: GPT, Partitions: make([]Partition, 100)}
	if _, err := many.Find("1"); err == nil || !strings.HasSuffix(err.Error(), " and 80 more") {
		t.Error(err)
	}
}

// unreadable fails after its first bytes.
type unreadable struct{ from int64 }

var errDisk = errors.New("the disk is ill")

func (u unreadable) ReadAt(p []byte, at int64) (int, error) {
	if at+int64(len(p)) > u.from {
		return 0, errDisk
	}
	clear(p)
	if at == 0 && len(p) >= minSector {
		p[signatureAt], p[signatureAt+1] = 0x55, 0xaa
		p[entriesAt+4], p[entriesAt+8], p[entriesAt+12] = 0x05, 1, 9
	}
	return len(p), nil
}

func TestADiskThatCannotBeRead(t *testing.T) {
	for _, from := range []int64{0, 512} {
		if _, err := Read(unreadable{from}, 1<<20, 512); !errors.Is(err, errDisk) {
			t.Errorf("%v", err)
		}
	}
}
