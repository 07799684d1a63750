// Block devices, on loop devices that each test attaches and detaches. They need root and losetup.

package backing

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/proto"
)

// loopDevice attaches a loop device to a fresh image of size bytes.
func loopDevice(t *testing.T, size int64, options ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("loop devices need root")
	}
	if _, err := exec.LookPath("losetup"); err != nil {
		t.Skip("loop devices need losetup")
	}
	path := image(t, t.TempDir(), size)
	out, err := exec.Command("losetup",
		append(options, "--find", "--show", path)...).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device: %s", out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %s", device, out)
		}
	})
	return device
}

func TestBlockDevice(t *testing.T) {
	device := loopDevice(t, 8<<20)
	b := mustOpen(t, Spec{Path: device})
	defer b.Close()
	d := b.Device
	if d.Kind != engine.Block || d.Size != 8<<20 || d.ReadOnly || d.Block < 512 || d.Block > 4096 ||
		!d.ZeroRange {
		t.Errorf("device %+v, notes %q", d, b.Notes)
	}
	if !d.Direct && len(b.Notes) == 0 {
		t.Error("buffered without a note")
	}
	if d.Discard != (b.Export.Flags&proto.FlagSendTrim != 0) && !d.Punch {
		t.Errorf("TRIM advertised and discard found disagree: %#x %+v", b.Export.Flags, d)
	}
	if err := b.Export.Validate(); err != nil {
		t.Error(err)
	}
}

func TestBlockDeviceOfLargeSectors(t *testing.T) {
	device := loopDevice(t, 8<<20, "--sector-size", "4096")
	b := mustOpen(t, Spec{Path: device})
	defer b.Close()
	if b.Device.Block != 4096 || b.Export.MinBlock != 1 || b.Export.PreferredBlock < 4096 {
		t.Errorf("granularity %d, export %+v", b.Device.Block, b.Export)
	}
}

func TestReadOnlyBlockDevice(t *testing.T) {
	device := loopDevice(t, 8<<20, "--read-only")
	b := mustOpen(t, Spec{Path: device})
	defer b.Close()
	if !b.Device.ReadOnly || b.Export.Flags&proto.FlagReadOnly == 0 ||
		b.Export.Flags&(proto.FlagSendTrim|proto.FlagSendWriteZeroes) != 0 {
		t.Errorf("%+v %#x", b.Device, b.Export.Flags)
	}
	if len(b.Notes) == 0 || !strings.Contains(b.Notes[0], "read-only") {
		t.Errorf("notes %q", b.Notes)
	}
}

func TestBlockDeviceIsHeldExclusively(t *testing.T) {
	device := loopDevice(t, 8<<20)
	b := mustOpen(t, Spec{Path: device})
	refused(t, "in use by another ringnbd", Spec{Path: device})
	b.Close()
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		t.Fatal(err)
	}
	twin := filepath.Join(t.TempDir(), "twin")
	if err := unix.Mknod(twin, unix.S_IFBLK|0o600, int(st.Rdev)); err != nil {
		t.Skipf("no second device node: %v", err)
	}
	refused(t, "exported twice", Spec{Name: "a", Path: device}, Spec{Name: "b", Path: twin})
}

func TestMountedDevice(t *testing.T) {
	device := loopDevice(t, 8<<20)
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("mounting needs mkfs.ext4")
	}
	if out, err := exec.Command("mkfs.ext4", "-q", device).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %s", out)
	}
	point := t.TempDir()
	if err := unix.Mount(device, point, "ext4", unix.MS_RDONLY, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer func() {
		if err := unix.Unmount(point, 0); err != nil {
			t.Error(err)
		}
	}()
	refused(t, "is mounted at "+point, Spec{Path: device})
	mustOpen(t, Spec{Path: device, ReadOnly: true}).Close()
}

// mounted makes a file system on a device and mounts it.
func mounted(t *testing.T, device, kind string, options ...string) string {
	t.Helper()
	if _, err := exec.LookPath("mkfs." + kind); err != nil {
		t.Skipf("needs mkfs.%s", kind)
	}
	if out, err := exec.Command("mkfs."+kind,
		append(options, device)...).CombinedOutput(); err != nil {
		t.Skipf("mkfs.%s: %s", kind, out)
	}
	point := t.TempDir()
	if err := unix.Mount(device, point, kind, 0, ""); err != nil {
		t.Skipf("mount of %s: %v", kind, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(point, 0); err != nil {
			t.Error(err)
		}
	})
	return point
}

// spin sets what a device's queue says of seeking.
func spin(t *testing.T, device string, rotational bool) {
	t.Helper()
	value := map[bool]string{false: "0", true: "1"}[rotational]
	if err := os.WriteFile("/sys/block/"+filepath.Base(device)+"/queue/rotational", []byte(value),
		0); err != nil {
		t.Skipf("the queue of %s cannot be changed: %v", device, err)
	}
}

func isRotational(t *testing.T, path string) bool {
	t.Helper()
	b := mustOpen(t, Spec{Path: path, ReadOnly: true})
	defer b.Close()
	return b.Export.Flags&proto.FlagRotational != 0
}

func TestRotationalIsWhatTheQueueSays(t *testing.T) {
	device := loopDevice(t, 16<<20)
	point := mounted(t, device, "ext4", "-q")
	file := image(t, point, 1<<20)
	for _, want := range []bool{true, false, true} {
		spin(t, device, want)
		if got := isRotational(t, device); got != want {
			t.Errorf("device: %t, its queue says %t", got, want)
		}
		if got := isRotational(t, file); got != want {
			t.Errorf("file on it: %t, its queue says %t", got, want)
		}
	}
	if isRotational(t, image(t, tmpfs(t), 1<<20)) {
		t.Error("a file in memory is rotational")
	}
}

func TestPartitionHasTheQueueOfItsDisk(t *testing.T) {
	device := loopDevice(t, 16<<20, "--partscan", "--sector-size", "4096")
	if _, err := exec.LookPath("addpart"); err != nil {
		t.Skip("partitions need addpart (package util-linux)")
	}
	// in sectors of 512 bytes
	if out, err := exec.Command("addpart", device, "1", "2048",
		"8192").CombinedOutput(); err != nil {
		t.Skipf("addpart: %s", out)
	}
	partition := device + "p1"
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(partition); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Skipf("no %s appears", partition)
		}
	}
	for _, want := range []bool{true, false} {
		spin(t, device, want)
		if got := isRotational(t, partition); got != want {
			t.Errorf("partition: %t, the queue of its disk says %t", got, want)
		}
	}
	b := mustOpen(t, Spec{Path: partition})
	defer b.Close()
	if b.Device.Size != 4<<20 || b.Device.Block != 4096 || b.Export.PreferredBlock != 4096 {
		t.Errorf("size %d, granularity %d, preferred %d", b.Device.Size, b.Device.Block,
			b.Export.PreferredBlock)
	}
}

func TestFileOnLargeSectors(t *testing.T) {
	file := image(t, mounted(t, loopDevice(t, 16<<20, "--sector-size", "4096"), "ext4", "-q"),
		1<<20)
	b := mustOpen(t, Spec{Path: file})
	defer b.Close()
	if b.Device.Direct && b.Device.Block != 4096 || b.Export.MinBlock != 1 ||
		b.Export.PreferredBlock != 4096 {
		t.Errorf("granularity %d, export %+v", b.Device.Block, b.Export)
	}
}

// An image of 512-byte sectors on a disk of larger ones: the page cache, for that image alone.
func TestFileOfSmallSectorsOnLargeOnes(t *testing.T) {
	dir := mounted(t, loopDevice(t, 16<<20, "--sector-size", "4096"), "ext4", "-q")
	file := image(t, dir, 1<<20)
	if b := mustOpen(t, Spec{Path: file}); !b.Device.Direct {
		t.Skip("no O_DIRECT here")
	} else {
		b.Close()
	}
	if err := os.Truncate(file, 1<<20+512); err != nil {
		t.Fatal(err)
	}
	noted(t, "are not whole units of O_DIRECT, 4096 bytes here", Spec{Path: file})
	b := mustOpen(t, Spec{Path: file, ReadOnly: true})
	defer b.Close()
	if b.Device.Direct || b.Device.Block != 1 || b.Device.Size != 1<<20+512 {
		t.Errorf("%+v", b.Device)
	}
	refused(t,
		"its 1049088 bytes are not whole units of O_DIRECT, 4096 bytes here",
		Spec{Path: file, ReadOnly: true, Direct: DirectOn, Force: true})
}

// The sizes that a disk may report, and what is made of them.
func TestBlocksOfAQueue(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]uint32{
		"512\n": 512, "4096\n": 4096, "65536\n": 65536, "1048576\n": 1 << 20,
		"0\n": 0, "196608\n": 0, "33553920\n": 0, "2097152\n": 0, "-1\n": 0, "\n": 0, "many\n": 0,
		"18446744073709551616\n": 0,
	} {
		if err := os.WriteFile(dir+"/optimal_io_size", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := queue(dir).block("optimal_io_size"); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if q := queue(dir); q.block("none") != 0 || q.rotational() || queueOf(0, 1).rotational() {
		t.Error("something comes out of nothing")
	}
}

// A file system may have blocks larger than a page, and writes less than one cost a read then,
// O_DIRECT or not.
func TestFileOfLargeBlocks(t *testing.T) {
	file := image(t, mounted(t, loopDevice(t, 512<<20), "xfs", "-q", "-b", "size=16384"), 1<<20)
	b := mustOpen(t, Spec{Path: file})
	defer b.Close()
	if b.Export.MinBlock != 1 || b.Export.PreferredBlock != 16384 {
		t.Errorf("export %+v", b.Export)
	}
}
