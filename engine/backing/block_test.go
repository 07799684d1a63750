// Block devices, on loop devices that each test attaches and detaches. They need root and losetup.

package backing

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
	out, err := exec.Command("losetup", append(options, "--find", "--show", path)...).CombinedOutput()
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
	d := &b.Device
	if d.Kind != engine.Block || d.Size != 8<<20 || d.ReadOnly || d.Block < 512 || d.Block > 4096 || !d.ZeroRange {
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
	if !b.Device.ReadOnly || b.Export.Flags&proto.FlagReadOnly == 0 || b.Export.Flags&(proto.FlagSendTrim|proto.FlagSendWriteZeroes) != 0 {
		t.Errorf("%+v %#x", &b.Device, b.Export.Flags)
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
	refused(t, "is mounted or otherwise in use", Spec{Path: device})
	mustOpen(t, Spec{Path: device, ReadOnly: true}).Close()
}
