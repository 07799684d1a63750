// The stores that are open in this process, each of them once. Exports of one store (a disk and its
// partitions, or a read-only image under several names) share its descriptor and its locks, and the
// engine's Device, so that the engine orders all of their requests that touch the same bytes.
//
// A store has one mode of opening, decided by its first export: writable if any of the exports that
// are opened with it is to be, direct or buffered, once and for all. An export that is read-only
// may show a range of a store that was opened for writing; a writable export cannot join a store
// that was opened for reading only. An origin of throw-away overlays, which is read through the
// page cache, may be open in another mode as well, for reading only: its twin.
//
// Invariant: an entry of the registry is open as long as an export has it. Two exports that show
// the same bytes are read-only both, or the range of one lies within the other's: the whole disk
// and its partition. No lock is held while a store is opened or closed, which may take long; other
// users of the same store wait for that, and no others.

package backing

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/uring"
)

// Stores are open stores by identity. The zero value has none.
type Stores struct {
	mu   sync.Mutex
	open map[identity]*store
}

// store is a file, a block device, or a synthetic device that is open, or an image to be made.
type store struct {
	device    engine.Device
	spec      Spec // as it was opened: ReadOnly is the mode of the descriptor
	notes     []string
	encrypted bool  // it begins as a LUKS volume does
	foreign   error // a FormatError, if it is not a raw disk
	traits    traits
	made      bool // this process made the file, so unmake removes it

	id      identity
	users   []*Backing    // guarded by Stores.mu, as id is
	settled chan struct{} // closed when it is open, or has gone
	moving  bool          // it is being opened or closed: wait for settled
}

// traits are what flags.go needs to know about a store besides the Device itself.
type traits struct {
	preferred  uint32 // bytes: the block size that the store does best with, a power of two
	logical    uint32 // bytes: the logical block size of a block device
	rotational bool
}

// Prepare checks all specs, then opens and locks everything that exists and is not open yet. It
// changes nothing, and on an error it leaves nothing open that was not before. Before it opens a
// path, which may take long, it calls tell, which returns whether to go on.
//
// The result has a Backing for each spec, in order, and behind them the partitions of the specs
// with Spec.Partitions.
func (r *Stores) Prepare(specs []Spec, tell ...func(path string) (on bool)) ([]*Backing, error) {
	return r.PrepareInstead(nil, specs, tell...)
}

// PrepareInstead is Prepare for exports that replace others: exports that are leaving are not in
// the way of the new, although they are open until they are closed.
func (r *Stores) PrepareInstead(leaving []*Backing, specs []Spec,
	tell ...func(path string) (on bool)) ([]*Backing, error) {
	if err := Check(specs); err != nil {
		return nil, err
	}
	all, err := r.plantAll(specs, tell)
	if err != nil {
		return nil, err
	}
	for i, b := range all {
		if err = b.raise(leaving, tell); err != nil {
			return nil, closeAll(all[:i+1], err)
		}
	}
	if all, err = withPartitions(all, leaving); err != nil {
		return nil, closeAll(all, err)
	}
	tellOnce(all)
	return all, nil
}

// tellOnce drops the notes that an earlier one of several exports has, too.
func tellOnce(all []*Backing) {
	told := make(map[string]bool)
	for _, b := range all {
		b.Notes = slices.DeleteFunc(b.Notes, func(note string) bool {
			before := told[note]
			told[note] = true
			return before
		})
	}
}

// closeAll closes what was opened before an error.
func closeAll(all []*Backing, err error) error {
	for _, b := range all {
		err = errors.Join(err, b.Close())
	}
	return err
}

// withPartitions appends the exports of the partitions of those disks whose specs ask for them.
func withPartitions(all []*Backing, leaving []*Backing) ([]*Backing, error) {
	var specs []Spec
	for _, b := range all {
		specs = append(specs, b.spec)
	}
	for _, disk := range all {
		if !disk.spec.Partitions || disk.pending || disk.tree != nil {
			continue
		}
		added, err := disk.partitions()
		if err != nil {
			return all, err
		}
		if err := Check(append(specs, added...)); err != nil {
			return all, err
		}
		specs = append(specs, added...)
		for _, s := range added {
			b := &Backing{spec: s, stores: disk.stores, Disk: disk}
			if err := b.join(disk.store.id, s, leaving); err != nil {
				return all, err
			}
			all = append(all, b)
		}
	}
	return all, nil
}

// plantAll makes the Backings of specs, and finds out what there is to open, without opening it.
func (r *Stores) plantAll(specs []Spec, tell []func(path string) (on bool)) ([]*Backing, error) {
	all := make([]*Backing, len(specs))
	var leaves []*Backing
	for i := range specs {
		n, err := specs[i].layers()
		if err != nil {
			return nil, err
		}
		all[i] = r.plant(specs[i], n, &leaves)
	}
	stores := make([]Spec, len(leaves))
	for i, b := range leaves {
		stores[i] = b.spec
	}
	ids, err := identifyAll(stores, tell)
	if err != nil {
		return nil, err
	}
	for i, b := range leaves {
		ids[i].cached = b.spec.cached && ids[i].kind != idNone
		b.asked = asked{id: ids[i]}
	}
	for i, b := range leaves {
		b.asked.as = mode(i, stores, ids)
	}
	return all, nil
}

// on asks all of tell whether to go on.
func on(path string, tell []func(path string) (on bool)) error {
	for _, t := range tell {
		if !t(path) {
			return errStopped
		}
	}
	return nil
}

// identifyAll finds out what is at the paths of specs, without opening anything.
func identifyAll(specs []Spec, tell []func(path string) (on bool)) ([]identity, error) {
	ids := make([]identity, len(specs))
	for i := range specs {
		if err := on(specs[i].Path, tell); err != nil {
			return nil, err
		}
		Reach(specs[i].Path)
		var err error
		if ids[i], err = identify(&specs[i]); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// mode returns the spec with which the store of a spec is opened for all the specs that share it.
func mode(i int, specs []Spec, ids []identity) Spec {
	s := specs[i]
	for k := range specs {
		if ids[k] == ids[i] && ids[i].kind != idNone {
			s.ReadOnly = s.ReadOnly && specs[k].ReadOnly
			s.Force = s.Force || specs[k].Force
			s.still = s.still || specs[k].still
		}
	}
	return s
}

// join makes b a user of the store with an identity, which is opened with a spec unless it is open.
func (b *Backing) join(id identity, as Spec, leaving []*Backing) error {
	if twin := b.stores.twin(id); twin != nil && !(as.ReadOnly && twin.ReadOnly) {
		return &SharedError{Path: b.spec.Path, Name: b.spec.Name, Other: twin.Name, Origin: true}
	}
	o, err := b.stores.take(id, as, b)
	if err != nil {
		return err
	}
	b.store, b.Device = o, &o.device
	if !b.pending {
		err = b.show()
	}
	if err == nil {
		err = b.stores.admit(b, leaving)
	}
	if err != nil {
		_ = b.Close()
	}
	return err
}

// twin returns the spec of the first user of the same store in its other mode, or nil: ReadOnly is
// that of the store.
func (r *Stores) twin(id identity) *Spec {
	id.cached = !id.cached
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.open[id]
	if o == nil || len(o.users) == 0 || id.kind == idNone {
		return nil
	}
	s := o.users[0].spec
	s.ReadOnly = o.spec.ReadOnly
	return &s
}

// show fills in what an open store shows of itself.
func (b *Backing) show() error {
	o := b.store
	if err := errors.Join(o.raw(&b.spec), o.sized(&b.spec)); err != nil {
		return err
	}
	b.Encrypted = o.encrypted
	if err := b.choose(); err != nil {
		return err
	}
	b.stores.mu.Lock()
	b.Notes = append(o.notes, b.Notes...)
	o.notes = nil // told once
	b.stores.mu.Unlock()
	b.describe()
	return nil
}

// take returns the store with an identity, opened with a spec if it is not open, and counts b among
// its users.
func (r *Stores) take(id identity, s Spec, b *Backing) (*store, error) {
	for {
		r.mu.Lock()
		o := r.open[id]
		switch {
		case o == nil:
			o = &store{spec: s, id: id, users: []*Backing{b}, moving: true,
				settled: make(chan struct{}), device: engine.Device{FD: -1}}
			if id.kind != idNone {
				if r.open == nil {
					r.open = make(map[identity]*store)
				}
				r.open[id] = o
			}
			r.mu.Unlock()
			err := o.open()
			r.settle(o, err == nil)
			return o, err
		case o.moving:
			settled := o.settled
			r.mu.Unlock()
			<-settled
		default:
			o.users = append(o.users, b)
			r.mu.Unlock()
			return o, nil
		}
	}
}

// settle ends the time in which a store is opened or closed. If it is not open then, its entry is
// removed.
func (r *Stores) settle(o *store, open bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o.moving = false
	if !open && r.open[o.id] == o {
		delete(r.open, o.id)
	}
	close(o.settled)
}

// release takes a user from a store, and closes the store when it was the last.
func (r *Stores) release(o *store, b *Backing) error {
	r.mu.Lock()
	o.users = slices.DeleteFunc(o.users, func(u *Backing) bool { return u == b })
	last := len(o.users) == 0
	if last {
		o.moving, o.settled = true, make(chan struct{})
	}
	r.mu.Unlock()
	if !last {
		return nil
	}
	err := o.close()
	r.settle(o, false)
	return err
}

// made gives a store that has just been made the identity of its file.
func (r *Stores) made(o *store) error {
	var st unix.Stat_t
	if err := unix.Fstat(o.device.FD, &st); err != nil {
		return explain(&o.spec, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, o.id)
	o.id = identityOf(&st)
	r.open[o.id] = o
	return nil
}

// admit returns why b cannot have its range of its store together with the other users, apart from
// those that are leaving; or cannot have it in the mode in which it is open, even by users that are
// leaving.
func (r *Stores) admit(b *Backing, leaving []*Backing) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := b.store
	for _, u := range o.users {
		if u == b || slices.Contains(leaving, u.export()) ||
			u.spec.ReadOnly && b.spec.ReadOnly {
			continue
		}
		still := (u.spec.still || b.spec.still) && u.window.overlaps(b.window)
		if u.pending || b.pending || still || u.window.collides(b.window) {
			return &SharedError{Path: b.spec.Text(), Name: b.spec.Name, Other: u.spec.Name,
				Within: u.export() == b.export(), Origin: still}
		}
	}
	mode := ""
	switch {
	case o.spec.ReadOnly && !b.spec.ReadOnly:
		mode = "is open for reading only"
	case o.spec.Direct != b.spec.Direct:
		mode = "is open with another choice of O_DIRECT"
	default:
		return nil
	}
	return &SharedError{Path: b.spec.Text(), Name: b.spec.Name, Other: o.users[0].spec.Name,
		Mode: mode}
}

// collides reports whether two ranges share bytes without that one lies within the other, or are
// the same range.
func (w window) collides(v window) bool {
	return w == v || w.overlaps(v) && !w.within(v) && !v.within(w)
}

// overlaps reports whether two ranges share bytes.
func (w window) overlaps(v window) bool {
	return w.base < v.base+v.size && v.base < w.base+w.size
}

// within reports whether w lies in v.
func (w window) within(v window) bool {
	return w.base >= v.base && w.base+w.size <= v.base+v.size
}

// open opens a store that exists.
func (o *store) open() error {
	if o.id.kind == idMissing {
		return nil
	}
	kind, size, err := o.spec.synthetic()
	switch {
	case err != nil:
	case kind != "":
		err = o.openSynthetic(kind, size)
	default:
		if err = o.openPath(); err == nil {
			err = o.same()
		}
	}
	if err != nil {
		_ = o.close()
	}
	return err
}

// same returns an error unless the file that was opened is the file that was asked for.
func (o *store) same() error {
	var st unix.Stat_t
	if err := unix.Fstat(o.device.FD, &st); err != nil {
		return explain(&o.spec, err)
	}
	asked := o.id
	asked.cached = false
	if identityOf(&st) != asked {
		return fmt.Errorf("%s: was replaced while it was being opened; start again", o.spec.Path)
	}
	return nil
}

func (o *store) openSynthetic(kind string, size uint64) error {
	s := &o.spec
	o.traits = traits{preferred: minPreferred}
	o.device = engine.Device{Kind: engine.Null, FD: -1, Size: size, Block: 1, ReadOnly: s.ReadOnly,
		FastZero: true}
	if kind == "null" {
		return nil
	}
	memory, err := uring.NewArena(int(max(size, 1)), false) // a mapping has a byte at least
	if err != nil {
		return fmt.Errorf("%s: %w", s.Path, err)
	}
	o.device.Kind, o.device.Memory = engine.Memory, memory
	return nil
}

// close closes the descriptor and unmaps the memory.
func (o *store) close() error {
	var err error
	if o.device.FD >= 0 {
		err = unix.Close(o.device.FD)
		o.device.FD = -1
	}
	if o.device.Memory != nil {
		err = errors.Join(err, o.device.Memory.Close())
		o.device.Memory = nil
	}
	return err
}

// unmake removes the file that this process made, unless another has taken its place.
func (o *store) unmake() {
	if o.made && o.device.FD >= 0 {
		var ours, there unix.Stat_t
		if unix.Fstat(o.device.FD, &ours) == nil && unix.Lstat(o.spec.Path, &there) == nil &&
			ours.Dev == there.Dev && ours.Ino == there.Ino {
			_ = os.Remove(o.spec.Path)
		}
		o.made = false
	}
}

// raw returns why a spec cannot have what the store holds, or nil.
func (o *store) raw(s *Spec) error {
	if s.Raw {
		return nil
	}
	return o.foreign
}

// sized returns why a spec that would make an image cannot have the image that exists, or nil.
func (o *store) sized(s *Spec) error {
	if s.Create > 0 && !o.made && o.device.Size != s.Create {
		return &ExistsError{Path: s.Path, Size: o.device.Size, Wanted: s.Create}
	}
	return nil
}
