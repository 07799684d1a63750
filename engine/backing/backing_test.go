// What a user can get wrong about a path, and what must be true of one that is right. Each test
// makes its stores in a temporary directory, on tmpfs in /dev/shm, or as a loop device where that
// is allowed.
//
// Invariant: a test that cannot make its store says which one it misses and is skipped.

package backing

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/testbed"
	"ringnbd/proto"
)

// image makes a sparse file of size bytes.
func image(t *testing.T, directory string, size int64) string {
	t.Helper()
	path := filepath.Join(directory, "disk.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustOpen(t *testing.T, s Spec) *Backing {
	t.Helper()
	b, err := Open(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// refused checks that opening fails with one line that begins with the path and holds the words.
func refused(t *testing.T, words string, specs ...Spec) {
	t.Helper()
	all, err := Prepare(specs)
	if err == nil {
		for _, b := range all {
			if err = b.Create(); err != nil {
				break
			}
		}
		for _, b := range all {
			defer b.Abandon()
		}
	}
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	if !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q, want one line with %q", err, words)
	}
}

// tmpfs is a temporary directory in memory.
func tmpfs(t *testing.T) string {
	t.Helper()
	directory, err := os.MkdirTemp("/dev/shm", "ringnbd")
	if err != nil {
		t.Skipf("no tmpfs at /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	var fs unix.Statfs_t
	if err := unix.Statfs(directory, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Skip("/dev/shm is not tmpfs")
	}
	return directory
}

func TestBadPathsAreExplained(t *testing.T) {
	directory := t.TempDir()
	fifo := filepath.Join(directory, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	dangling := filepath.Join(directory, "dangling")
	if err := os.Symlink("nowhere", dangling); err != nil {
		t.Fatal(err)
	}
	file := image(t, directory, 1<<20)
	for _, c := range []struct {
		words string
		spec  Spec
	}{
		{"is a directory, not a disk image", Spec{Path: directory}},
		{"is a FIFO", Spec{Path: fifo}},
		{"is a character device", Spec{Path: "/dev/null"}},
		{"no such file", Spec{Path: filepath.Join(directory, "missing")}},
		{"there is no directory", Spec{Path: filepath.Join(directory, "a", "b"), Create: 1 << 20}},
		{"symbolic link to a file that does not exist", Spec{Path: dangling, Create: 1 << 20}},
		{"is a file, not a directory", Spec{Path: filepath.Join(file, "x")}},
		{"an image that is read-only is not made",
			Spec{Path: filepath.Join(directory, "m"), Create: 1 << 20, ReadOnly: true}},
		{"exists and is 1048576 bytes long, not the 2097152", Spec{Path: file, Create: 2 << 20}},
		{"not a multiple of the logical block size, 512 bytes",
			Spec{Path: filepath.Join(directory, "m"), Create: 1000}},
		{"is not understood", Spec{Path: "null:big"}},
		{"carries its size in its name", Spec{Path: "null:1M", Create: 1 << 20}},
		{"has an empty path", Spec{Name: "x"}},
		{"NUL", Spec{Path: "a\x00b"}},
		{`name "\xff" must be UTF-8: its byte 1, 0xff, is not`, Spec{Path: file, Name: "\xff"}},
		{`name "é\xe9\u202e" must be UTF-8: its byte 3, 0xe9, is not`,
			Spec{Path: file, Name: "é\xe9\u202e"}},
		{"name has 4097 bytes, and the protocol has room for 4096",
			Spec{Path: file, Name: strings.Repeat("n", 4097)}},
		{"name has 4098 bytes", Spec{Path: file, Name: strings.Repeat("é", 2049)}},
		{`description "a\x00b" must not hold a NUL`, Spec{Path: file, Description: "a\x00b"}},
		// half a surrogate pair
		{`description "\xed\xa0\x80" must be UTF-8: its byte 1, 0xed`,
			Spec{Path: file, Description: "\xed\xa0\x80"}},
	} {
		refused(t, c.words, c.spec)
	}
	refused(t, `two exports are named "a"`, Spec{Name: "a", Path: "null:1M"},
		Spec{Name: "a", Path: "null:2M"})
	if left, _ := os.ReadDir(directory); len(left) != 3 {
		t.Errorf("%d entries in the directory after errors, want the 3 made by the test", len(left))
	}
}

// Whatever the size, it is served to the byte: through the page cache where O_DIRECT has coarser
// units.
func TestSizeOfImage(t *testing.T) {
	directory := t.TempDir()
	for _, size := range []int64{0, 1, 511, 1000, 4097} {
		path := image(t, directory, size)
		for _, readOnly := range []bool{true, false} {
			b := mustOpen(t, Spec{Path: path, ReadOnly: readOnly})
			if b.Device.Size != uint64(size) || b.Export.Size != uint64(size) ||
				b.Device.Direct && size > 0 || b.Device.ReadOnly != readOnly {
				t.Errorf("size %d: %+v", size, b.Device)
			}
			if err := b.Export.Validate(); err != nil {
				t.Error(err)
			}
			b.Close()
		}
		if info, err := os.Stat(path); err != nil || info.Size() != size {
			t.Errorf("the image was changed: %v %v", info, err)
		}
	}
	noted(t, "not a multiple of 512", Spec{Path: image(t, directory, 1000)})
	noted(t, "is empty", Spec{Path: image(t, directory, 0)})
}

func TestNoPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may open every file; the script no-permission covers this without " +
			"capabilities")
	}
	path := image(t, t.TempDir(), 1<<20)
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	refused(t, "no permission to write to it", Spec{Path: path})
	mustOpen(t, Spec{Path: path, ReadOnly: true})
}

func TestLockExcludes(t *testing.T) {
	path := image(t, t.TempDir(), 1<<20)
	first := mustOpen(t, Spec{Path: path})
	refused(t, "in use by another ringnbd", Spec{Path: path})
	refused(t, "in use by another ringnbd", Spec{Path: path, ReadOnly: true})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, Spec{Path: path, ReadOnly: true})
	mustOpen(t, Spec{Path: path, ReadOnly: true})
	refused(t, "in use by another ringnbd", Spec{Path: path})
}

func TestLockOfTheDepartedIsWaitedFor(t *testing.T) {
	path := image(t, t.TempDir(), 1<<20)
	first := mustOpen(t, Spec{Path: path})
	if !heldByLiving(first.Device.FD) {
		t.Error("our own lock is not seen in /proc/locks")
	}
	closed := make(chan error)
	time.AfterFunc(100*time.Millisecond, func() { closed <- first.Close() })
	mustOpen(t, Spec{Path: path})
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if living("0") || !living("self") {
		t.Error("cannot tell the living from the dead")
	}
}

func TestSameFileTwice(t *testing.T) {
	directory := t.TempDir()
	path := image(t, directory, 1<<20)
	link := filepath.Join(directory, "link")
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	refused(t, `exported twice (as "a" and "b")`, Spec{Name: "a", Path: path},
		Spec{Name: "b", Path: link})
	refused(t, "exported twice", Spec{Name: "a", Path: path, ReadOnly: true},
		Spec{Name: "b", Path: link})
	missing := filepath.Join(directory, "new")
	refused(t, "exported twice", Spec{Name: "a", Path: missing, Create: 4096},
		Spec{Name: "b", Path: directory + "/./new", Create: 4096})
	all, err := Prepare([]Spec{{Name: "a", Path: path, ReadOnly: true},
		{Name: "b", Path: link, ReadOnly: true}, {Name: "c", Path: "null:1M"},
		{Name: "d", Path: "null:1M"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		b.Close()
	}
}

func TestCreate(t *testing.T) {
	directory := t.TempDir()
	path := filepath.Join(directory, "new.img")
	all, err := Prepare([]Spec{{Path: path, Create: 1 << 40}})
	if err != nil {
		t.Fatal(err)
	}
	b := all[0]
	if _, err := os.Stat(path); err == nil {
		t.Error("Prepare made the image")
	}
	if err := b.Create(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Size != 1<<40 || st.Blocks > 64 {
		t.Errorf("made %d bytes in %d sectors, %v; want a sparse TiB", st.Size, st.Blocks, err)
	}
	if b.Export.Size != 1<<40 || b.Device.FD < 0 {
		t.Errorf("after Create: %+v", b.Export)
	}
	refused(t, "in use by another ringnbd", Spec{Path: path})
	b.Abandon()
	if _, err := os.Stat(path); err == nil {
		t.Error("Abandon left the image")
	}
	again := mustOpen(t, Spec{Path: path, Create: 1 << 20})
	again.Close()
	mustOpen(t, Spec{Path: path, Create: 1 << 20}).Abandon()
	if _, err := os.Stat(path); err != nil {
		t.Error("Abandon removed an image that was there before")
	}
}

func TestAbandonSparesAnotherFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new.img")
	b := mustOpen(t, Spec{Path: path, Create: 4096})
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Abandon()
	if text, err := os.ReadFile(path); err != nil || string(text) != "other" {
		t.Errorf("Abandon touched a file that it did not make: %q %v", text, err)
	}
}

func TestAnImageThatAnotherHasLockedFirstIsNotRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new.img")
	err := testbed.LockFirst(t, path, func() error {
		all, err := Prepare([]Spec{{Path: path, Create: 4096}})
		if err != nil {
			return nil
		}
		err = all[0].Create()
		_ = all[0].Close()
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "in use by another ringnbd") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file that another program has was removed: %v", err)
	}
}

func TestAFileThatIsReplacedWhileItIsOpenedIsNotServed(t *testing.T) {
	path := image(t, t.TempDir(), 4096)
	fd, err := openRetry(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	o := &store{spec: Spec{Path: path}}
	o.device.FD = fd
	defer o.close()
	if err := os.WriteFile(path+".new", make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func() error{
		"replaced": func() error { return os.Rename(path+".new", path) },
		"removed":  func() error { return os.Remove(path) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if err := o.measure(false); err == nil ||
			!strings.Contains(err.Error(), "replaced or removed") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCreateTooLargeLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "huge")
	if b, err := Open(Spec{Path: path, Create: 1<<63 - 512}); err == nil {
		b.Abandon()
		t.Skip("the temporary directory takes files of 8 EiB")
	}
	refused(t, "cannot be made with", Spec{Path: path, Create: 1<<63 - 512})
	if _, err := os.Stat(path); err == nil {
		t.Error("the image that failed was left behind")
	}
}

func TestOpeningChangesNothing(t *testing.T) {
	for name, directory := range map[string]string{"temporary directory": t.TempDir(),
		"tmpfs": tmpfs(t)} {
		t.Run(name, func(t *testing.T) {
			path := image(t, directory, 8<<20)
			past := time.Now().Add(-time.Hour)
			if err := os.Chtimes(path, past, past); err != nil {
				t.Fatal(err)
			}
			var before, after unix.Stat_t
			if err := unix.Stat(path, &before); err != nil {
				t.Fatal(err)
			}
			mustOpen(t, Spec{Path: path}).Close()
			if err := unix.Stat(path, &after); err != nil {
				t.Fatal(err)
			}
			after.Atim = before.Atim
			if before != after {
				t.Errorf("opening changed the image:\n%+v\n%+v", before, after)
			}
			if left, _ := os.ReadDir(directory); len(left) != 1 {
				t.Errorf("%d entries beside the image", len(left)-1)
			}
		})
	}
}

func TestDirectModes(t *testing.T) {
	path := image(t, tmpfs(t), 1<<20)
	refused(t, "tmpfs takes no O_DIRECT",
		Spec{Path: path, Direct: DirectOn})
	b := mustOpen(t, Spec{Path: path})
	if b.Device.Direct || b.Device.Block != 1 || len(b.Notes) != 1 ||
		!strings.Contains(b.Notes[0], "tmpfs takes no O_DIRECT") {
		t.Errorf("on tmpfs: %+v %q", b.Device, b.Notes)
	}
	if !b.Device.Punch || b.Device.ZeroRange {
		t.Errorf("tmpfs punches holes and has no ZERO_RANGE, found %v %v", b.Device.Punch,
			b.Device.ZeroRange)
	}

	path = image(t, t.TempDir(), 1<<20)
	b = mustOpen(t, Spec{Path: path, Direct: DirectOff})
	if b.Device.Direct || b.Device.Block != 1 || len(b.Notes) != 0 {
		t.Errorf("--direct off: %+v %q", b.Device, b.Notes)
	}
	b.Close()
	b = mustOpen(t, Spec{Path: path})
	if !b.Device.Direct {
		t.Skipf("the temporary directory takes no O_DIRECT: %q", b.Notes)
	}
	flags, err := unix.FcntlInt(uintptr(b.Device.FD), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_DIRECT == 0 || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("descriptor flags %#x, want O_DIRECT and not O_NONBLOCK", flags)
	}
	if b.Device.Block < 512 || b.Device.Block > 4096 {
		t.Errorf("granularity %d", b.Device.Block)
	}
	if unit := tryDirect(b.Device.FD); unit < 512 || unit > b.Device.Block {
		t.Errorf("trial reads say granularity %d, statx says %d", unit, b.Device.Block)
	}
}

func TestFlagsAreHonest(t *testing.T) {
	const always = proto.FlagHasFlags | proto.FlagSendFlush | proto.FlagSendFUA |
		proto.FlagCanMultiConn
	const zeroes = proto.FlagSendWriteZeroes
	const cache = proto.FlagSendCache
	for name, c := range map[string]struct {
		device     *engine.Device
		rotational bool
		want       uint16
	}{
		"read-only": {&engine.Device{ReadOnly: true, Punch: true, FastZero: true,
			Discard: true}, false, always | cache | proto.FlagReadOnly},
		"read-only null": {&engine.Device{Kind: engine.Null, ReadOnly: true}, false,
			always | proto.FlagReadOnly},
		"plain file":         {&engine.Device{}, false, always | cache | zeroes},
		"file with O_DIRECT": {&engine.Device{Direct: true}, false, always | zeroes},
		"file with holes": {&engine.Device{Punch: true, FastZero: true}, false,
			always | cache | zeroes | proto.FlagSendTrim | proto.FlagSendFastZero},
		"disk": {&engine.Device{Kind: engine.Block, ZeroRange: true}, true,
			always | cache | zeroes | proto.FlagRotational},
		"disk with discard": {&engine.Device{Kind: engine.Block, Discard: true}, false,
			always | cache | zeroes | proto.FlagSendTrim},
		"memory and null trim": {&engine.Device{Kind: engine.Memory, FastZero: true}, false,
			always | zeroes | proto.FlagSendTrim | proto.FlagSendFastZero},
	} {
		if got := transmissionFlags(c.device, c.device.ReadOnly, c.rotational); got != c.want {
			t.Errorf("%s: flags %#x, want %#x", name, got, c.want)
		}
	}
}

func TestSynthetic(t *testing.T) {
	b := mustOpen(t, Spec{Path: "null:4096P", Name: "n", Description: "d", ReadOnly: true})
	if b.Device.Kind != engine.Null || b.Device.FD != -1 || b.Device.Size != 4<<60 ||
		!b.Device.ReadOnly {
		t.Errorf("null: %+v", b.Device)
	}
	if b.Export.Name != "n" || b.Export.Description != "d" {
		t.Errorf("null: %+v", b.Export)
	}
	b = mustOpen(t, Spec{Path: "memory:1G"})
	if b.Device.Kind != engine.Memory || b.Device.Size != 1<<30 || b.Device.Memory == nil {
		t.Errorf("memory: %+v", b.Device)
	}
	if err := b.Export.Validate(); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil || b.Device.Memory != nil {
		t.Errorf("close: %v", err)
	}
	t.Chdir(t.TempDir())
	if err := os.Rename(image(t, ".", 4096), "null:1G"); err != nil {
		t.Fatal(err)
	}
	if b := mustOpen(t, Spec{Path: "./null:1G"}); b.Device.Kind != engine.File ||
		b.Device.Size != 4096 {
		t.Errorf("./null:1G is not the file: %+v", b.Device)
	}
}

func TestShellQuote(t *testing.T) {
	for path, want := range map[string]string{"/a/b-c.img": "/a/b-c.img", "my disk": "'my disk'",
		"it's": `'it'\''s'`} {
		if got := ShellQuote(path); got != want {
			t.Errorf("ShellQuote(%q) = %s, want %s", path, got, want)
		}
	}
}

// What waits for a network or another process is never written to by the
// loop itself, and what is not known is taken to wait.
func TestFileSystemsThatWait(t *testing.T) {
	for magic, known := range fileSystems {
		if known.waits && (known.local || known.freezes) {
			t.Errorf("%s (%#x) waits for others, and is said to be local", known.name, magic)
		}
	}
	proc, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	if !fileSystemOf(int(proc.Fd())).waits {
		t.Error("a file system that is not known is taken to wait for nobody")
	}
	if fileSystemOf(-1).local {
		t.Error("what cannot be asked is taken to be local")
	}
	memory, err := os.Open("/dev/shm")
	if err != nil {
		t.Skip("no /dev/shm here")
	}
	defer memory.Close()
	if fileSystemOf(int(memory.Fd())).waits {
		t.Error("tmpfs is taken to wait for others")
	}
}
