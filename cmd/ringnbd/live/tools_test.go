// Client programs, images and other things a test needs from the machine.
//
// Invariant: a missing program skips the test by name; files that a test makes are removed.

package live_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// packages tells which Debian package brings a program.
var packages = map[string]string{
	"nbdinfo": "libnbd-bin", "nbdcopy": "libnbd-bin", "nbdkit": "nbdkit",
	"qemu-img": "qemu-utils", "qemu-io": "qemu-utils", "qemu-nbd": "qemu-utils",
	"fio": "fio", "nbd-client": "nbd-client", "strace": "strace", "losetup": "mount",
	"prlimit": "util-linux", "bash": "bash", "mkfs.ext4": "e2fsprogs",
	"sgdisk": "gdisk", "sfdisk": "fdisk", "parted": "parted", "partx": "util-linux",
	"mkfs.vfat": "dosfstools",
	"mkfs.xfs":  "xfsprogs",
}

// need skips the test unless all programs are installed.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed (Debian package %s)", p, packages[p])
		}
	}
}

// needRoot skips the test for ordinary users.
func needRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("needs root: %s", why)
	}
}

// try runs a program to its end, at most for a time, and returns all it printed.
func try(t testing.TB, limit time.Duration, name string, arguments ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, arguments...)
	cmd.Dir = t.TempDir() // some leave files where they run
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = errors.New("not finished within " + limit.String())
	}
	return string(out), err
}

// must is try for programs that have to succeed.
func must(t testing.TB, limit time.Duration, name string, arguments ...string) string {
	t.Helper()
	out, err := try(t, limit, name, arguments...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arguments, " "), err, out)
	}
	return out
}

// sparseImage makes an image without data.
func sparseImage(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// randomImage makes an image of seeded random data.
func randomImage(t testing.TB, size int64, seed byte) string {
	t.Helper()
	path := sparseImage(t, size)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	random, chunk := rand.NewChaCha8([32]byte{seed}), make([]byte, 4<<20)
	for done := int64(0); done < size; {
		n := min(int64(len(chunk)), size-done)
		random.Read(chunk[:n])
		if _, err := f.WriteAt(chunk[:n], done); err != nil {
			t.Fatal(err)
		}
		done += n
	}
	// Written back before the server opens it: what is dirty in the page cache is
	// in the way of direct writes.
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return path
}

// sameFiles fails the test unless both files have the same bytes.
func sameFiles(t testing.TB, a, b string) {
	t.Helper()
	f, err := os.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	x, y := make([]byte, 4<<20), make([]byte, 4<<20)
	for offset := int64(0); ; offset += int64(len(x)) {
		n, errF := io.ReadFull(f, x)
		m, errG := io.ReadFull(g, y)
		if n != m || !bytes.Equal(x[:n], y[:m]) {
			t.Fatalf("%s and %s differ in the 4 MiB at %d", a, b, offset)
		}
		if errF != nil || errG != nil {
			return
		}
	}
}

// pattern fills a slice with bytes that depend on a seed only.
func pattern(n int, seed uint64) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// eventually polls until ok or the time is over.
func eventually(limit time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// absolute resolves a path of this folder: clients run elsewhere.
func absolute(t testing.TB, path string) string {
	t.Helper()
	a, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
