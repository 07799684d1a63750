// Stores that several exports share: what goes together, what is in the way, and when descriptors
// and locks go.
//
// Invariant: a test that opens through one Stores speaks of one server; a second Stores is another
// server on the same machine.

package backing

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// prepared opens specs through stores, and fails the test if that is refused.
func prepared(t *testing.T, r *Stores, specs ...Spec) []*Backing {
	t.Helper()
	all, err := r.Prepare(specs)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		t.Cleanup(func() { b.Close() })
	}
	return all
}

// inTheWay checks that a spec is refused for the sake of an export that is there.
func inTheWay(t *testing.T, r *Stores, s Spec, words string) *SharedError {
	t.Helper()
	all, err := r.Prepare([]Spec{s})
	var shared *SharedError
	if !errors.As(err, &shared) || !strings.Contains(err.Error(), words) {
		t.Fatalf("%v %v, want a SharedError with %q", all, err, words)
	}
	return shared
}

func TestReadOnlyExportsOfOneStoreShareItsDescriptor(t *testing.T) {
	var r Stores
	path := image(t, t.TempDir(), 1<<20)
	first := prepared(t, &r, Spec{Name: "a", Path: path, ReadOnly: true})[0]
	later := prepared(t, &r, Spec{Name: "b", Path: path, ReadOnly: true})[0]
	if first.Device != later.Device {
		t.Error("two devices of one store")
	}
	if err := first.Close(); err != nil || later.Device.FD < 0 {
		t.Fatalf("%v: the descriptor went with the first of two exports", err)
	}
	refused(t, "in use by another ringnbd", Spec{Path: path})
	if err := later.Close(); err != nil || later.Device.FD >= 0 {
		t.Errorf("%v: the descriptor outlived its last export", err)
	}
	if err := later.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	prepared(t, new(Stores), Spec{Path: path}) // the lock has gone
	if len(r.open) != 0 {
		t.Errorf("%d entries are left", len(r.open))
	}
}

func TestALaterExportIsCheckedAsOneAtTheStart(t *testing.T) {
	var r Stores
	directory := t.TempDir()
	path := image(t, directory, 1<<20)
	link := filepath.Join(directory, "link")
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	writer := prepared(t, &r, Spec{Name: "a", Path: path})[0]
	for _, s := range []Spec{{Name: "b", Path: link}, {Name: "b", Path: path, ReadOnly: true}} {
		if e := inTheWay(t, &r, s, `exported twice (as "a" and "b")`); e.Mode != "" {
			t.Errorf("mode %q", e.Mode)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	prepared(t, &r, Spec{Name: "b", Path: link, ReadOnly: true})
	inTheWay(t, &r, Spec{Name: "c", Path: path}, "exported twice")
	missing := filepath.Join(directory, "new")
	made := prepared(t, &r, Spec{Name: "m", Path: missing, Create: 4096})[0]
	inTheWay(t, &r, Spec{Name: "n", Path: missing, Create: 4096}, "exported twice")
	if err := made.Create(); err != nil {
		t.Fatal(err)
	}
	inTheWay(t, &r, Spec{Name: "n", Path: missing}, "exported twice")
	made.Abandon()
	if _, err := os.Stat(missing); err == nil {
		t.Error("the image is still there")
	}
}

func TestWhatLeavesIsNotInTheWayOfWhatReplacesIt(t *testing.T) {
	var r Stores
	path := image(t, t.TempDir(), 1<<20)
	old := prepared(t, &r, Spec{Name: "old", Path: path})
	renamed, err := r.PrepareInstead(old, []Spec{{Name: "new", Path: path}})
	if err != nil {
		t.Fatal(err)
	}
	if renamed[0].Device != old[0].Device {
		t.Error("two devices of one store")
	}
	if err := old[0].Close(); err != nil || renamed[0].Device.FD < 0 {
		t.Errorf("%v: the descriptor went", err)
	}
	// The mode of a descriptor cannot change while it is open.
	_, err = r.PrepareInstead(renamed, []Spec{{Name: "d", Path: path, Direct: DirectOff}})
	var shared *SharedError
	if !errors.As(err, &shared) || shared.Mode == "" {
		t.Errorf("another choice of O_DIRECT: %v", err)
	}
	if err := renamed[0].Close(); err != nil {
		t.Fatal(err)
	}
	reader := prepared(t, &r, Spec{Name: "r", Path: path, ReadOnly: true})
	_, err = r.PrepareInstead(reader, []Spec{{Name: "w", Path: path}})
	if !errors.As(err, &shared) || shared.Mode == "" {
		t.Errorf("writing after reading: %v", err)
	}
}

func TestAPrepareThatFailsLeavesOthersAlone(t *testing.T) {
	var r Stores
	path := image(t, t.TempDir(), 1<<20)
	reader := prepared(t, &r, Spec{Name: "a", Path: path, ReadOnly: true})[0]
	if _, err := r.Prepare([]Spec{{Name: "b", Path: path, ReadOnly: true},
		{Name: "c", Path: path + ".missing"}}); err == nil {
		t.Fatal("a missing image was opened")
	}
	if reader.Device.FD < 0 || len(r.open) != 1 {
		t.Errorf("descriptor %d, %d stores", reader.Device.FD, len(r.open))
	}
	if _, err := r.Prepare([]Spec{{Name: "b", Path: path, ReadOnly: true}},
		func(string) bool { return false }); !errors.Is(err, errStopped) {
		t.Errorf("told to stop: %v", err)
	}
}

// Exports come and go from many goroutines: each finds the store open, or opens it.
func TestStoresAreSharedByManyAtOnce(t *testing.T) {
	var r Stores
	path := image(t, t.TempDir(), 1<<20)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 50 {
				all, err := r.Prepare([]Spec{{Path: path, ReadOnly: true}})
				if err != nil {
					t.Error(err)
					return
				}
				if all[0].Device.FD < 0 {
					t.Error("a store that is not open")
				}
				if err := all[0].Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if len(r.open) != 0 {
		t.Errorf("%d entries are left", len(r.open))
	}
}
