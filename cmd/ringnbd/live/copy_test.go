// Whole images through the server and back: nbdcopy, qemu-img, nbdkit in between.

package live_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// imageSize is that of the large copies: 4 GiB, 256 MiB with -short.
func imageSize() int64 {
	if testing.Short() {
		return 256 << 20
	}
	return 4 << 30
}

func TestNbdcopyThereAndBackOverSeveralConnections(t *testing.T) {
	need(t, "nbdcopy")
	const size = 512 << 20
	source := randomImage(t, size, 2)
	// Holes and zeroes as well as data.
	for _, offset := range []int64{0, 64<<20 + 4096, 300<<20 + 1} {
		writeAt(t, source, offset, make([]byte, 8<<20))
	}
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			s := serve(t, transport, sparseImage(t, size))
			back := filepath.Join(t.TempDir(), "back.img")
			must(t, 2*time.Minute, "nbdcopy", "--connections=4", "--requests=16", "--flush", source,
				s.uri(""))
			must(t, 2*time.Minute, "nbdcopy", "--connections=4", "--requests=64", s.uri(""), back)
			sameFiles(t, source, back)
		})
	}
}

func writeAt(t testing.TB, path string, offset int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, offset); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestQemuImgConvertsALargeImageInAndOut(t *testing.T) {
	need(t, "qemu-img")
	size := imageSize()
	source := randomImage(t, size, 3)
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			image := sparseImage(t, size)
			s := serve(t, transport, image)
			must(t, 3*time.Minute, "qemu-img", "convert", "-f", "raw", "-O", "raw", "-n", "-W",
				"-m", "8", source, s.uri(""))
			back := filepath.Join(t.TempDir(), "back.img")
			must(t, 3*time.Minute, "qemu-img", "convert", "-f", "raw", "-O", "raw", "-W", "-m", "8",
				s.uri(""), back)
			if out := must(t, 3*time.Minute, "qemu-img", "compare", "-f", "raw", "-F", "raw",
				source, back); !strings.Contains(out, "identical") {
				t.Error(out)
			}
			os.Remove(back)
			os.Remove(image) // the server has it open; its blocks go with the server
		})
	}
}

func TestQemuImgMapCompareAndBench(t *testing.T) {
	need(t, "qemu-img")
	source := randomImage(t, 64<<20, 4)
	image := randomImage(t, 64<<20, 4)
	s := serve(t, measure.TCP, image)
	if out := must(t, time.Minute, "qemu-img", "compare", "-f", "raw", "-F", "raw", source,
		s.uri("")); !strings.Contains(out, "identical") {
		t.Error(out)
	}
	var extents []struct{ Start, Length int64 }
	out := must(t, time.Minute, "qemu-img", "map", "--output=json", "-f", "raw", s.uri(""))
	if err := json.Unmarshal([]byte(out), &extents); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	var sum int64
	for _, e := range extents {
		sum += e.Length
	}
	if sum != 64<<20 {
		t.Errorf("the map covers %d bytes: %s", sum, out)
	}
	must(t, time.Minute, "qemu-img", "bench", "-f", "raw", "-c", "5000", "-d", "32", "-s", "4096",
		"-S", "8192", s.uri(""))
	must(t, time.Minute, "qemu-img", "bench", "-f", "raw", "-c", "500", "-d", "16", "-s", "65536",
		"-w", "--flush-interval=100", "--pattern=7", s.uri(""))
}

// qemuIO runs qemu-io commands; a failed request or pattern fails the test.
func qemuIO(t *testing.T, uri string, commands ...string) string {
	t.Helper()
	arguments := []string{"-f", "raw"}
	for _, c := range commands {
		arguments = append(arguments, "-c", c)
	}
	out := must(t, time.Minute, "qemu-io", append(arguments, uri)...)
	for _, bad := range []string{"failed", "error", "not supported"} {
		if strings.Contains(strings.ToLower(out), bad) {
			t.Errorf("qemu-io %q printed:\n%s", commands, out)
		}
	}
	return out
}

func TestQemuIOWritesZeroesDiscardsAndFlushes(t *testing.T) {
	need(t, "qemu-io")
	for _, transport := range transports {
		s := serve(t, transport, sparseImage(t, 128<<20))
		qemuIO(t, s.uri(""), "write -P 0x11 0 1M", "write -f -P 0x22 1M 64k", "flush",
			"read -P 0x11 0 1M", "read -P 0x22 1M 64k",
			"write -P 0x33 3 513", "read -P 0x33 3 513", "read -P 0x11 516 1000",
			"read -P 0x11 0 3")
		qemuIO(t, s.uri(""), "write -P 0x44 0 8M", "write -z 0 1M", "write -z -u 1M 1M",
			"write -z -f 2M 64k", "discard 4M 1M",
			"read -P 0 0 2M", "read -P 0 2M 64k", "read -P 0x44 3M 1M", "read -P 0x44 5M 3M",
			"write -P 0x55 4M 1M", "read -P 0x55 4M 1M")
		qemuIO(t, s.uri(""), "write -P 0x66 1 3000", "write -z 100 1000", "read -P 0 100 1000",
			"read -P 0x66 1 99", "read -P 0x66 1100 1901")
		s.stop()
	}
}

func TestQemuIOFastZeroesLeaveNoHole(t *testing.T) {
	need(t, "qemu-io")
	onlyRingnbd(t)
	s := serve(t, measure.Unix, sparseImage(t, 64<<20))
	qemuIO(t, s.uri(""), "write -P 0x44 0 8M", "write -z -u -n 0 4M", "read -P 0 0 4M",
		"read -P 0x44 4M 4M")
}

func TestQemuIOKeepsManyRequestsInFlight(t *testing.T) {
	need(t, "qemu-io")
	s := serve(t, measure.TCP, sparseImage(t, 128<<20))
	random := rand.New(rand.NewPCG(1, 2))
	var commands []string
	for i := range 64 {
		commands = append(commands,
			fmt.Sprintf("aio_write -P %d %d %dk", i+1, i<<20, 4<<random.IntN(8)))
	}
	commands = append(commands, "aio_flush", "flush")
	for i := range 64 {
		commands = append(commands, fmt.Sprintf("aio_read -P %d %d 4k", i+1, i<<20))
	}
	qemuIO(t, s.uri(""), append(commands, "aio_flush")...)
}

func TestNbdkitInBetweenSeesACorrectDisk(t *testing.T) {
	need(t, "nbdkit", "nbdcopy")
	const size = 128 << 20
	source := randomImage(t, size, 6)
	s := serve(t, measure.Unix, sparseImage(t, size))
	dir := t.TempDir()
	// checkwrite compares every byte written with the disk; --run ends nbdkit.
	must(t, time.Minute, "nbdkit", "-U", "-", "nbd", "uri="+s.uri(""), "shared=false", "--run",
		"nbdcopy --connections=4 '"+source+"' \"$uri\"")
	must(t, time.Minute, "nbdkit", "-U", "-", "--filter=checkwrite", "nbd", "uri="+s.uri(""),
		"--run", "nbdcopy '"+source+"' \"$uri\"")
	must(t, time.Minute, "nbdkit", "-U", "-", "--filter=blocksize", "--filter=nozero", "nbd",
		"uri="+s.uri(""), "maxdata=32k", "zeromode=plugin",
		"--run", "nbdcopy \"$uri\" '"+dir+"/back.img'")
	sameFiles(t, source, dir+"/back.img")
	if _, err := try(t, time.Second, "fio", "--version"); err == nil {
		must(t, time.Minute, "nbdkit", "-U", "-", "nbd", "uri="+s.uri(""), "--run",
			"fio --name=v --ioengine=nbd --uri=\"$uri\" --rw=randwrite --bs=4k --size=16m "+
				"--iodepth=16 --verify=crc32c --verify_fatal=1")
	}
}

func TestNbdClientListsExports(t *testing.T) {
	need(t, "nbd-client")
	s := serveRingnbd(t, measure.Unix, "--export", "alpha="+sparseImage(t, 1<<20), "--export",
		"beta="+sparseImage(t, 1<<20)+",ro")
	out := must(t, time.Minute, "nbd-client", "-l", "-unix", s.address.Path)
	for _, name := range []string{"alpha", "beta"} {
		if !strings.Contains(out, name) {
			t.Errorf("%s is not in:\n%s", name, out)
		}
	}
}
