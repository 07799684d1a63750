// Overlays as files: what is made, what is opened again, what is refused, what BLOCK_STATUS says of
// them, and that commit and drop do what they say, also when they are cut. What clients write is
// put into a top as the plan would have left it.

package backing

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/layer/overlay"
	"ringnbd/engine/tree"
	"ringnbd/proto"
)

const layeredSize = 16 << 20

// origin makes an image with data in its first and last MiB and a hole between.
func origin(t *testing.T, directory string) string {
	t.Helper()
	path := filepath.Join(directory, "base.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int64{0, layeredSize - 1<<20} {
		if _, err := f.WriteAt(bytes.Repeat([]byte("origin  "), 1<<17), off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// over makes the spec of an overlay in a directory, over the origin that is there.
func over(directory string, options string) Spec {
	return Spec{Path: fmt.Sprintf("overlay(%s/base.img, %s/top%s)", directory, directory, options)}
}

// put writes data over the blocks of an overlay, as its plan would.
func put(t *testing.T, top string, size uint64, states map[uint64]overlay.State) {
	t.Helper()
	l, err := overlay.Lay(size)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(top, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block, s := range states {
		at := int64(l.MapAt + block/4)
		var b [1]byte
		if _, err := f.ReadAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		b[0] |= byte(s) << (2 * (block % 4))
		if _, err := f.WriteAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		if s != overlay.Data {
			continue
		}
		data := bytes.Repeat([]byte{'w'}, int(l.Block))
		if _, err := f.WriteAt(data, int64(l.DataAt+block*uint64(l.Block))); err != nil {
			t.Fatal(err)
		}
	}
}

// content is what a Backing shows.
func content(t *testing.T, b *Backing) []byte {
	t.Helper()
	at, done, err := b.reader()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	p := make([]byte, b.window.size)
	if err := at(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func sumOf(t *testing.T, path string) [32]byte {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(body)
}

func TestAnOverlayIsMadeAndOpenedAgain(t *testing.T) {
	places(t, func(t *testing.T, directory string) {
		base := origin(t, directory)
		sum := sumOf(t, base)
		refused(t, "no such file; correct the path, or make a new overlay", over(directory, ""))
		b := mustOpen(t, over(directory, ", create=if-missing"))
		if b.Export.Size != layeredSize || b.Device.Kind != engine.Planned ||
			b.Device.Block != 4096 || len(b.Device.Below) != 2 || !b.Device.Below[0].ReadOnly {
			t.Errorf("export %+v, device %+v", b.Export, b.Device)
		}
		want := proto.FlagHasFlags | proto.FlagSendFlush | proto.FlagSendFUA |
			proto.FlagCanMultiConn | proto.FlagSendTrim | proto.FlagSendWriteZeroes |
			proto.FlagSendFastZero
		if b.Export.Flags&^proto.FlagRotational != want {
			t.Errorf("flags %#x, want %#x", b.Export.Flags, want)
		}
		refused(t, "in use by another ringnbd", over(directory, ""))
		refused(t, "in use by another ringnbd", Spec{Path: base})
		shared := mustOpen(t, Spec{Path: base, ReadOnly: true}) // readers are no harm
		shared.Close()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		top := filepath.Join(directory, "top")
		put(t, top, layeredSize, map[uint64]overlay.State{1: overlay.Data, 2: overlay.Zeroes,
			3000: overlay.Data})
		b = mustOpen(t, over(directory, ""))
		got := content(t, b)
		expect := content(t, b.parts[0])
		copy(expect[4096:], bytes.Repeat([]byte{'w'}, 4096))
		clear(expect[8192:12288])
		copy(expect[3000*4096:], bytes.Repeat([]byte{'w'}, 4096))
		if !bytes.Equal(got, expect) {
			t.Error("the overlay does not show what was put into it")
		}
		if data, zeroes, ok := b.Held(); data != 8192 || zeroes != 4096 || !ok {
			t.Errorf("holds %d and %d, %v", data, zeroes, ok)
		}
		if sumOf(t, base) != sum {
			t.Error("the origin has changed")
		}
		refused(t, "is an overlay's file", Spec{Path: top, ReadOnly: true, Force: true})
	})
}

func TestWrongTopsAreRefused(t *testing.T) {
	directory := t.TempDir()
	base := origin(t, directory)
	top := filepath.Join(directory, "top")
	made := mustOpen(t, over(directory, ", create=if-missing"))
	made.Close()
	whole, err := os.ReadFile(top)
	if err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := os.WriteFile(top, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		words string
		spoil func()
	}{
		{"the overlay is damaged at byte 0", func() {
			whole := bytes.Clone(whole)
			whole[40]++
			whole[4096+40]++
			os.WriteFile(top, whole, 0o600)
		}},
		{"a state that blocks do not have", func() {
			put(t, top, layeredSize,
				map[uint64]overlay.State{9: 3})
		}},
		{"the file ends there", func() { os.Truncate(top, 1<<20) }},
		{"it is not an overlay, and is not overwritten", func() {
			os.WriteFile(top,
				bytes.Repeat([]byte("x"), 1<<20), 0o600)
		}},
		{"it is blank, not an overlay; remove it if", func() {
			os.WriteFile(top, make([]byte, 1<<20), 0o600)
		}},
		{"it is an overlay of format 7; known is 1; a newer ringnbd", func() {
			os.WriteFile(top, laterVersion(bytes.Clone(whole)), 0o600)
		}},
		{"of 16777216 bytes, and this origin has 16781312; name the origin", func() {
			os.Truncate(base, layeredSize+4096)
		}},
		{"over another origin", func() {
			os.Truncate(base, layeredSize)
			f, _ := os.OpenFile(base, os.O_RDWR, 0)
			f.WriteAt([]byte("mounted and written"), 1024)
			f.Close()
		}},
		{"the origin is empty", func() { os.Truncate(base, 0) }},
		{"is not a multiple of 512; make it a whole number", func() { os.Truncate(base, 1000) }},
	} {
		restore()
		c.spoil()
		refused(t, c.words, over(directory, ", create=if-missing"))
	}
	origin(t, directory)
	restore()
	mustOpen(t, over(directory, "")).Close()
	os.Remove(top)
	os.Mkdir(top, 0o700)
	refused(t, "is a directory", over(directory, ""))
	refused(t, "goes to a regular file", Spec{Path: "overlay(" + base + ", memory:1M)"})
}

// resum gives a superblock that was changed a right checksum.
func resum(super []byte) {
	end := len(super) - 4
	binary.LittleEndian.PutUint32(super[end:],
		crc32.Checksum(super[:end], crc32.MakeTable(crc32.Castagnoli)))
}

// laterVersion makes the superblocks those of a format that does not exist.
func laterVersion(top []byte) []byte {
	for at := 0; at < overlay.HeadLen; at += 4096 {
		top[at+8] = 7
		resum(top[at : at+4096])
	}
	return top
}

func TestTreesAreCheckedBeforeAnythingIsOpened(t *testing.T) {
	for words, s := range map[string]Spec{
		"never closed":               {Path: "overlay(a, b"},
		"has the size of its origin": {Path: "overlay(a, b)", Create: 1 << 20},
		"nothing to throw away": {Path: "overlay(a, discard=on-disconnect)",
			ReadOnly: true},
		"is not understood":              {Path: "overlay(null:x, b)"},
		"a stands in this tree twice":    {Path: "overlay(a, ./a)"},
		"is not a layer; the layers are": {Path: "overlay(a, mirror(b, c))"},
	} {
		if err := Check([]Spec{s}); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", s.Path, err, words)
		}
	}
	directory := t.TempDir()
	origin(t, directory)
	os.Symlink("base.img", filepath.Join(directory, "top"))
	refused(t, "in its tree twice", over(directory, "")) // one file under two names
	os.WriteFile(filepath.Join(directory, "overlay(x)"), make([]byte, 4096), 0o600)
	t.Chdir(directory)
	if b := mustOpen(t, Spec{Path: "./overlay(x)"}); b.Export.Size != 4096 {
		t.Errorf("%+v", b.Export)
	}
}

func TestAnOriginIsNotWrittenByAnotherExport(t *testing.T) {
	directory := t.TempDir()
	base := origin(t, directory)
	one := over(directory, ", create=if-missing")
	two := Spec{Name: "two", Path: fmt.Sprintf("overlay(%s, %s/other, create=if-missing)", base,
		directory)}
	refused(t, "an origin must not change", one, Spec{Name: "base", Path: base})
	refused(t, "an origin must not change", Spec{Name: "base", Path: base}, one)
	all, err := Prepare([]Spec{one, two, {Name: "base", Path: base, ReadOnly: true}})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		if err := b.Create(); err != nil {
			t.Fatal(err)
		}
		defer b.Close()
	}
	if all[0].Device.Below[0] != all[1].Device.Below[0] ||
		all[0].Device.Below[0] != all[2].Device {
		t.Error("an origin is open more than once")
	}
	same := one
	same.Name = "same"
	refused(t, "top", one, same)
}

func TestStatusIsTrueThroughToTheOrigin(t *testing.T) {
	directory := t.TempDir()
	origin(t, directory)
	mustOpen(t, over(directory, ", create=if-missing")).Close()
	put(t, filepath.Join(directory, "top"), layeredSize, map[uint64]overlay.State{
		0: overlay.Zeroes, 1: overlay.Data, 1000: overlay.Data})
	b := mustOpen(t, over(directory, ""))
	contexts := b.Engine().Contexts
	if len(contexts) != 2 || b.Export.Contexts[1].Name != "qemu:allocation-depth" {
		t.Fatalf("contexts %v", b.Export.Contexts)
	}
	list := status(t, contexts[0], 0, layeredSize)
	for off, want := range map[uint64]uint64{0: hole, 4096: data, 8192: data, 2 << 20: hole,
		1000 * 4096: data, 1001 * 4096: hole, layeredSize - 1: data} {
		if got := at(list, off); got != want {
			t.Errorf("base:allocation at %d is %d, want %d", off, got, want)
		}
	}
	list = status(t, contexts[1], 0, layeredSize)
	for off, want := range map[uint64]uint64{0: 1, 4096: 1, 8192: 2, 2 << 20: 2, 1000 * 4096: 1,
		1001 * 4096: 2, layeredSize - 1: 2} {
		if got := at(list, off); got != want {
			t.Errorf("allocation depth at %d is %d, want %d", off, got, want)
		}
	}
	b.Close()
	nested := mustOpen(t, Spec{Path: fmt.Sprintf("overlay(%s, %s/upper, create=if-missing)",
		over(directory, "").Path, directory)})
	list = status(t, nested.Engine().Contexts[1], 0, layeredSize)
	if at(list, 0) != 2 || at(list, 8192) != 3 {
		t.Errorf("depths of an overlay over an overlay: %v", list)
	}
	if !nested.Device.Below[0].ReadOnly {
		t.Error("an overlay that is an origin can be written to")
	}
}

func TestCommitAndDrop(t *testing.T) {
	places(t, func(t *testing.T, directory string) {
		base := origin(t, directory)
		top := filepath.Join(directory, "top")
		mustOpen(t, over(directory, ", create=if-missing")).Close()
		put(t, top, layeredSize, map[uint64]overlay.State{1: overlay.Data, 2: overlay.Zeroes,
			3000: overlay.Data})
		b := mustOpen(t, over(directory, ""))
		shown := content(t, b)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.Commit(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Fatalf("a commit that was cut: %v", err)
		}
		if !bytes.Equal(content(t, b), shown) {
			t.Error("a commit that was cut changed what is shown")
		}
		if err := b.Drop(); err == nil || !strings.Contains(err.Error(), "commit it again") {
			t.Errorf("dropped after half of a commit: %v", err)
		}
		b.Close()
		b = mustOpen(t, over(directory, ""))
		if !strings.Contains(strings.Join(b.Notes, "\n"), "commit it again") {
			t.Errorf("notes %q", b.Notes)
		}
		var done, total uint64
		if err := b.Commit(t.Context(), func(d, t uint64) { done, total = d, t }); err != nil {
			t.Fatal(err)
		}
		if done != 12288 || total != 12288 {
			t.Errorf("progress ends with %d of %d", done, total)
		}
		if data, zeroes, _ := b.Held(); data != 0 || zeroes != 0 {
			t.Errorf("holds %d and %d after a commit", data, zeroes)
		}
		if !bytes.Equal(content(t, b), shown) || !bytes.Equal(content(t, b.parts[0]), shown) {
			t.Error("the origin does not show what the overlay did")
		}
		refused(t, "in use by another ringnbd", Spec{Path: base}) // locked as before
		mustOpen(t, Spec{Path: base, ReadOnly: true}).Close()
		b.Close()
		put(t, top, layeredSize, map[uint64]overlay.State{7: overlay.Data})
		b = mustOpen(t, over(directory, "")) // it belongs to the origin as that is now
		if err := b.Drop(); err != nil {
			t.Fatal(err)
		}
		b.Close()
		b = mustOpen(t, over(directory, ""))
		if !bytes.Equal(content(t, b), shown) {
			t.Error("what was dropped is still there")
		}
		var st unix.Stat_t
		if unix.Stat(top, &st) != nil || st.Blocks*512 > 64<<10 {
			t.Errorf("an empty overlay takes %d bytes", st.Blocks*512)
		}
	})
}

func TestCommitIsRefusedWhereItWouldChangeOthers(t *testing.T) {
	directory := t.TempDir()
	base := origin(t, directory)
	all, err := Prepare([]Spec{over(directory, ", create=if-missing"),
		{Name: "other", Path: base, ReadOnly: true}})
	if err != nil {
		t.Fatal(err)
	}
	b := all[0]
	if err := b.Create(); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var empty *EmptyError
	if err := b.Commit(t.Context(), nil); !errors.As(err, &empty) || empty.Busy != "other" {
		t.Errorf("with another export of the origin: %v", err)
	}
	all[1].Close()
	elsewhere := mustOpen(t, Spec{Path: base, ReadOnly: true}) // as another process has it
	var held *HeldError
	if err := b.Commit(t.Context(), nil); !errors.As(err, &held) {
		t.Errorf("with another reader of the origin: %v", err)
	}
	elsewhere.Close()
	refused(t, "in use", Spec{Path: base}) // it kept its own lock
	if err := b.Commit(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestThrownAwayOverlaysLeaveNothing(t *testing.T) {
	directory := t.TempDir()
	base := origin(t, directory)
	s := Spec{Path: fmt.Sprintf("overlay(%s, discard=on-disconnect, dir=%s)", base, directory)}
	b := mustOpen(t, s)
	if !b.Discards() || b.Export.Flags&proto.FlagCanMultiConn != 0 || b.Device.Direct ||
		b.Export.Flags&proto.FlagReadOnly != 0 {
		t.Errorf("export %+v, device %+v", b.Export, b.Device)
	}
	before := descriptors(t)
	for range 50 {
		one, err := b.ThrowAway(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if one.Device.Kind != engine.Planned || one.Device.Below[0] != b.Device ||
			one.Device.Below[1].Kind != engine.File || !one.Device.Below[1].Punch {
			t.Fatalf("%+v", one.Device)
		}
		if err := one.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	if names, _ := os.ReadDir(directory); len(names) != 1 {
		t.Errorf("files are left: %v", names)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.ThrowAway(ctx); err == nil {
		t.Error("a client that has gone has an overlay")
	}
	last, err := b.ThrowAway(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if _, err := b.ThrowAway(t.Context()); err == nil || descriptors(t) != before+1 {
		t.Errorf("a closed export makes overlays, or has closed what one of them uses: %v", err)
	}
	last.Close()
	os.WriteFile(filepath.Join(directory, "file"), nil, 0o600)
	for _, dir := range []string{"/nowhere", filepath.Join(directory, "file")} {
		refused(t, "dir=DIRECTORY", Spec{Path: fmt.Sprintf(
			"overlay(%s, discard=on-disconnect, dir=%s)", base, dir)})
	}
	if d := descriptors(t); d != before-1 {
		t.Errorf("%d descriptors after all, %d with the origin open", d, before)
	}
}

// descriptors counts those of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestAnOriginOfManyClientsMayBeReadByOthersToo(t *testing.T) {
	directory := t.TempDir()
	base := origin(t, directory)
	specs := []Spec{{Path: fmt.Sprintf("overlay(%s, discard=on-disconnect)", base)},
		{Name: "ro", Path: base, ReadOnly: true}, over(directory, ", create=if-missing")}
	specs[2].Name = "kept"
	all, err := Prepare(specs)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		if err := b.Create(); err != nil {
			t.Error(err)
		}
		defer b.Close()
	}
	if all[0].Device == all[1].Device || all[1].Device != all[2].Device.Below[0] ||
		all[0].Device.Direct {
		t.Errorf("devices %+v, %+v", all[0].Device, all[1].Device)
	}
	var empty *EmptyError
	all[1].Close()
	if err := all[2].Commit(t.Context(), nil); !errors.As(err, &empty) || empty.Busy != "" {
		t.Errorf("committed into an origin of others: %v", err)
	}
	refused(t, "in use", Spec{Path: base})
	for _, b := range all {
		b.Close()
	}
	specs[1].ReadOnly = false
	refused(t, "an origin must not change", specs[1], specs[0])
	refused(t, "an origin must not change", specs[0], specs[1])
}

func TestFingerprintSeesOtherContentAndNoOtherName(t *testing.T) {
	directory := t.TempDir()
	base := origin(t, directory)
	sum := func() [32]byte {
		b := mustOpen(t, Spec{Path: base, ReadOnly: true})
		defer b.Close()
		s, err := b.fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := sum()
	moved := filepath.Join(directory, "moved")
	os.Rename(base, moved)
	base = moved
	if sum() != first {
		t.Error("another name is another fingerprint")
	}
	f, err := os.OpenFile(base, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int64{0, 100 << 10, layeredSize - 1, layeredSize - 4096} {
		was := sum()
		f.WriteAt([]byte{'#'}, off)
		if sum() == was {
			t.Errorf("a change at %d is not seen", off)
		}
	}
}

func TestAPartitionCanBeAnOrigin(t *testing.T) {
	directory := t.TempDir()
	disk := partitioned(t, directory)
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for number, begin := range map[int]int64{1: 63 * 512, 3: 1 << 20} {
		want := []byte(fmt.Sprintf("partition %d", number))
		if _, err := f.WriteAt(want, begin); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("overlay(%s?partition=%d, %s/top%d, create=if-missing)", disk, number,
			directory, number)
		b := mustOpen(t, Spec{Path: text})
		if got := content(t, b); !bytes.HasPrefix(got, want) {
			t.Errorf("partition %d begins with %q", number, got[:16])
		}
		list := status(t, b.Engine().Contexts[0], 0, b.Export.Size)
		if at(list, 0) != data || at(list, b.Export.Size-1) != hole {
			t.Errorf("partition %d: %v", number, list)
		}
		n, err := tree.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if p := Outline(n); p.Parts[0].Size != b.Export.Size || len(p.Errors()) > 0 ||
			p.Parts[0].Kind != "partition of a file" {
			t.Errorf("outline %+v: %v", p, p.Errors())
		}
		b.Close()
		thrown := mustOpen(t, Spec{Path: fmt.Sprintf(
			"overlay(%s?partition=%d, discard=on-disconnect)", disk, number)})
		if base := thrown.Engine().Base; base != uint64(begin) {
			t.Errorf("partition %d begins at %d", number, base)
		}
	}
}

// TestAnOverlayIsReadOnlyWhileItIsOpen checks that an overlay whose FILE is open for writing can be
// read-only for a while, and that one that was opened read-only cannot be written.
func TestAnOverlayIsReadOnlyWhileItIsOpen(t *testing.T) {
	directory := t.TempDir()
	origin(t, directory)
	s := over(directory, ", create=if-missing")
	b := mustOpen(t, s)
	for _, readOnly := range []bool{true, false} {
		s.ReadOnly = readOnly
		shown, ok, err := b.Altered(s)
		if is := shown.Flags&proto.FlagReadOnly != 0; err != nil || !ok || is != readOnly ||
			b.Device.ReadOnly {
			t.Errorf("read-only %t: %+v, %t, %v", readOnly, shown, ok, err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	s.ReadOnly = true
	b = mustOpen(t, s)
	s.ReadOnly = false
	if _, ok, err := b.Altered(s); ok || err != nil {
		t.Errorf("opened read-only, and can be written: %v", err)
	}
}
