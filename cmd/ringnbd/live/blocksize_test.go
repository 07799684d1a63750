// Block sizes and the rotational flag, from a device's own limits to nbdinfo.

package live_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// loopOf attaches a loop device to a fresh image of 64 MiB.
func loopOf(t *testing.T, options ...string) string {
	t.Helper()
	needRoot(t, "loop devices")
	need(t, "losetup")
	out, err := try(t, time.Minute, "losetup",
		append(options, "--find", "--show", sparseImage(t, 64<<20))...)
	if err != nil {
		t.Skipf("no loop device: %s", out)
	}
	device := strings.TrimSpace(out)
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %s", device, out)
		}
	})
	return device
}

// blockSizes are minimum and preferred block as a client that asks is told them.
func blockSizes(t *testing.T, s *server) [2]uint32 {
	t.Helper()
	info := nbdinfo(t, s.uri(""))
	if len(info.Exports) != 1 {
		t.Fatalf("%+v", info)
	}
	e := info.Exports[0]
	if e.Maximum < 32<<20 {
		t.Errorf("maximum %d is less than clients may assume", e.Maximum)
	}
	return [2]uint32{e.Minimum, e.Preferred}
}

func TestBlockSizesOfDevices(t *testing.T) {
	need(t, "nbdinfo")
	onlyRingnbd(t)
	for _, sector := range []string{"512", "4096"} {
		device := loopOf(t, "--sector-size", sector)
		s := serve(t, measure.Unix, device)
		if got, want := blockSizes(t, s), [2]uint32{1, 4096}; got != want {
			t.Errorf("sectors of %s: %v, want %v", sector, got, want)
		}
		// The minimum is the truth: what does not fill a sector is completed.
		p := s.dial(t)
		data := pattern(5000, 1)
		if err := p.write(4095, data); err != nil {
			t.Errorf("sectors of %s: %v", sector, err)
		}
		if got, err := p.read(4094, len(data)+2); err != nil ||
			string(got) != "\x00"+string(data)+"\x00" {
			t.Errorf("sectors of %s: reads back otherwise (%v)", sector, err)
		}
		p.disconnect()
		s.stop()
	}
}

func TestBlockSizesOfFiles(t *testing.T) {
	need(t, "nbdinfo")
	onlyRingnbd(t)
	s := serve(t, measure.Unix, sparseImage(t, 1<<20))
	if got := blockSizes(t, s); got[0] != 1 || got[1] < 4096 || got[1]&(got[1]-1) != 0 {
		t.Errorf("file: %v", got)
	}
	memory, err := os.MkdirTemp("/dev/shm", "ringnbd")
	if err != nil {
		t.Skipf("no tmpfs at /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(memory) })
	path := filepath.Join(memory, "disk.img")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s = serve(t, measure.Unix, path)
	if got, want := blockSizes(t, s), [2]uint32{1, 4096}; got != want {
		t.Errorf("file on tmpfs: %v, want %v", got, want)
	}
	if answer(t, "--is", "rotational", s.uri("")) {
		t.Error("a file in memory is rotational")
	}
}

// The flag follows the device's queue, for the device and for a file on it.
func TestRotationalFollowsTheQueue(t *testing.T) {
	need(t, "nbdinfo", "mkfs.ext4")
	onlyRingnbd(t)
	device := loopOf(t)
	must(t, time.Minute, "mkfs.ext4", "-q", device)
	point := t.TempDir()
	if out, err := try(t, time.Minute, "mount", device, point); err != nil {
		t.Skipf("mount: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", point).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	file := filepath.Join(point, "disk.img")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	queue := "/sys/block/" + filepath.Base(device) + "/queue/rotational"
	for _, value := range []string{"1", "0"} {
		if err := os.WriteFile(queue, []byte(value), 0); err != nil {
			t.Skipf("the queue cannot be changed: %v", err)
		}
		for _, path := range []string{file, device} {
			s := serve(t, measure.Unix, path, "--read-only") // the device is mounted
			if got := answer(t, "--is", "rotational", s.uri("")); got != (value == "1") {
				t.Errorf("%s: nbdinfo --is rotational answers %t, the queue says %s", path, got,
					value)
			}
			s.stop()
		}
	}
}

// TestTrimOfADeviceThatOthersWrite: through the page cache, the kernel returns EBUSY if a page was
// written a moment ago. TRIM is a hint, so it must not fail for that; and zeroes are written
// instead of discarded.
func TestTrimOfADeviceThatOthersWrite(t *testing.T) {
	onlyRingnbd(t)
	device := loopOf(t)
	s := serve(t, measure.Unix, device, "--direct", "off")
	file, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stop, wrote := make(chan bool), make(chan int)
	go func() {
		page := make([]byte, 4096)
		for n := 0; ; n++ {
			select {
			case <-stop:
				wrote <- n
				return
			default:
				file.WriteAt(page, int64(n%64)*4096)
			}
		}
	}()
	p := s.dial(t)
	for range 300 { // a third of them meet it
		for command, flags := range map[uint16]uint16{cmdTrim: 0, cmdZeroes: 2} {
			if _, err := p.done(command, flags, 0, 256<<10, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	t.Logf("beside %d writes", <-wrote)
}
