// Partitions: what the server shows of a disk, and what the kernel itself finds on the same disk.
//
// Invariant: the kernel of the guest reads tables with its own code, which a host's kernel may be
// built without.

package kernel

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// partitioned are disks by how they are made: a shell script that partitions $1.
var partitioned = []struct {
	name, script string
	sector       int
	extended     int // the number of the extended partition, of which the kernel shows 1 KiB
	parts        int // how many the server shows
}{
	{"gpt", `sgdisk -n 3:2048:+3M -n 1:20480:+4M -c 1:'Größe 😀' -n 9:0:+1M -n 128:8193:+77s -a 1`,
		512, 0, 4},
	{"gpt-4096", `sgdisk -n 1:256:+2M -n 2:0:+3M -n 4:0:0`, 4096, 0, 3},
	{"gpt-entries", `sgdisk -S 512 -n 1:0:+2M -n 200:0:0`, 512, 0, 2},
	{"hybrid", `sgdisk -n 1:2048:+3M -n 2:0:+3M -n 3:0:+1M -h 1:3`, 512, 0, 3},
	{"mbr", `printf 'label: dos\nstart=63,size=1000\nstart=1063,size=985,type=7\nstart=2048\n' |
		sfdisk`, 512, 0, 3},
	{"mbr-logical", `printf 'label: dos\n1: start=2048,size=2048\n2: start=40960,size=2048\n
		3: start=8192,size=30000,type=5\n5: size=2048\n6: size=1000\n7: size=1\n8: size=3000\n
		9: size=\n' | sfdisk`, 512, 3, 7},
	{"mbr-unordered", `parted -s $1 mklabel msdos mkpart primary 1MiB 3MiB mkpart extended 3MiB \
		20MiB mkpart logical 4MiB 6MiB mkpart logical 10MiB 12MiB mkpart logical 7MiB 9MiB; true`,
		512, 2, 4},
	{"mbr-4096", `printf 'label: dos\nsize=300\nsize=1000,type=5\nsize=100\nsize=200\n' | sfdisk`,
		4096, 2, 3},
	{"fat", `mkfs.vfat`, 512, 0, 0},
}

// partition makes a disk of random bytes and a table.
func partition(t *testing.T, name, script string, sector int) string {
	t.Helper()
	for _, program := range []string{"sgdisk", "sfdisk", "parted", "mkfs.vfat"} {
		if _, err := find(program); err != nil {
			t.Skipf("%v (Debian packages gdisk, fdisk, parted and dosfstools)", err)
		}
	}
	path := image(t, name, 24)
	random, middle := rand.NewChaCha8([32]byte{9}), make([]byte, 22<<20)
	random.Read(middle)
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(middle, 1<<20); err != nil {
		t.Fatal(err)
	}
	target := path
	if sector != 512 {
		out, err := exec.Command("losetup", "--find", "--show", "--sector-size",
			strconv.Itoa(sector), path).Output()
		if err != nil {
			t.Skipf("sectors of %d bytes need a loop device: %v", sector, err)
		}
		target = strings.TrimSpace(string(out))
		defer exec.Command("losetup", "--detach", target).Run()
	}
	if out, err := exec.Command("sh", "-ec", "PATH=$PATH:/usr/sbin:/sbin; "+script+" $1", "sh",
		target).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return path
}

func TestPartitions(t *testing.T) {
	g := newGuest(t, 512, false, nil)
	for _, d := range partitioned {
		g.step(t, d.name, func(t *testing.T) {
			path := partition(t, d.name, d.script, d.sector)
			disk, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var flags []string
			if d.name != "mbr-4096" { // an image does not say how large its sectors are
				flags = []string{"--partitions"}
			}
			s := serve(t, map[string]string{"disk": path}, flags...)
			var kernels []string
			g.check(t, func(note string) {
				var number, start, size int
				var sum string
				n, err := fmt.Sscanf(note, "part %d %d %d %s", &number, &start, &size, &sum)
				if err != nil || n != 4 {
					t.Errorf("the guest says %q", note)
				} else if number != d.extended {
					kernels = append(kernels, fmt.Sprintf("%d %d %s", number, size*512, sum))
					inside := md5.Sum(disk[start*512:][:size*512])
					if hex.EncodeToString(inside[:]) != sum {
						t.Errorf("partition %d through the kernel is not what is on the disk",
							number)
					}
				}
			}, "partitions", s.port, strconv.Itoa(d.sector), "disk")
			if len(kernels) != d.parts {
				t.Errorf("the kernel finds %q, want %d", kernels, d.parts)
			}
			if flags == nil {
				return
			}
			servers := copied(t, s)
			slices.Sort(kernels)
			slices.Sort(servers)
			if !slices.Equal(kernels, servers) {
				t.Errorf("the kernel finds\n%q, the server shows\n%q", kernels, servers)
			}
		})
	}
}

// copied reads all partitions that the server shows: number, size and sum of each.
func copied(t *testing.T, s *server) (list []string) {
	t.Helper()
	at := "nbd://127.0.0.1:" + s.port
	out, err := exec.Command(ringnbd, "info", "--list", "--json", at).Output()
	var listed struct {
		Exports []struct {
			Name string `json:"export-name"`
		}
	}
	if err == nil {
		err = json.Unmarshal(out, &listed)
	}
	if err != nil {
		t.Fatalf("info --list: %v\n%s", err, out)
	}
	for _, e := range listed.Exports {
		number, found := strings.CutPrefix(e.Name, "disk/")
		if !found {
			continue
		}
		to := filepath.Join(t.TempDir(), number)
		out, err := exec.Command(ringnbd, "copy", at+"/"+e.Name, to).CombinedOutput()
		if err != nil {
			t.Fatalf("%s", out)
		}
		bytes, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		sum := md5.Sum(bytes)
		list = append(list, fmt.Sprintf("%s %d %x", number, len(bytes), sum))
	}
	return list
}
