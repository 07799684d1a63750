// Looking at stores that a server has, and at stores that no server could have.

package backing

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestGlanceDisturbsNoServer(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var before, after unix.Stat_t
	if err := unix.Stat(path, &before); err != nil {
		t.Fatal(err)
	}
	spec := Spec{Name: "a", Path: path}
	for round := range 2 { // before a server has it, and while it has
		seen := Glance([]Spec{spec})
		if len(seen) != 1 || seen[0].Err != nil {
			t.Errorf("round %d: %v", round, seen)
		}
		if round > 0 {
			break
		}
		var r Stores
		all, err := r.Prepare([]Spec{spec})
		if err != nil {
			t.Fatal(err)
		}
		defer all[0].Close()
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		t.Errorf("the server's lock: %v", err)
	}
	if err := unix.Stat(path, &after); err != nil || after.Mtim != before.Mtim ||
		after.Size != before.Size {
		t.Errorf("the file was changed: %v", err)
	}
}

// TestGlanceTakesNoLock holds a lock that is exclusive: with a lock of its own, Glance would wait,
// and say so.
func TestGlanceTakesNoLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	var held *HeldError
	var r Stores
	if _, err := r.Prepare([]Spec{{Path: path}}); !errors.As(err, &held) {
		t.Fatalf("the lock is not seen: %v", err)
	}
	for _, spec := range []Spec{{Path: path}, {Path: path, ReadOnly: true},
		{Path: "overlay(" + path + ", " + path + ".top, create=if-missing)"}} {
		if seen := Glance([]Spec{spec}); seen[0].Err != nil {
			t.Errorf("%s: %v", spec.Path, seen[0].Err)
		}
	}
	if _, err := os.Lstat(path + ".top"); err == nil {
		t.Error("the file of an overlay was made")
	}
}

func TestGlanceSaysWhatIsLacking(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.img")
	link := filepath.Join(dir, "link.img")
	qcow2 := filepath.Join(dir, "disk.qcow2")
	err := errors.Join(os.WriteFile(path, make([]byte, 4096), 0o600), os.Symlink(path, link),
		os.WriteFile(qcow2, append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 4096)...),
			0o600))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		specs []Spec
		want  string // of the last
	}{
		{[]Spec{{Path: dir + "/none"}}, "no such file"},
		{[]Spec{{Path: dir + "/none", Create: 4096}}, ""},
		{[]Spec{{Path: dir + "/no/such", Create: 4096}}, "there is no directory"},
		{[]Spec{{Path: dir}}, "is a directory"},
		{[]Spec{{Path: qcow2}}, "is a qcow2 image, not a raw disk"},
		{[]Spec{{Path: qcow2, Raw: true}}, ""},
		{[]Spec{{Path: path, Create: 8192}}, "exists and is 4096 bytes long"},
		{[]Spec{{Path: path, Create: 4096}}, ""},
		{[]Spec{{Name: "a", Path: path}, {Name: "b", Path: link}}, "exported twice"},
		{[]Spec{{Name: "a", Path: path, ReadOnly: true},
			{Name: "b", Path: link, ReadOnly: true}}, ""},
		{[]Spec{{Path: "null:1G"}}, ""},
		{[]Spec{{Path: "overlay(" + path + ", " + dir + "/none)"}}, "none"},
		{[]Spec{{Path: "overlay(" + dir + "/none, discard=on-disconnect)"}}, "no such file"},
		{[]Spec{{Path: "overlay(" + path + ", discard=on-disconnect)"}}, ""},
		{[]Spec{{Path: path, Partition: "1"}}, "partition"},
	} {
		seen := Glance(row.specs)
		err := seen[len(seen)-1].Err
		if (err == nil) != (row.want == "") ||
			err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%+v: %v, want %q", row.specs, err, row.want)
		}
	}
}
