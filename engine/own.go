// The coming and going of planned devices: their home, and the rows that a plan has of its own.
//
// Invariant: a planned device is at home in one loop, so that its plan needs no locks; devices that
// are connected by their plans have the same home, for a segment never leaves its loop. Connections
// to its exports are adopted there. Flat devices below are devices of all loops, as others are. A
// plan's own rows have memory of their own, taken from the pool when the device comes: after that a
// plan never asks for memory, so that what it has to do for itself can always be done.

package engine

import (
	"errors"
	"slices"
	"strconv"

	"ringnbd/engine/layer"
)

const (
	// ownPart is the part of a loop's small region that the own rows of all plans may take.
	ownPart = 4
	// requestRows is the part of a loop's rows that must stay for requests.
	requestRows = 2
)

// HomeError says that a loop has no room for one more planned device.
type HomeError struct {
	// Need is how many bytes its plan needs for itself, and Room how many the loop has left for
	// that. Need is 0 if the loop lacks rows: it is home to too many.
	Need, Room uint64
}

func (e *HomeError) Error() string {
	if e.Need == 0 {
		return "a loop is home to as many planned devices as it can be"
	}
	return "the plan of a device needs " + strconv.FormatUint(e.Need, 10) +
		" bytes for itself, and a loop has " + strconv.FormatUint(e.Room, 10) + " left for plans"
}

var errHomes = errors.New("planned devices below another are already served by different loops")

// errPlan says that a planned device was not made as it should be.
var errPlan = errors.New("a planned device does not fit to the devices below it")

// homed reports whether one of the exports is on a planned device.
func homed(exports []Export) bool {
	for i := range exports {
		if exports[i].Device.Kind == Planned {
			return true
		}
	}
	return false
}

// devicesOf counts the devices of some exports, those below others included, and of them those with
// a descriptor.
func devicesOf(exports []Export) (all, filed int) {
	known := map[*Device]bool{}
	var look func(d *Device)
	look = func(d *Device) {
		if !known[d] {
			known[d] = true
			if d.FD >= 0 {
				filed++
			}
			for _, below := range d.Below {
				look(below)
			}
		}
	}
	for i := range exports {
		look(exports[i].Device)
	}
	return len(known), filed
}

// homeOf finds the loop that is to be home to a device that is not there yet: that of planned
// devices below it, or the one that is home to the fewest. none: it is not planned.
func (r *register) homeOf(t *table, d *Device) uint32 {
	if d.Kind != Planned {
		return none
	}
	if home := r.homeBelow(t, d); home != none {
		return home
	}
	home := 0
	for i, n := range r.homes {
		if n < r.homes[home] {
			home = i
		}
	}
	return uint32(home)
}

// homeBelow is the home of the planned devices below a device that are there; none: there are none.
func (r *register) homeBelow(t *table, d *Device) uint32 {
	for _, below := range d.Below {
		if at, known := r.placeOf[below]; known && t.devices[at].home != none {
			return t.devices[at].home
		} else if home := r.homeBelow(t, below); !known && home != none {
			return home
		}
	}
	return none
}

// freshDevices counts what a change brings, before it is made.
type freshDevices struct {
	register *register
	known    map[*Device]bool
	n, files int
}

// look counts a device, and those below it, and reports why it cannot be served.
func (f *freshDevices) look(t *table, d *Device) error {
	if _, there := f.register.placeOf[d]; there || f.known[d] {
		return nil
	}
	f.known[d] = true
	f.n++
	if d.FD >= 0 {
		f.files++
	}
	if d.Kind != Planned {
		return nil
	}
	if !d.fits() {
		return errPlan
	}
	home := uint32(none)
	for _, below := range d.Below {
		if err := f.look(t, below); err != nil {
			return err
		}
		at, there := f.register.placeOf[below]
		if !there || t.devices[at].home == none {
			continue
		}
		if home != none && home != t.devices[at].home {
			return errHomes
		}
		home = t.devices[at].home
	}
	return nil
}

// fits reports whether a planned device can be served: its plan asks for blocks that all devices
// below it have.
func (d *Device) fits() bool {
	b := d.Needs.Block
	if d.Plan == nil || d.Block != b || b < 512 || b > pageSize || b&(b-1) != 0 ||
		d.Size%uint64(b) != 0 || len(d.Below) >= layer.Nowhere {
		return false
	}
	for _, below := range d.Below {
		if below.Block > b {
			return false
		}
	}
	for _, n := range d.Needs.Own {
		if n > layer.Most {
			return false
		}
	}
	return true
}

// plantAll makes the planned devices usable that a loop starts with. Their memory is there.
func (l *loop) plantAll() error {
	for place, p := range l.table.Load().devices {
		if p.home != l.id || p.device == nil {
			continue
		}
		if !p.device.fits() {
			return errPlan
		}
		planted, err := l.plant(uint32(place))
		if err != nil {
			return err
		}
		must(planted, "memory is on lease before there is a request")
	}
	return nil
}

// plant makes a planned device usable in its home: it gets its own rows and their memory. False
// means that requests have the rows, or the memory is on lease, and is kept for it as soon as it is
// given back. Whether there is room at all does not depend on what requests have just now.
func (l *loop) plant(dev uint32) (planted bool, err error) {
	q := &l.devices[dev]
	p := &l.table.Load().devices[dev]
	if l.rows == nil {
		l.makePlanRows()
	}
	bytes := uint64(0)
	for _, n := range q.device.Needs.Own {
		bytes += leaseCost(uint64(n))
	}
	room := l.layout.smallLen / ownPart
	if l.ownBytes+bytes > room {
		return false, &HomeError{Need: bytes, Room: room - l.ownBytes}
	}
	always := uint32(1 + len(q.device.Needs.Own))
	fresh := uint32(0)
	for _, each := range append([]uint32{dev}, p.below...) {
		if l.devices[each].trees == 0 {
			fresh++
		}
	}
	if uint32(len(l.rows)) < requestRows*(l.kept+l.branches+always+fresh) {
		return false, &HomeError{}
	}
	if l.rowsFree < l.rowless+always+fresh {
		return false, nil // requests have them
	}
	own, ok := l.takeOwn(dev, bytes)
	if !ok {
		return false, nil
	}
	q.below = p.below
	l.joinTree(dev)
	for _, below := range p.below {
		l.joinTree(below)
	}
	q.flushRow = l.newRow(dev, origin{parent: none, errand: forFlush, state: rowAsleep}, none)
	if o, is := q.device.Plan.(layer.Owner); is {
		o.Owns(uint32(len(l.rows)), own)
	}
	l.stir(dev)
	return true, nil
}

// takeOwn makes a plan's own rows, or nothing at all. Then what the rows need is kept from new
// requests until it is there.
func (l *loop) takeOwn(dev uint32, bytes uint64) (own []layer.Own, ok bool) {
	q := &l.devices[dev]
	l.ledger.wanted = max(l.ledger.wanted, bytes)
	if l.ledger.free.leased[small] < bytes {
		return nil, false
	}
	var memory []lease
	for _, n := range q.device.Needs.Own {
		piece, ok := l.leases.take(small, uint64(n))
		if !ok { // what is free is in pieces
			for _, piece := range memory {
				l.leases.give(piece)
			}
			return nil, false
		}
		memory = append(memory, piece)
	}
	l.ledger.wanted = 0
	l.queue.freed(small) // what was kept for this
	l.ledger.cede(bytes)
	l.ownBytes += bytes
	for i, n := range q.device.Needs.Own {
		t := l.newRow(dev, origin{parent: none, errand: forItself, state: rowAsleep}, none)
		at := l.leases.offset(memory[i])
		if n == 0 {
			at = 0
		}
		l.rows[rowOf(t)] = layer.Row{ID: rowOf(t), Own: uint8(i + 1), Len: n, At: at}
		q.own = append(q.own, t)
		q.ownMemory = append(q.ownMemory, memory[i])
		own = append(own, layer.Own{ID: rowOf(t), Memory: l.pool.Bytes(at, int(n))})
	}
	return own, true
}

// joinTree notes that a device is part of a tree that is at home here.
func (l *loop) joinTree(dev uint32) {
	q := &l.devices[dev]
	if q.trees++; q.trees == 1 {
		l.rowless++
		l.branches++
		q.size = q.device.Size
	}
}

// uproot takes back what plant gave, when nothing of the device is in flight. False means that the
// plan is busy with something of its own.
func (l *loop) uproot(dev uint32) bool {
	q := &l.devices[dev]
	if q.lacks { // what waited for a row has gone with its client
		q.lacks = false
		l.shorts = slices.DeleteFunc(l.shorts, func(short uint32) bool { return short == dev })
	}
	if q.device.Kind != Planned || q.flushRow == none {
		return q.trees == 0
	}
	if q.stirs {
		return false
	}
	for _, t := range q.own {
		if s := l.origins[rowOf(t)].state; s != rowAsleep && s != rowWaits {
			return false
		}
	}
	bytes := uint64(0)
	for i, t := range q.own {
		l.giveRow(t)
		bytes += leaseCost(uint64(q.device.Needs.Own[i]))
		l.leases.give(q.ownMemory[i])
	}
	l.giveRow(q.flushRow)
	l.ledger.recover(bytes)
	l.queue.freed(small)
	l.ownBytes -= bytes
	for _, dev := range append([]uint32{dev}, q.below...) {
		q := &l.devices[dev]
		if q.trees--; q.trees == 0 {
			l.rowless--
			l.branches--
		}
	}
	q.own, q.ownMemory, q.flushRow, q.below = nil, nil, none, nil
	return true
}
