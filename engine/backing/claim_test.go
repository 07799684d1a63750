// What others have of a store is seen, named, and no reason to stop with Force.
//
// Invariant: loop devices, mounts and swap of the tests are taken away again.

package backing

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// loopOver attaches a loop device to a file.
func loopOver(t *testing.T, path string, options ...string) string {
	t.Helper()
	arguments := append(options, "--find", "--show", path)
	out, err := exec.Command("losetup", arguments...).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device on this machine: %s", out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup: %s", out)
		}
	})
	return device
}

// noted checks that a store is opened, with a note that holds the words.
func noted(t *testing.T, words string, s Spec) {
	t.Helper()
	b := mustOpen(t, s)
	defer b.Close()
	if !slices.ContainsFunc(b.Notes, func(n string) bool { return strings.Contains(n, words) }) {
		t.Errorf("notes %q, want one with %q", b.Notes, words)
	}
}

func TestLoopDeviceOverAFileIsNamed(t *testing.T) {
	path := image(t, t.TempDir(), 8<<20)
	device := loopOver(t, path)
	refused(t, "is attached to "+device, Spec{Path: path})
	noted(t, "is attached to "+device, Spec{Path: path, ReadOnly: true})
	noted(t, "is attached to "+device+"; it goes on all the same", Spec{Path: path, Force: true})
}

func TestMountOfALoopDeviceOverAFileIsNamed(t *testing.T) {
	path := image(t, t.TempDir(), 8<<20)
	device := loopOver(t, path)
	point := mounted(t, device, "ext4", "-q")
	refused(t, "is attached to "+device+", which is mounted at "+point, Spec{Path: path})
	refused(t, "is mounted at "+point, Spec{Path: device})
	noted(t, "is mounted at "+point, Spec{Path: device, Force: true})

	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := (Claim{Path: path, Still: true}).Take(int(f.Fd())); err == nil ||
		!strings.Contains(err.Error(), "mounted at "+point) {
		t.Errorf("a copy of what is mounted: %v", err)
	}
}

func TestReadOnlyLoopDeviceDisturbsNoReader(t *testing.T) {
	path := image(t, t.TempDir(), 8<<20)
	device := loopOver(t, path, "--read-only")
	refused(t, "is attached to "+device, Spec{Path: path})
	b := mustOpen(t, Spec{Path: path, ReadOnly: true})
	defer b.Close()
	for _, n := range b.Notes {
		if strings.Contains(n, device) {
			t.Errorf("notes %q", b.Notes)
		}
	}
}

func TestSwapIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "swap")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"mkswap", "swapon"} {
		if out, err := exec.Command(command, path).CombinedOutput(); err != nil {
			t.Skipf("%s: %s", command, out)
		}
	}
	defer func() {
		if out, err := exec.Command("swapoff", path).CombinedOutput(); err != nil {
			t.Errorf("swapoff: %s", out)
		}
	}()
	refused(t, "in use as swap space; end that use first (swapoff)", Spec{Path: path})
	refused(t, "in use as swap space; end that use first (swapoff)", Spec{Path: path, Force: true})
	noted(t, "in use as swap space", Spec{Path: path, ReadOnly: true})
}

// elsewhere is a store as another program has it open, with QEMU's bytes locked.
func elsewhere(t *testing.T, path string, bytes ...int64) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for _, at := range bytes {
		lock := unix.Flock_t{Type: unix.F_RDLCK, Start: at, Len: 1}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
			t.Skipf("no OFD locks here: %v", err)
		}
	}
	return f
}

func TestLocksOfQEMUAreSeen(t *testing.T) {
	const reads, writes, resizes, sharesNoReads, sharesNoWrites = 100, 101, 103, 200, 201
	for _, c := range []struct {
		name           string
		held           []int64
		reader, writer string // "": goes
	}{
		{"qemu-nbd", []int64{reads, writes, 203}, "open for writing in QEMU",
			"open for writing in QEMU"},
		{"qemu-nbd -r", []int64{reads, 203}, "", ""},
		{"a VM's read-only disk", []int64{reads, sharesNoWrites}, "", "which does not share it"},
		{"a VM's disk", []int64{reads, writes, sharesNoWrites}, "open for writing",
			"open for writing"},
		{"somebody who resizes", []int64{resizes}, "open for writing", "open for writing"},
		{"somebody who shares nothing", []int64{sharesNoReads}, "which does not share it",
			"which does not share it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := image(t, t.TempDir(), 1<<20)
			f := elsewhere(t, path, c.held...)
			for readOnly, words := range map[bool]string{true: c.reader, false: c.writer} {
				s := Spec{Path: path, ReadOnly: readOnly}
				if words == "" {
					mustOpen(t, s).Close()
					continue
				}
				refused(t, words, s)
				s.Force = true
				noted(t, words, s)
			}
			f.Close()
			mustOpen(t, Spec{Path: path}).Close()
		})
	}
}

// locked are the bytes on which another open file has a lock.
func locked(t *testing.T, f *os.File) (list []int64) {
	t.Helper()
	for at := int64(0); at < 300; at++ {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
			t.Fatal(err)
		}
		if lock.Type != unix.F_UNLCK {
			list = append(list, at)
		}
	}
	return list
}

// A redirection of the shell opens for writing alone, where a read lock is refused.
func TestLocksOfQEMUAreTakenOnARedirection(t *testing.T) {
	path := image(t, t.TempDir(), 1<<20)
	f := elsewhere(t, path)
	out, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	c := Claim{Path: path, Write: true, Resize: true}
	if notes, err := c.Take(int(out.Fd())); err != nil || len(notes) > 0 {
		t.Errorf("%q, %v", notes, err)
	}
	if got, want := locked(t, f), []int64{100, 101, 103, 201, 203}; !slices.Equal(got, want) {
		t.Errorf("bytes %v are locked, want %v", got, want)
	}
	Release(int(out.Fd()))
	if got := locked(t, f); len(got) > 0 {
		t.Errorf("bytes %v are locked after Release", got)
	}
	mustOpen(t, Spec{Path: path}).Close()
	elsewhere(t, path, 100)
	if _, err := c.Take(int(out.Fd())); err == nil {
		t.Error("a reader in QEMU is not seen")
	}
}

// What a Backing has, others must find: by the test that QEMU makes.
func TestLocksOfQEMUAreTaken(t *testing.T) {
	for readOnly, want := range map[bool][]int64{false: {100, 101, 201, 203},
		true: {100, 201, 203}} {
		path := image(t, t.TempDir(), 1<<20)
		f := elsewhere(t, path)
		b := mustOpen(t, Spec{Path: path, ReadOnly: readOnly})
		if got := locked(t, f); !slices.Equal(got, want) {
			t.Errorf("read-only %v: bytes %v are locked, want %v", readOnly, got, want)
		}
		b.Close()
		if got := locked(t, f); len(got) > 0 {
			t.Errorf("bytes %v are locked after Close", got)
		}
	}
}

func TestNamesThatNoFileIsMadeFor(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chdir(dir); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"unix:x", "nbd:host:1", "NBD://x", "x-y://z", "localhost:1",
		"host:10809/x", "[::1]:10809", ":10809",
		"fd:3", "memory:1G", "-", "x/", "/dev/x", "/dev/../dev/x", "none/x", ""} {
		if err := MayMake(path); err == nil {
			t.Errorf("%q may be made", path)
		}
	}
	for _, path := range []string{"x", "./unix:x", "./-", "a:b", "backup-12:30.img",
		"2026-11-30T10:00:00.img", dir + "/host:1", "-x", "/dev/shm/x"} {
		if err := MayMake(path); err != nil {
			t.Error(err)
		}
	}
}
