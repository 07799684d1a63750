// Opening in two steps: Prepare opens and locks everything that exists; Create makes what is
// missing. Between them the caller does everything else that can fail without leaving a trace
// (binding its addresses, for instance), so that a start that fails has changed nothing.
//
// Invariant: a Backing is pending (its image is still to be made) or open, and after Close or
// Abandon neither; Export is filled in exactly when it is open, Device as well.

package backing

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/tree"
	"ringnbd/proto"
)

// Backing is an opened export: the engine's view of it, the clients' view, and notes for the
// operator.
type Backing struct {
	Device *engine.Device // shared by all exports of the store
	Export proto.Export
	// Disk is set for an export that Spec.Partitions added: the export of the whole disk.
	Disk *Backing
	// Notes are lines about what was decided for the user, and why: buffered I/O on tmpfs, say.
	Notes     []string
	Encrypted bool // it holds a LUKS volume: clients see it encrypted

	spec    Spec
	stores  *Stores
	store   *store // nil: closed, or a layer
	pending bool   // the image does not exist yet
	window  window
	asked   asked // what is to be opened

	// Of a layer (layered.go): its tree, what it is made of, in the order of the tree, and what was
	// made of that.
	tree   *tree.Node
	parts  []*Backing
	laid   *laid
	whole  *Backing // the export that this is a part of
	lender *Backing // of a throw-away overlay: to which its origin belongs (thrown.go)
	lent   int      // throw-away overlays that use the parts; guarded by Stores.mu, as closed is
	closed bool
}

// asked is the store of a Backing, before it is opened.
type asked struct {
	id identity
	as Spec // as which it is opened for all that share it
}

// window is the range of a store that an export shows.
type window struct{ base, size uint64 } // bytes

// Open opens an export by itself, and makes its image if the Spec says so. Several exports go
// through one Stores, which also checks that no two are in each other's way.
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

// Prepare is Stores.Prepare with Stores of its own.
func Prepare(specs []Spec, tell ...func(path string) (on bool)) ([]*Backing, error) {
	return new(Stores).Prepare(specs, tell...)
}

// errStopped is what Prepare returns when it was told to stop.
var errStopped = errors.New("stopped before all was opened")

// Path returns the path of the store, and of the partition, as the user wrote it.
func (b *Backing) Path() string { return b.spec.Text() }

// Create makes the image if it is missing: sparse, with Spec.Create bytes. On an error the image is
// removed again.
func (b *Backing) Create() error {
	if !b.pending {
		return nil
	}
	b.pending = false
	var err error
	if b.tree != nil {
		err = b.createParts()
	} else {
		err = b.createStore()
	}
	if err != nil {
		b.Abandon()
	}
	return err
}

func (b *Backing) createStore() error {
	Reach(b.spec.Path)
	err := b.store.create()
	if err == nil {
		err = b.stores.made(b.store)
	}
	if err == nil {
		err = b.show()
	}
	return err
}

// Close lets go of the store. The last export of a store closes its descriptor, with its locks, and
// unmaps its memory: the engine must have let go of the export before.
func (b *Backing) Close() error {
	b.pending = false
	o := b.store
	b.store = nil
	var err error
	switch {
	case b.tree != nil && b.lender == nil:
		err = b.closeLayer()
	case o == nil:
	case b.lender != nil:
		err = errors.Join(o.close(), b.lender.giveBack())
	default:
		err = b.stores.release(o, b)
	}
	if err != nil {
		return fmt.Errorf("%s: close: %w", b.spec.Path, err)
	}
	return nil
}

// Abandon is Close for a start that failed: the image that this process made is removed, unless
// another file has taken its place meanwhile.
func (b *Backing) Abandon() {
	for _, part := range b.parts {
		if b.lender == nil {
			part.Abandon()
		}
	}
	if b.store != nil {
		b.store.unmake()
	}
	_ = b.Close()
}

// identify finds out what is at the path of a spec without opening it.
func identify(s *Spec) (identity, error) {
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
	case err == unix.ENOENT && s.Partition != "":
		return identity{}, missingPartition(s)
	case err == unix.ENOENT && s.top && s.Create == 0:
		return identity{}, &TopError{Path: s.Path, Missing: true}
	case err == unix.ENOENT:
		return identifyMissing(s)
	case err != nil:
		return identity{}, explain(s, err)
	}
	if id := identityOf(&st); id.kind != idNone {
		return id, nil
	}
	return identity{}, fmt.Errorf("%s: is %s, not a disk image or a block device", s.Path,
		typeName(st.Mode))
}

// identifyMissing decides whether an image that does not exist may be made, as far as that can be
// known without making it.
func identifyMissing(s *Spec) (identity, error) {
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
	return identity{kind: idMissing, dev: uint64(st.Dev), number: st.Ino, base: base}, nil
}

// identity is equal for two paths that lead to the same store. Block devices are compared by device
// number, whatever their nodes are called.
type identity struct {
	kind        idKind
	dev, number uint64
	base        string // idMissing: the name in its directory
	cached      bool   // open through the page cache, beside the same store in another mode
}

type idKind uint8

const (
	idNone idKind = iota // synthetic: never the same as another
	idFile
	idBlock
	idMissing
)

// identityOf returns the identity of what a stat describes; its kind is idNone if that can be
// neither an image nor a block device.
func identityOf(st *unix.Stat_t) identity {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return identity{kind: idFile, dev: uint64(st.Dev), number: st.Ino}
	case unix.S_IFBLK:
		return identity{kind: idBlock, number: uint64(st.Rdev)}
	}
	return identity{}
}
