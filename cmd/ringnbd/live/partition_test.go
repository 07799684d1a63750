// Partitions against the kernel: the same partitions, with the same numbers, sizes and bytes, as a
// loop device with the same image shows; and many writers on partitions and on the whole disk.
//
// Invariant: the image is written by the partitioning tools of Debian, and read by the kernel.

package live_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/bench/measure"
)

// part is a partition as the kernel or the server shows it.
type part struct {
	number int
	size   uint64
	sum    string
}

// tables are images by how they are made: a shell script that partitions $1. Sectors are of 512
// bytes unless it says 4096, where $1 is a loop device.
var tables = []struct {
	name     string
	needs    string
	sector   int
	parts    int // how many there are, without the extended one
	extended int // its number, 0: none
	script   string
}{
	{"gpt", "sgdisk", 512, 4, 0, `sgdisk -n 3:2048:+3M -n 1:20480:+4M -c 1:'Größe 😀' -n 9:0:+1M \
		-n 128:8193:+77s -a 1 $1`},
	{"gpt-sfdisk", "sfdisk", 512, 3, 0, `printf 'label: gpt\nstart=2048,size=4096,name="a b"\n
		size=8191\n,\n' | sfdisk $1`},
	{"gpt-parted", "parted", 512, 2, 0, `parted -s $1 mklabel gpt mkpart one 1MiB 5MiB \
		mkpart two ext4 5MiB 100%`},
	{"gpt-4096", "sgdisk", 4096, 3, 0, `sgdisk -n 1:256:+2M -n 2:0:+3M -n 4:0:0 $1`},
	{"gpt-large-table", "sgdisk", 512, 2, 0, `sgdisk -S 512 -n 1:0:+2M -n 200:0:0 $1`},
	{"gpt-hybrid", "sgdisk", 512, 3, 0, `sgdisk -n 1:2048:+3M -n 2:0:+3M -n 3:0:+1M -h 1:3 $1`},
	{"gpt-empty", "sgdisk", 512, 0, 0, `sgdisk -o $1`},
	{"mbr", "sfdisk", 512, 2, 0, `printf 'label: dos\n2048 4096 83\n6144 777 7 *\n' | sfdisk $1`},
	{"mbr-sector-63", "sfdisk", 512, 3, 0, `printf 'label: dos\nstart=63,size=1000\n
		start=1063,size=985\nstart=2048\n' | sfdisk $1`},
	{"mbr-logical", "sfdisk", 512, 7, 3, `printf 'label: dos\n1: start=2048,size=2048\n
		2: start=40960,size=2048\n3: start=8192,size=30000,type=5\n5: size=2048\n6: size=1000\n
		7: size=1\n8: size=3000\n9: size=\n' | sfdisk $1`},
	{"mbr-logical-parted", "parted", 512, 4, 2, `parted -s $1 mklabel msdos mkpart primary 1MiB 3MiB \
		mkpart extended 3MiB 20MiB mkpart logical 4MiB 6MiB mkpart logical 10MiB 12MiB \
		mkpart logical 7MiB 9MiB`},
	{"mbr-4096", "sfdisk", 4096, 3, 2, `printf 'label: dos\nsize=300\nsize=1000,type=5\nsize=100\n
		size=200\n' | sfdisk $1`},
	{"fat", "mkfs.vfat", 512, 0, 0, `mkfs.vfat $1`},
	{"blank", "sh", 512, 0, 0, `true`},
}

// attach attaches a loop device to a file until the test ends, or detach is called.
func attach(t *testing.T, file string, options ...string) (device string, detach func()) {
	t.Helper()
	needRoot(t, "loop devices")
	need(t, "losetup")
	device = strings.TrimSpace(must(t, time.Minute, "losetup",
		append(options, "--find", "--show", file)...))
	gone := false
	detach = func() {
		if gone {
			return
		}
		gone = true
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %s", device, out)
		}
	}
	t.Cleanup(detach)
	return device, detach
}

// partitionWith runs a script of tables on an image.
func partitionWith(t *testing.T, script, image string, sector int) {
	t.Helper()
	target, detach := image, func() {}
	if sector != 512 {
		target, detach = attach(t, image, "--sector-size", strconv.Itoa(sector))
	}
	must(t, time.Minute, "sh", "-ec", script, "sh", target)
	detach()
}

// nodes makes the kernel show the partitions of a loop device, and returns their entries in sysfs.
// A kernel that is built to read no tables is told of them by partx, which reads them with
// libblkid.
func nodes(t *testing.T, device string) []string {
	t.Helper()
	pattern := "/sys/block/" + filepath.Base(device) + "/*/partition"
	found, _ := filepath.Glob(pattern)
	if len(found) == 0 {
		need(t, "partx")
		_, _ = try(t, time.Minute, "partx", "--add", device) // fails where there are none
		found, _ = filepath.Glob(pattern)
	}
	for _, at := range found {
		node := "/dev/" + filepath.Base(filepath.Dir(at))
		if !eventually(10*time.Second, func() bool { _, err := os.Stat(node); return err == nil }) {
			t.Fatalf("there is no %s", node)
		}
	}
	return found
}

// byKernel lists the partitions of a loop device, without the extended one, of which the kernel
// shows 1 KiB, and the server nothing.
func byKernel(t *testing.T, device string, extended int) (list []part) {
	t.Helper()
	found := nodes(t, device)
	for _, at := range found {
		read := func(name string) int {
			text, err := os.ReadFile(filepath.Join(filepath.Dir(at), name))
			if err != nil {
				t.Fatal(err)
			}
			n, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		p := part{number: read("partition"), size: uint64(read("size")) * 512}
		node := fmt.Sprintf("%sp%d", device, p.number)
		if p.number == extended {
			continue
		}
		f, err := os.Open(node)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if n, err := io.Copy(sum, f); err != nil || uint64(n) != p.size {
			t.Fatalf("%s: %d bytes, %v", node, n, err)
		}
		f.Close()
		p.sum = hex.EncodeToString(sum.Sum(nil))
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b part) int { return a.number - b.number })
	return list
}

// byServer lists the partitions that a server shows of the disk that is its export "disk".
func byServer(t *testing.T, s *server) (list []part) {
	t.Helper()
	for _, text := range s.ready {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(u.Path, "/")
		if name == "disk" {
			continue
		}
		n, err := strconv.Atoi(strings.TrimPrefix(name, "disk/"))
		if err != nil {
			t.Fatalf("export %q", name)
		}
		p, err := connect(s.address, name)
		if err != nil {
			t.Fatal(err)
		}
		got := part{number: n, size: p.size, sum: sumOf(t, p)}
		p.disconnect()
		list = append(list, got)
	}
	slices.SortFunc(list, func(a, b part) int { return a.number - b.number })
	return list
}

// sumOf reads an export as a whole.
func sumOf(t *testing.T, p *peer) string {
	t.Helper()
	sum := sha256.New()
	for at := uint64(0); at < p.size; {
		n := min(1<<20-777, p.size-at) // not aligned, on purpose
		data, err := p.read(at, int(n))
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(data)
		at += n
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func TestPartitionsAreThoseOfTheKernel(t *testing.T) {
	onlyRingnbd(t)
	needRoot(t, "loop devices")
	need(t, "losetup")
	for _, table := range tables {
		t.Run(table.name, func(t *testing.T) {
			need(t, table.needs)
			image := randomImage(t, 24<<20, 7)
			if err := os.WriteFile(image+".zero", make([]byte, 1<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, at := range []string{"0", "23"} { // no table yet
				must(t, time.Minute, "dd", "if="+image+".zero", "of="+image, "bs=1M", "seek="+at,
					"conv=notrunc", "status=none")
			}
			partitionWith(t, table.script, image, table.sector)
			device, _ := attach(t, image, "--read-only", "--partscan", "--sector-size",
				strconv.Itoa(table.sector))
			want := byKernel(t, device, table.extended)
			if len(want) != table.parts {
				t.Errorf("the kernel shows %d partitions, the script makes %d", len(want),
					table.parts)
			}
			paths := []string{device}
			if table.name != "mbr-4096" { // an image does not say how large its sectors are
				paths = append(paths, image)
			}
			for _, path := range paths {
				s := serveRingnbd(t, measure.Unix, "--read-only", "--partitions", "--export",
					"disk="+path)
				if got := byServer(t, s); !slices.Equal(got, want) {
					t.Errorf("of %s the server shows\n%v, the kernel\n%v", path, got, want)
				}
				s.stop()
			}
		})
	}
}

func TestAPartitionBehindABrokenPrimaryGPT(t *testing.T) {
	onlyRingnbd(t)
	need(t, "sgdisk")
	image := randomImage(t, 16<<20, 3)
	must(t, time.Minute, "sgdisk", "-Z", "-n", "2:2048:+5M", "-c", "2:root", image)
	want, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	want = want[1<<20 : 6<<20]
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 1024), 512); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s := serveRingnbd(t, measure.TCP, image+"?partition=label:root")
	p := s.dial(t)
	got, err := p.read(0, len(want))
	if err != nil || p.size != uint64(len(want)) || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", p.size, err)
	}
	if !strings.Contains(s.log.String(), "the backup at sector 32767 counts") {
		t.Errorf("the log does not tell:\n%s", s.log)
	}
}

// Sizes and offsets beyond 2 TiB, on a file system that takes them, and next to 2^63 on tmpfs,
// which takes all.
func TestPartitionsOfHugeImages(t *testing.T) {
	onlyRingnbd(t)
	need(t, "sgdisk")
	for name, where := range map[string]struct {
		directory string
		size      uint64
		start     uint64 // of the second partition, sectors
	}{
		"3 TiB":         {t.TempDir(), 3 << 40, 1<<32 + 1<<20},
		"2^63-64KiB":    {"/dev/shm", 1<<63 - 64<<10, 1<<54 - 1<<20},
		"2 TiB and MBR": {t.TempDir(), 2<<40 + 1<<30, 0},
	} {
		t.Run(name, func(t *testing.T) {
			directory, err := os.MkdirTemp(where.directory, "ringnbd")
			if err != nil {
				t.Skip(err)
			}
			defer os.RemoveAll(directory)
			image := filepath.Join(directory, "disk.img")
			if err := os.WriteFile(image, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(image, int64(where.size)); err != nil {
				t.Skipf("the file system takes no file of %d bytes: %v", where.size, err)
			}
			if where.start == 0 {
				need(t, "sfdisk")
				where.start = 1<<32 - 2048
				must(t, time.Minute, "sh", "-ec", `printf 'label: dos\n2048 2048 83\n`+
					`4294965248 2047 83\n' | sfdisk $1`, "sh", image)
			} else {
				must(t, time.Minute, "sgdisk", "-a", "8", "-n", "1:2048:+1M", "-n",
					fmt.Sprintf("2:%d:0", where.start), image)
			}
			s := serveRingnbd(t, measure.Unix, "--export", "disk="+image, "--export",
				"two="+image+"?partition=2")
			disk, two := s.dialExport(t, "disk"), s.dialExport(t, "two")
			for _, at := range []uint64{0, two.size - 5000} {
				data := pattern(5000, at)
				if err := two.write(at, data); err != nil {
					t.Fatal(err)
				}
				got, err := disk.read(where.start*512+at, len(data))
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("at %d of the partition: %v", at, err)
				}
			}
			if _, err := two.read(two.size-1, 2); err == nil {
				t.Error("a read beyond the end of the partition")
			}
		})
	}
}

// dialExport connects to an export.
func (s *server) dialExport(t testing.TB, name string) *peer {
	t.Helper()
	p, err := connect(s.address, name)
	if err != nil {
		t.Fatalf("connect to %q: %v", name, err)
	}
	t.Cleanup(func() { p.conn.Close() })
	return p
}

// mountNoAccess is what no test here wants to change on the disk.
const mountNoAccess = unix.MS_NOATIME | unix.MS_NODEV | unix.MS_NOSUID

// Of a disk with a mounted partition no other partition is served for writing: the kernel writes to
// the disk, too. Its own device of the partition is.
func TestAPartitionNextToAMountedOne(t *testing.T) {
	onlyRingnbd(t)
	need(t, "sfdisk", "mkfs.ext4")
	image := sparseImage(t, 64<<20)
	must(t, time.Minute, "sh", "-ec", `printf 'label: dos\n,32M\n,\n' | sfdisk $1`, "sh", image)
	device, _ := attach(t, image, "--partscan")
	nodes(t, device)
	must(t, time.Minute, "mkfs.ext4", "-q", device+"p1")
	point := t.TempDir()
	if err := unix.Mount(device+"p1", point, "ext4", mountNoAccess, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer unix.Unmount(point, unix.MNT_DETACH)
	for _, path := range []string{device + "?partition=2", image + "?partition=2"} {
		out, err := try(t, time.Minute, ringnbd, "serve", "--listen", "unix:"+point+".sock", path)
		if err == nil || !strings.Contains(out, "mounted at "+point) {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
		advised := strings.Contains(out, "serve the kernel's own device of the partition")
		if advised != strings.HasPrefix(path, "/dev/") {
			t.Errorf("%s: %s", path, out)
		}
	}
	serveRingnbd(t, measure.Unix, device+"p2").stop()
	serveRingnbd(t, measure.Unix, "--read-only", device+"?partition=2").stop()
}
