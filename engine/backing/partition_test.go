// Partitions as exports: how they are written, which range they show, and what goes together.
//
// Invariant: tables are written by the test's own bytes, so that no program is needed; package
// partition has the tests of tables, and the live tests compare with the kernel.

package backing

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPathsWithQuestionMarks(t *testing.T) {
	for text, want := range map[string][2]string{
		"disk.img":                               {"disk.img", ""},
		"disk.img?partition=2":                   {"disk.img", "2"},
		"disk.img?partition=label:a b?c=d":       {"disk.img", "label:a b?c=d"},
		"disk.img?partition=":                    {"disk.img?partition=", ""},
		"what?":                                  {"what?", ""},
		"what??":                                 {"what??", ""},
		"a?b=c&d":                                {"a?b=c&d", ""},
		"partition=2":                            {"partition=2", ""},
		"disk??partition=2.img":                  {"disk?partition=2.img", ""},
		"disk??partition=2.img?partition=5":      {"disk?partition=2.img", "5"},
		"disk????partition=2":                    {"disk??partition=2", ""},
		"disk???partition=2":                     {"disk?", "2"},
		"a?partition=label:x?partition=1":        {"a", "label:x?partition=1"},
		"a??partition=b??partition=?partition=1": {"a?partition=b?partition=", "1"},
		"?partition=1":                           {"", "1"},
	} {
		var s Spec
		s.SetPath(text)
		if s.Path != want[0] || s.Partition != want[1] {
			t.Errorf("%s: %q and %q, want %q", text, s.Path, s.Partition, want)
		}
		var again Spec
		again.SetPath(s.Text())
		if again != s {
			t.Errorf("%s is written %s", text, s.Text())
		}
	}
}

// partitioned makes an image of 4 MiB with three primary partitions: of sectors 63 to 1062, 1063 to
// 2047, and 2048 to 8191.
func partitioned(t *testing.T, directory string) string {
	t.Helper()
	path := image(t, directory, 4<<20)
	writeMBR(t, path, 63, 1000, 1063, 985, 2048, 6144)
	return path
}

// writeMBR writes an MBR of primary partitions, each with its first sector and its length.
func writeMBR(t *testing.T, path string, ranges ...uint32) {
	t.Helper()
	b := make([]byte, 512)
	for i := 0; i < len(ranges); i += 2 {
		e := b[446+8*i:]
		e[4] = 0x83
		binary.LittleEndian.PutUint32(e[8:], ranges[i])
		binary.LittleEndian.PutUint32(e[12:], ranges[i+1])
	}
	b[510], b[511] = 0x55, 0xaa
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
}

func TestPartitionsShareTheDescriptorOfTheirDisk(t *testing.T) {
	var r Stores
	path := partitioned(t, t.TempDir())
	all := prepared(t, &r, Spec{Name: "disk", Path: path, ReadOnly: true},
		Spec{Name: "two", Path: path, Partition: "2"})
	later := prepared(t, &r, Spec{Name: "three", Path: path, Partition: "3"})[0]
	disk, two := all[0], all[1]
	if disk.Device != two.Device || later.Device != two.Device || disk.Device.ReadOnly {
		t.Error("the disk and its partitions have several devices, or one that cannot be written")
	}
	if two.Export.Size != 985*512 || two.Engine().Base != 1063*512 ||
		later.Export.Size != 6144*512 || later.Engine().Base != 1<<20 ||
		disk.Export.Size != 4<<20 || disk.window.base != 0 {
		t.Errorf("%+v %+v", two.window, later.window)
	}
	if disk.Export.Flags&2 == 0 || two.Export.Flags&2 != 0 { // READ_ONLY
		t.Error("read-only is not by export")
	}
	if len(two.Notes) != 1 || !strings.Contains(two.Notes[0], "not on a block of") ||
		len(later.Notes) != 0 {
		t.Errorf("notes %q %q", two.Notes, later.Notes)
	}
	inTheWay(t, &r, Spec{Name: "again", Path: path, Partition: "2"}, "exported twice")
	inTheWay(t, &r, Spec{Name: "reader", Path: path, Partition: "2", ReadOnly: true}, "exported")
	for _, b := range []*Backing{disk, two} {
		if err := b.Close(); err != nil || later.Device.FD < 0 {
			t.Fatal(err)
		}
	}
	refused(t, "in use by another ringnbd", Spec{Path: path, Partition: "1"})
	prepared(t, &r, Spec{Name: "disk", Path: path})
	// The table was rewritten by a client of the disk: what is open stays where it is, and what
	// would overlap with it is refused.
	writeMBR(t, path, 2000, 100, 2100, 100)
	inTheWay(t, &r, Spec{Name: "new", Path: path, Partition: "1"}, "exported twice")
	if later.window.base != 1<<20 {
		t.Error("an open export moved")
	}
}

func TestAReadOnlyStoreCannotBeWrittenThroughAPartition(t *testing.T) {
	var r Stores
	path := partitioned(t, t.TempDir())
	prepared(t, &r, Spec{Name: "disk", Path: path, ReadOnly: true})
	if e := inTheWay(t, &r, Spec{Name: "one", Path: path, Partition: "1"},
		`is open for reading only, by the export "disk"`); e.Mode == "" {
		t.Error("no mode")
	}
}

func TestAllPartitionsOfADisk(t *testing.T) {
	var r Stores
	path := partitioned(t, t.TempDir())
	all := prepared(t, &r, Spec{Name: "disk", Path: path, Partitions: true, Description: "mine"},
		Spec{Name: "other", Path: "null:1G"})
	var names []string
	for _, b := range all {
		names = append(names, b.Export.Name)
	}
	if got := strings.Join(names, " "); got != "disk other disk/1 disk/2 disk/3" {
		t.Fatalf("exports %s", got)
	}
	if p := all[4]; p.Disk != all[0] || p.Export.Description != "mine: partition 3" ||
		p.Export.Size != 6144*512 || p.Device != all[0].Device {
		t.Errorf("%+v", p.Export)
	}
	for _, b := range all {
		b.Close()
	}
	_, err := r.Prepare([]Spec{{Path: path, Partitions: true}, {Name: "2", Path: "null:1G"}})
	var name *NameError
	if !errors.As(err, &name) {
		t.Errorf("a name that is taken: %v", err)
	}
	if len(r.open) != 0 {
		t.Errorf("%d stores are open", len(r.open))
	}
	blank := image(t, t.TempDir(), 1<<20)
	if b := prepared(t, &r, Spec{Path: blank, Partitions: true}); len(b) != 1 ||
		len(b[0].Notes) != 1 || !strings.Contains(b[0].Notes[0], "exported as a whole") {
		t.Errorf("%d exports, %q", len(b), b[0].Notes)
	}
}

func TestPartitionsThatCannotBeHad(t *testing.T) {
	directory := t.TempDir()
	path := partitioned(t, directory)
	blank := filepath.Join(directory, "blank")
	if err := os.WriteFile(blank, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	overlap := filepath.Join(directory, "overlap")
	if err := os.WriteFile(overlap, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	writeMBR(t, overlap, 63, 100, 162, 100)
	literal := filepath.Join(directory, "a?partition=7")
	if err := os.WriteFile(literal, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		words string
		spec  Spec
	}{
		{"disk.img: there is no partition 9; there are 1, 2, 3", Spec{Path: path, Partition: "9"}},
		{"disk.img: partition=x: is not understood", Spec{Path: path, Partition: "x"}},
		{"disk.img: an MBR has no labels", Spec{Path: path, Partition: "label:x"}},
		{"blank: has no partition table", Spec{Path: blank, Partition: "1"}},
		{"partition 1 and partition 2 overlap", Spec{Path: overlap, Partition: "1"}},
		{"partition 1 and partition 2 overlap", Spec{Path: overlap, Partitions: true}},
		{"memory:1M: exists only in this process", Spec{Path: "memory:1M", Partition: "1"}},
		{"null:1M: exists only in this process", Spec{Path: "null:1M", Partitions: true}},
		{"is a partition itself", Spec{Path: path, Partition: "1", Partitions: true}},
		{"a new image has no partitions", Spec{Path: path + "x", Partition: "1", Create: 4096}},
		{"missing: no such file", Spec{Path: filepath.Join(directory, "missing"), Partition: "1"}},
		{"is written " + "'" + filepath.Join(directory, "a??partition=7") + "'",
			Spec{Path: filepath.Join(directory, "a"), Partition: "7"}},
	} {
		refused(t, c.words, c.spec)
	}
}
