// Disks that fail: the request fails, the connection stays up. Mounts
// and loop devices are made here and removed, so these tests need root.

package live_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// loopDevice attaches a file to a free loop device with direct I/O. The host may
// have none, then the test is skipped by name.
func loopDevice(t *testing.T, file string) string {
	t.Helper()
	need(t, "losetup")
	needRoot(t, "makes a loop device")
	out, err := exec.Command("losetup", "--find", "--show", "--direct-io=on", file).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device on this machine: %s", out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", device).CombinedOutput(); err != nil {
			t.Errorf("losetup -d %s: %v\n%s", device, err, out)
		}
	})
	return device
}

// mount mounts something on a folder of the test's own.
func mount(t *testing.T, arguments ...string) string {
	t.Helper()
	needRoot(t, "mounts a file system")
	dir := t.TempDir()
	if out, err := exec.Command("mount", append(arguments, dir)...).CombinedOutput(); err != nil {
		t.Skipf("cannot mount on this machine: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v\n%s", dir, err, out)
		}
	})
	return dir
}

func TestTruncatedFileIsAnErrorOfItsRequests(t *testing.T) {
	image := randomImage(t, 64<<20, 1)
	s := serve(t, measure.Unix, image)
	p := s.dial(t)
	first, err := p.read(0, 4096)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 32<<20+1000); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ offset, length int }{{48 << 20, 4096}, {32<<20 - 4096, 65536},
		{63<<20 + 1, 511}, {33 << 20, 16 << 20}} {
		r, err := p.do(cmdRead, 0, uint64(c.offset), uint32(c.length), nil)
		if err != nil {
			t.Fatalf("read of %d at %d beyond the new end: the connection: %v", c.length, c.offset,
				err)
		}
		if r.errno != eIO && underTest != "qemu-nbd" { // qemu reads zeroes there
			t.Errorf("read of %d at %d beyond the new end: error %d, want EIO", c.length, c.offset,
				r.errno)
		}
	}
	again, err := p.read(0, 4096)
	if err != nil || !bytes.Equal(again, first) {
		t.Errorf("what is left of the file: %v, equal %t", err, bytes.Equal(again, first))
	}
	if _, err := s.dial(t).read(4096, 4096); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}

// fill writes data to the export of a small file system until that is full, and
// checks that this is ENOSPC, that nothing acknowledged is lost, and that the
// connection stays up.
func fill(t *testing.T, dir string) {
	image := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(image, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 256<<20); err != nil {
		t.Fatal(err)
	}
	s := serve(t, measure.Unix, image)
	t.Cleanup(func() { // before the umount
		if !s.ended {
			s.stop()
		}
	})
	p := s.dial(t)
	const step = 1 << 20
	full := -1
	for i := 0; i < 256 && full < 0; i++ {
		r, err := p.do(cmdWrite, 0, uint64(i*step), step, pattern(step, uint64(i)))
		if err != nil {
			t.Fatalf("write %d: the connection: %v", i, err)
		}
		if r.errno == eNOSPC {
			full = i
		} else if r.errno != 0 {
			t.Fatalf("write %d: error %d, want success or ENOSPC", i, r.errno)
		}
	}
	if full <= 0 {
		t.Fatalf("the file system of 64 MiB took %d MiB", 256)
	}
	for i := range full {
		got, err := p.read(uint64(i*step), step)
		if err != nil || !bytes.Equal(got, pattern(step, uint64(i))) {
			t.Fatalf("block %d, acknowledged before ENOSPC: %v", i, err)
		}
	}
	if r, err := p.do(cmdTrim, 0, 0, step, nil); err != nil || r.errno != 0 {
		t.Errorf("trim on a full file system: error %d, %v", r.errno, err)
	}
	if err := p.write(0, pattern(4096, 7)); err != nil {
		t.Errorf("write into what was trimmed: %v", err)
	}
}

func TestFullTmpfsIsENOSPC(t *testing.T) {
	fill(t, mount(t, "-t", "tmpfs", "-o", "size=64m", "ringnbd-live"))
}

func TestFullExt4IsENOSPC(t *testing.T) {
	need(t, "mkfs.ext4")
	file := sparseImage(t, 64<<20)
	device := loopDevice(t, file)
	must(t, time.Minute, "mkfs.ext4", "-q", "-m", "0", device)
	fill(t, mount(t, "-t", "ext4", device))
}

func TestDeviceThatFailsIsEIO(t *testing.T) {
	onlyRingnbd(t)
	file := randomImage(t, 32<<20, 1)
	device := loopDevice(t, file)
	s := serve(t, measure.Unix, device)
	defer func() { // before losetup -d
		if !s.ended {
			s.stop()
		}
	}()
	p := s.dial(t)
	// The loop device answers reads beyond the end of its file with EIO.
	if err := os.Truncate(file, 16<<20); err != nil {
		t.Fatal(err)
	}
	for _, length := range []uint32{512, 4096, 1 << 20} {
		r, err := p.do(cmdRead, 0, 24<<20, length, nil)
		if err != nil || r.errno != eIO {
			t.Errorf("read of %d from the lost half: error %d, want EIO; %v", length, r.errno, err)
		}
	}
	// Read-modify-write has to read first: the error must not become zeroes.
	if r, err := p.do(cmdWrite, 0, 24<<20+1, 10, make([]byte, 10)); err != nil || r.errno != eIO {
		t.Errorf("unaligned write to the lost half: error %d, want EIO; %v", r.errno, err)
	}
	if got, err := p.read(0, 4096); err != nil || len(got) != 4096 {
		t.Errorf("the other half: %v", err)
	}
}

func TestBlockDeviceIsServed(t *testing.T) {
	file := randomImage(t, 64<<20, 9)
	device := loopDevice(t, file)
	s := serve(t, measure.TCP, device)
	defer func() { // before losetup -d
		if !s.ended {
			s.stop()
		}
	}()
	p := s.dial(t)
	if p.size != 64<<20 {
		t.Errorf("size %d", p.size)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	put := func(offset int, data []byte) {
		t.Helper()
		copy(want[offset:], data)
		if err := p.write(uint64(offset), data); err != nil {
			t.Error(err)
		}
	}
	put(0, pattern(1<<20, 1))
	put(5<<20+3, pattern(70001, 2))
	for _, c := range []struct {
		command, flags uint16
		offset, length int
	}{{cmdZeroes, 0, 8 << 20, 2 << 20}, {cmdZeroes, flagNoHole, 12<<20 + 1, 1<<20 + 5}, {cmdZeroes,
		flagFUA, 100, 50}} {
		if _, err := p.done(c.command, c.flags, uint64(c.offset), uint32(c.length),
			nil); err != nil {
			t.Errorf("zeroes at %d: %v", c.offset, err)
		}
		clear(want[c.offset : c.offset+c.length])
	}
	if underTest != "nbd-server" {
		if _, err := p.done(cmdTrim, 0, 32<<20, 4<<20, nil); err != nil {
			t.Errorf("trim: %v", err)
		}
	}
	if err := p.flush(); err != nil {
		t.Error(err)
	}
	for _, r := range [][2]int{{0, 32 << 20}, {36 << 20, 28 << 20}} { // all but what was trimmed
		got, err := p.read(uint64(r[0]), r[1])
		if err != nil || !bytes.Equal(got, want[r[0]:r[0]+r[1]]) {
			t.Errorf("%d bytes at %d: %v, equal %t", r[1], r[0], err,
				bytes.Equal(got, want[r[0]:r[0]+r[1]]))
		}
	}
}

func TestReadOnlyFileIsServedReadOnly(t *testing.T) {
	image := randomImage(t, 1<<20, 1)
	s := serveRingnbd(t, measure.Unix, "--export", "x="+image+",ro", "--export",
		"y="+sparseImage(t, 1<<20))
	p, err := connect(s.address, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer p.conn.Close()
	for _, c := range []uint16{cmdWrite, cmdTrim, cmdZeroes} {
		var payload []byte
		if c == cmdWrite {
			payload = make([]byte, 4096)
		}
		if r, err := p.do(c, 0, 0, 4096, payload); err != nil || r.errno != ePERM {
			t.Errorf("command %d: error %d, want EPERM; %v", c, r.errno, err)
		}
	}
	if r, err := p.do(9, 0, 0, 4096, nil); err != nil || r.errno != eINVAL {
		t.Errorf("an unknown command: error %d, want EINVAL; %v", r.errno, err)
	}
	if _, err := connect(s.address, "z"); err == nil ||
		!strings.Contains(err.Error(), fmt.Sprintf("%#x", 0x80000006)) {
		t.Errorf("an unknown export: %v, want ERR_UNKNOWN", err)
	}
}
