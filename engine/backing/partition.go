// Partitions: how an export of a partition is written, and the range of its store that it shows.
//
// PATH?partition=N, ?partition=label:NAME and ?partition=uuid:UUID name a partition wherever a PATH
// is taken. Nothing else in a PATH has a meaning, a question mark included; a file whose name holds
// "?partition=" and more is written with each question mark before "partition=" twice. The rule
// looks at the text alone, so that a file that appears or goes never changes what a PATH means.
//
// Invariant: the table is read by the descriptor that is locked, whenever an export of a partition
// is opened, and never written. What a client does to the table afterwards, through an export of
// the whole disk, moves no export that is open.

package backing

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ringnbd/engine/partition"
	"ringnbd/engine/tree"
)

// selects begins the part of a PATH that selects a partition, after a question mark.
const selects = "partition="

// ParsePath splits a PATH as a user writes it into the path of a store and the partition of it; ""
// is the whole.
func ParsePath(text string) (path, selector string) {
	var b strings.Builder
	for rest := text; ; {
		at := strings.Index(rest, "?"+selects)
		if at < 0 {
			b.WriteString(rest)
			return b.String(), ""
		}
		begin := at
		for begin > 0 && rest[begin-1] == '?' {
			begin--
		}
		marks := at + 1 - begin
		b.WriteString(rest[:begin])
		b.WriteString(strings.Repeat("?", marks/2))
		rest = rest[at+1:]
		if selector = strings.TrimPrefix(rest, selects); marks%2 == 1 && selector != "" {
			return b.String(), selector
		} else if marks%2 == 1 {
			b.WriteString("?") // nothing is selected, so this is a name
		}
		b.WriteString(selects)
		rest = strings.TrimPrefix(rest, selects)
	}
}

// WritePath is the reverse of ParsePath.
func WritePath(path, selector string) string {
	var b strings.Builder
	for rest := path; ; {
		at := strings.Index(rest, "?"+selects)
		if at < 0 {
			b.WriteString(rest)
			break
		}
		begin := at
		for begin > 0 && rest[begin-1] == '?' {
			begin--
		}
		b.WriteString(rest[:begin] + strings.Repeat("?", 2*(at+1-begin)) + selects)
		rest = rest[at+1+len(selects):]
	}
	if selector != "" {
		text := b.String()
		marks := len(text) - len(strings.TrimRight(text, "?"))
		b.WriteString(strings.Repeat("?", marks+1) + selects + selector)
	}
	return b.String()
}

// SetPath sets the path and the partition from a PATH as a user writes it. The text of a tree has
// PATHs of its own in it.
func (s *Spec) SetPath(text string) {
	if tree.Is(text) {
		s.Path, s.Partition = text, ""
		return
	}
	s.Path, s.Partition = ParsePath(text)
}

// Text is the PATH as a user writes it.
func (s *Spec) Text() string {
	if tree.Is(s.Path) {
		return s.Path
	}
	return WritePath(s.Path, s.Partition)
}

// checkPartition applies the rules about partitions that the text alone decides.
func (s *Spec) checkPartition() error {
	switch {
	case s.Partition == "" && !s.Partitions:
		return nil
	case s.Partition != "" && s.Partitions:
		return fmt.Errorf("%s: is a partition itself, and has none to be exported", s.Text())
	case Synthetic(s.Path):
		return fmt.Errorf("%s: exists only in this process, and has no partition table", s.Path)
	case s.Partition != "":
		if err := partition.BadSelector(s.Partition); err != nil {
			return fmt.Errorf("%s: %w (a file whose name holds ?%s is written with ??%s)", s.Path,
				err, selects, selects)
		}
	}
	return nil
}

// PartitionError is about a partition that cannot be had, or a table that makes no sense.
type PartitionError struct {
	Path string
	Err  error // of package partition
}

func (e *PartitionError) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *PartitionError) Unwrap() error { return e.Err }

// missingPartition is the error about a partition of an image that does not exist.
func missingPartition(s *Spec) error {
	var st unix.Stat_t
	literal := s.Path + "?" + selects + s.Partition
	switch {
	case unix.Lstat(literal, &st) == nil:
		return fmt.Errorf("%s: no such file, of which to take a partition; the file %s is written "+
			"%s", s.Path, literal, ShellQuote(WritePath(literal, "")))
	case s.Create > 0:
		return fmt.Errorf("%s: no such file, and a new image has no partitions; make the image "+
			"and its partition table first", s.Path)
	}
	return fmt.Errorf("%s: no such file, of which to take a partition; check the path", s.Path)
}

// FindPartition returns where a partition of a file or a block device begins, its length, and notes
// for the user. sector is the logical block size of a device, in bytes; 0 for an image.
func FindPartition(path, selector string, size uint64, sector uint32,
	at io.ReaderAt) (start, length uint64, notes []string, err error) {
	if err := partition.BadSelector(selector); err != nil {
		return 0, 0, nil, &PartitionError{Path: path, Err: err}
	}
	t, err := readTable(path, size, sector, at)
	if err != nil {
		return 0, 0, nil, err
	}
	p, err := t.Find(selector)
	if err != nil {
		return 0, 0, nil, &PartitionError{Path: path, Err: err}
	}
	for _, note := range t.Notes {
		notes = append(notes, path+": "+note)
	}
	return p.Start, p.Size, notes, nil
}

// table reads the partition table. An image is read as a disk with sectors of 512 bytes, or, if it
// has a GPT that says so, of 4,096.
func (o *store) table() (*partition.Table, error) {
	return readTable(o.spec.Path, o.device.Size, o.traits.logical, o)
}

// readTable reads the table of a device with a logical block size, or of an image.
func readTable(path string, size uint64, logical uint32, at io.ReaderAt) (*partition.Table, error) {
	sectors := []uint32{sector, maxBlock}
	if logical != 0 {
		sectors = []uint32{logical}
	}
	t, err := partition.Read(at, size, sectors...)
	if err != nil {
		return nil, &PartitionError{Path: path, Err: err}
	}
	return t, nil
}

// ReadAt reads whole blocks around a range, as O_DIRECT wants it. What went through the page cache
// leaves it again, see look.
func (o *store) ReadAt(p []byte, at int64) (int, error) {
	from := at &^ (maxBlock - 1)
	length := (at + int64(len(p)) + maxBlock - 1 - from) &^ (maxBlock - 1)
	b, err := unix.Mmap(-1, 0, int(length), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(b)
	n := 0
	for n < len(b) {
		got, err := preadRetry(o.device.FD, b[n:], from+int64(n))
		if err != nil {
			return 0, err
		}
		if got == 0 {
			break
		}
		n += got
	}
	if !o.device.Direct {
		_ = unix.Fadvise(o.device.FD, from, length, unix.FADV_DONTNEED)
	}
	return copy(p, b[min(int(at-from), n):n]), nil
}

// choose finds the range of the store that the export shows.
func (b *Backing) choose() error {
	o := b.store
	if b.spec.Partition == "" {
		b.window = window{0, o.device.Size}
		return nil
	}
	t, err := o.table()
	if err != nil {
		return err
	}
	p, err := t.Find(b.spec.Partition)
	if err != nil {
		return &PartitionError{Path: o.spec.Path, Err: err}
	}
	for _, note := range t.Notes {
		b.Notes = append(b.Notes, o.spec.Path+": "+note)
	}
	return b.take(p)
}

// take makes the export show a partition.
func (b *Backing) take(p *partition.Partition) error {
	o := b.store
	b.window = window{p.Start, p.Size}
	if grain := uint64(max(minPreferred, o.device.Block)); p.Start%grain != 0 {
		b.Notes = append(b.Notes, fmt.Sprintf("%s: partition %d begins at byte %d, not on a block "+
			"of %d: it works, and small writes are slower", o.spec.Path, p.Number, p.Start, grain))
	}
	if b.spec.Raw {
		return nil
	}
	luks, err := Look(b.spec.Text(), p.Size, func(q []byte, at int64) (int, error) {
		return o.ReadAt(q, int64(p.Start)+at)
	})
	b.Encrypted = luks
	var format *FormatError
	if errors.As(err, &format) {
		format.Part = true
	}
	return err
}

// preferred is the block size that the export does best with, in bytes: that of the store, unless
// the range begins in the middle of such a block.
func (b *Backing) preferred() uint32 {
	preferred := b.store.traits.preferred
	if base := b.window.base; base > 0 {
		aligned := uint32(1) << min(bits.TrailingZeros64(base), 31)
		preferred = max(min(preferred, aligned), minPreferred)
	}
	return preferred
}

// partitions returns the specs of the partitions of an open disk. A disk without a table has none.
func (b *Backing) partitions() ([]Spec, error) {
	t, err := b.store.table()
	var none *partition.NoneError
	if errors.As(err, &none) {
		b.Notes = append(b.Notes, err.Error()+": it is exported as a whole")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	specs := make([]Spec, len(t.Partitions))
	for i := range specs {
		p := &t.Partitions[i]
		s := b.spec
		s.Partitions, s.Create = false, 0
		s.Partition = strconv.Itoa(p.Number)
		s.Name = PartitionName(b.spec.Name, p.Number)
		text := "partition " + s.Partition
		if p.Label != "" {
			text += fmt.Sprintf(", %q", p.Label)
		}
		if s.Description != "" {
			text = s.Description + ": " + text
		}
		s.Description = text
		specs[i] = s
	}
	return specs, nil
}

// PartitionName is the name of the export of a partition of a disk: NAME/N, and N alone if the disk
// is the default export.
func PartitionName(disk string, number int) string {
	if disk == "" {
		return strconv.Itoa(number)
	}
	return disk + "/" + strconv.Itoa(number)
}
