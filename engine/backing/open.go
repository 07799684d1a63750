// Opening in two steps: Prepare opens and locks everything that exists; Create makes what is
// missing. Between them the caller does everything else that can fail without leaving a trace
// (binding its addresses, for instance), so that a start that fails has changed nothing.
//
// Invariant: a Backing is pending (its image is still to be made) or open, and after Close or
// Abandon neither; Device and Export are filled in exactly when it is open.

package backing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// Backing is an opened export: the engine's view of it, the clients' view, and notes for the
// operator.
type Backing struct {
	Device engine.Device
	Export proto.Export
	// Notes are lines about what was decided for the user, and why: buffered I/O on tmpfs, say.
	Notes     []string
	Encrypted bool // it holds a LUKS volume: clients see it encrypted

	spec    Spec
	pending bool // the image does not exist yet
	made    bool // this process made the file, so Abandon removes it
	traits  traits
}

// traits are what flags.go needs to know about a store besides the Device itself.
type traits struct {
	preferred  uint32 // bytes: the block size that the store does best with, a power of two
	rotational bool
}

// Open opens an export, and makes its image if the Spec says so. Several exports go through
// Prepare, which also checks that no two have the same store.
func Open(s Spec) (*Backing, error) {
	all, err := Prepare([]Spec{s})
	if err != nil {
		return nil, err
	}
	if err := all[0].Create(); err != nil {
		return nil, err
	}
	return all[0], nil
}

// errStopped is what Prepare returns when it was told to stop.
var errStopped = errors.New("stopped before all was opened")

// Prepare checks all specs, then opens and locks everything that exists. It changes nothing, and on
// an error it leaves nothing open. Before it opens a path, which may take long, it calls tell,
// which returns whether to go on.
func Prepare(specs []Spec, tell ...func(path string) (on bool)) ([]*Backing, error) {
	if err := Check(specs); err != nil {
		return nil, err
	}
	all := make([]*Backing, 0, len(specs))
	seen := make(map[identity]int, len(specs))
	fail := func(err error) ([]*Backing, error) {
		for _, b := range all {
			err = errors.Join(err, b.Close())
		}
		return nil, err
	}
	for i := range specs {
		for _, t := range tell {
			if !t(specs[i].Path) {
				return fail(errStopped)
			}
		}
		Reach(specs[i].Path)
		b := &Backing{spec: specs[i], Device: engine.Device{FD: -1}}
		id, err := b.prepare()
		if err == nil && id.kind != idNone {
			if first, ok := seen[id]; ok && !(specs[first].ReadOnly && specs[i].ReadOnly) {
				err = fmt.Errorf("%s: exported twice (as %q and %q); that works only if both "+
					"are read-only", specs[i].Path, specs[first].Name, specs[i].Name)
			}
			seen[id] = i
		}
		if err == nil && !b.pending {
			err = b.open()
		}
		if err != nil {
			return fail(err)
		}
		all = append(all, b)
	}
	return all, nil
}

// Path returns the path of the store, as the user wrote it.
func (b *Backing) Path() string { return b.spec.Path }

// Create makes the image if it is missing: sparse, with Spec.Create bytes. On an error the image is
// removed again.
func (b *Backing) Create() error {
	if !b.pending {
		return nil
	}
	b.pending = false
	Reach(b.spec.Path)
	err := b.create()
	if err != nil {
		b.Abandon()
	}
	return err
}

// Close closes the descriptor, with its locks, and unmaps the memory. The engine must have ended.
func (b *Backing) Close() error {
	b.pending = false
	var err error
	if b.Device.FD >= 0 {
		err = unix.Close(b.Device.FD)
		b.Device.FD = -1
	}
	if b.Device.Memory != nil {
		err = errors.Join(err, b.Device.Memory.Close())
		b.Device.Memory = nil
	}
	if err != nil {
		return fmt.Errorf("%s: close: %w", b.spec.Path, err)
	}
	return nil
}

// Abandon is Close for a start that failed: the image that this process made is removed, unless
// another file has taken its place meanwhile.
func (b *Backing) Abandon() {
	if b.made && b.Device.FD >= 0 {
		var ours, there unix.Stat_t
		if unix.Fstat(b.Device.FD, &ours) == nil && unix.Lstat(b.spec.Path, &there) == nil &&
			ours.Dev == there.Dev && ours.Ino == there.Ino {
			_ = os.Remove(b.spec.Path)
		}
		b.made = false
	}
	_ = b.Close()
}

// prepare finds out what is at the path without opening it.
func (b *Backing) prepare() (identity, error) {
	s := &b.spec
	if kind, _, _ := s.synthetic(); kind != "" {
		if s.Create > 0 {
			return identity{}, fmt.Errorf("%s: only image files can be made; this export carries "+
				"its size in its name", s.Path)
		}
		return identity{}, nil
	}
	var st unix.Stat_t
	err := unix.Stat(s.Path, &st)
	switch {
	case err == unix.ENOENT:
		return b.prepareMissing()
	case err != nil:
		return identity{}, explain(s, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return identity{kind: idFile, dev: uint64(st.Dev), number: st.Ino}, nil
	case unix.S_IFBLK:
		return identity{kind: idBlock, number: uint64(st.Rdev)}, nil
	}
	return identity{}, fmt.Errorf("%s: is %s, not a disk image or a block device", s.Path,
		typeName(st.Mode))
}

// prepareMissing decides whether an image that does not exist may be made, as far as that can be
// known without making it.
func (b *Backing) prepareMissing() (identity, error) {
	s := &b.spec
	directory, base := filepath.Split(s.Path)
	if directory == "" {
		directory = "."
	}
	var st unix.Stat_t
	switch {
	case unix.Lstat(s.Path, &st) == nil:
		return identity{}, fmt.Errorf("%s: is a symbolic link to a file that does not exist; "+
			"repair the link or name the file itself", s.Path)
	case unix.Stat(directory, &st) != nil:
		return identity{}, fmt.Errorf("%s: there is no directory %s; make it first", s.Path,
			directory)
	case s.Create == 0:
		return identity{}, explain(s, unix.ENOENT)
	case s.ReadOnly:
		return identity{}, fmt.Errorf("%s: no such file, and an image that is read-only is not "+
			"made", s.Path)
	case s.Create%sector != 0:
		return identity{}, sizeError(s.Path, s.Create, sector, true)
	}
	if err := MayMake(s.Path); err != nil {
		return identity{}, err
	}
	if err := unix.Faccessat(unix.AT_FDCWD, directory, unix.W_OK|unix.X_OK,
		unix.AT_EACCESS); err != nil {
		return identity{}, fmt.Errorf("%s: cannot be made: no permission to write to %s", s.Path,
			directory)
	}
	b.pending = true
	return identity{kind: idMissing, dev: uint64(st.Dev), number: st.Ino, base: base}, nil
}

// open fills in the Device and the Export of a store that exists.
func (b *Backing) open() error {
	kind, size, err := b.spec.synthetic()
	switch {
	case err != nil:
	case kind != "":
		err = b.openSynthetic(kind, size)
	default:
		err = b.openPath()
	}
	if err != nil {
		_ = b.Close()
		return err
	}
	b.describe()
	return nil
}

func (b *Backing) openSynthetic(kind string, size uint64) error {
	s := &b.spec
	b.traits = traits{preferred: minPreferred}
	b.Device = engine.Device{Kind: engine.Null, FD: -1, Size: size, Block: 1, ReadOnly: s.ReadOnly,
		FastZero: true}
	if kind == "null" {
		return nil
	}
	memory, err := uring.NewArena(int(max(size, 1)), false) // a mapping has a byte at least
	if err != nil {
		return fmt.Errorf("%s: %w", s.Path, err)
	}
	b.Device.Kind, b.Device.Memory = engine.Memory, memory
	return nil
}

// identity is equal for two paths that lead to the same store. Block devices are compared by device
// number, whatever their nodes are called.
type identity struct {
	kind        idKind
	dev, number uint64
	base        string // idMissing: the name in its directory
}

type idKind uint8

const (
	idNone idKind = iota // synthetic: never the same as another
	idFile
	idBlock
	idMissing
)
