// The partition table of a disk: which kind it has, where its partitions are, and which of them a
// selector means.
//
// Invariant: Read checks the whole table, whichever partition is wanted: a table that is wrong in
// one place is not trusted in another.

package partition

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Kind is a kind of partition table.
type Kind uint8

// The kinds of tables that are read.
const (
	MBR Kind = iota + 1
	GPT
)

func (k Kind) String() string {
	switch k {
	case MBR:
		return "MBR"
	case GPT:
		return "GPT"
	}
	return "partition table"
}

// Table is the partition table of a disk.
type Table struct {
	Kind       Kind
	Sector     uint32      // the unit in which the table counts, in bytes
	Partitions []Partition // by number
	Extended   []int       // the numbers of extended partitions, which are not among Partitions
	Notes      []string    // what is not as it should be and does no harm, to stand after the path
}

// Partition is a range of the disk.
type Partition struct {
	Number      int    // as the kernel numbers it
	Start, Size uint64 // bytes
	Label       string // the name in a GPT; of an MBR ""
	UUID        string // of a GPT, or disk signature and number of an MBR, as the kernel's PARTUUID
}

// region is a range of the disk that has a use, for the search for overlaps.
type region struct {
	what       string
	start, end uint64 // bytes
}

// minSector and maxSector are the sizes of sectors that are known, in bytes.
const minSector, maxSector = 512, 4096

// Read reads the table of a disk of a size. Sectors are the units in which it may count, in bytes,
// the likeliest first: of a block device there is one, of an image there may be more.
func Read(r io.ReaderAt, size uint64, sectors ...uint32) (*Table, error) {
	if size > 1<<63-1 {
		return nil, fmt.Errorf("is too large to have a table: %d bytes", size)
	}
	if size < minSector {
		return nil, &NoneError{}
	}
	d := disk{r: r, size: size, sectors: sectors}
	first, err := d.read(0, minSector)
	if err != nil {
		return nil, err
	}
	switch {
	case protective(first):
		return d.readGPT(first)
	case signed(first):
		return d.readMBR(first)
	}
	return nil, d.unsigned(first)
}

// disk is what a table is read from.
type disk struct {
	r       io.ReaderAt
	size    uint64
	sectors []uint32
}

// read reads bytes that lie on the disk.
func (d *disk) read(at uint64, length uint32) ([]byte, error) {
	b := make([]byte, length)
	n, err := d.r.ReadAt(b, int64(at))
	if n == len(b) {
		return b, nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return nil, fmt.Errorf("its partition table cannot be read at byte %d: %w", at, err)
}

// unsigned is the error of a disk without the signature that an MBR of any kind has.
func (d *disk) unsigned(first []byte) error {
	for _, sector := range d.sectors {
		if d.size < uint64(sector)+minSector {
			continue
		}
		if head, err := d.read(uint64(sector), minSector); err == nil &&
			string(head[:8]) == gptSignature {
			return wrong(GPT, "the protective MBR in front of it is missing, so that neither the "+
				"kernel nor partitioning tools trust it")
		}
	}
	return &NoneError{Instead: fileSystem(first)}
}

// disjoint returns an error if any two of regions share a byte.
func disjoint(kind Kind, regions []region) error {
	slices.SortFunc(regions, func(a, b region) int {
		switch {
		case a.start < b.start:
			return -1
		case a.start > b.start:
			return 1
		}
		return 0
	})
	var last region // of those before, the one that ends last
	for _, x := range regions {
		if x.start < last.end {
			return wrong(kind, "%s and %s overlap (bytes %d to %d, and %d to %d)", last.what,
				x.what, last.start, last.end-1, x.start, x.end-1)
		}
		if x.end > last.end {
			last = x
		}
	}
	return nil
}

// region is the partition's range.
func (p *Partition) region() region {
	return region{fmt.Sprintf("partition %d", p.Number), p.Start, p.Start + p.Size}
}

// Find returns the partition that a selector names: "N", "label:NAME" or "uuid:UUID". The error
// says which there are.
func (t *Table) Find(selector string) (*Partition, error) {
	kind, wanted, hasKind := strings.Cut(selector, ":")
	var found []*Partition
	switch {
	case !hasKind:
		n, err := strconv.Atoi(selector)
		if err != nil || n < 1 {
			return nil, BadSelector(selector)
		}
		if slices.Contains(t.Extended, n) {
			return nil, fmt.Errorf("partition %d is an extended one, which holds nothing but "+
				"other partitions; %s", n, t.list())
		}
		found = t.all(func(p *Partition) bool { return p.Number == n })
	case kind == "label" && wanted != "":
		if t.Kind == MBR {
			return nil, fmt.Errorf("an MBR has no labels; %s", t.list())
		}
		found = t.all(func(p *Partition) bool { return p.Label == wanted })
	case kind == "uuid" && wanted != "":
		found = t.all(func(p *Partition) bool { return strings.EqualFold(p.UUID, wanted) })
	default:
		return nil, BadSelector(selector)
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("there is no partition %s; %s", selector, t.list())
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("partitions %d and %d both have %s; give the number", found[0].Number,
		found[1].Number, selector)
}

// BadSelector returns an error if a text cannot be a selector, whatever the table.
func BadSelector(text string) error {
	kind, wanted, hasKind := strings.Cut(text, ":")
	n, err := strconv.Atoi(text)
	if !hasKind && err == nil && n > 0 || (kind == "label" || kind == "uuid") && wanted != "" {
		return nil
	}
	return fmt.Errorf("partition=%s: is not understood; write a number from 1, label:NAME or "+
		"uuid:UUID", text)
}

func (t *Table) all(is func(p *Partition) bool) []*Partition {
	var found []*Partition
	for i := range t.Partitions {
		if is(&t.Partitions[i]) {
			found = append(found, &t.Partitions[i])
		}
	}
	return found
}

// mostListed limits how many partitions an error names.
const mostListed = 20

// list says which partitions there are.
func (t *Table) list() string {
	if len(t.Partitions) == 0 {
		return "the " + t.Kind.String() + " is empty"
	}
	var b strings.Builder
	b.WriteString("there are ")
	for i, p := range t.Partitions {
		if i == mostListed {
			fmt.Fprintf(&b, " and %d more", len(t.Partitions)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d", p.Number)
		if p.Label != "" {
			fmt.Fprintf(&b, " (%q)", p.Label)
		}
	}
	return b.String()
}
