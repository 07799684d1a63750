// The table says what is served: the exports, and the devices that hold their bytes. It changes
// while others are served (change.go).
//
// Invariant: a table never changes after it was made; a change makes a new one, and a letter brings
// it to every loop. Exports and devices have places in it, which stay theirs for as long as they
// are there; so do the descriptors of devices among the registered files of every ring. A place is
// given to another only when nothing of its last one is left in any loop, and with the next
// generation: what remembers a place and a generation never finds another export, or device, there.
//
// A loop has rows of its own for exports and devices (exportRow, deviceRow), by place, which it
// brings up to date when the letter arrives, between two completions: nothing of a row is held from
// one to the next. The loop reads the table itself only where it is not in a hurry; lookup workers
// read nothing else, because rows move when a loop's tables grow.
//
// An export has a name, facts and contexts, which clients are told of; it is what connections,
// counters and shares of memory belong to. A device is what the loops work on: its requests,
// flushes, slices and claims have its place, from whatever export they come, so that two exports of
// one device, or a partition and the whole disk, are ordered and flushed as one. What differs is
// the base of an export: where it begins on its device.
//
// Shares of memory (ledger.go) and lines (queue.go) are by export on purpose: they divide what a
// loop has between groups of clients, and a client knows the export that it asked for. If two
// exports have the same device, and it hangs, each can hold a share; two devices that hang could
// hold the same.

package engine

import "ringnbd/proto"

// ID names an export for as long as it is served: its place in the table, and the generation of the
// place. 0 is the ID of no export.
type ID uint64

func idOf(place, generation uint32) ID { return ID(generation)<<32 | ID(place) }

// Place returns an index that no other export has for as long as the export of the ID is served.
func (i ID) Place() int { return int(i.place()) }

func (i ID) place() uint32      { return uint32(i) }
func (i ID) generation() uint32 { return uint32(i >> 32) }

// table is what is served.
type table struct {
	exports []*Export     // by place; nil: the place is free
	devices []devicePlace // by place, each device once
	live    int           // exports
	filed   int           // devices with a descriptor
	// together says that all devices are on one file system that can be frozen, or none is.
	together bool
}

// devicePlace is a device of the table.
type devicePlace struct {
	device     *Device // nil: the place is free
	file       uint32  // among the registered files of every ring; none: it has no descriptor
	generation uint16
	home       uint32   // of a planned device: its loop; none: it is in all
	below      []uint32 // places of the devices below
}

// copy makes a table that may be changed until it is seen by others.
func (t *table) copy() *table {
	c := *t
	c.exports = append([]*Export(nil), t.exports...)
	c.devices = append([]devicePlace(nil), t.devices...)
	return &c
}

// settle computes what follows from a table's exports and devices.
func (t *table) settle() {
	t.live, t.filed, t.together = 0, 0, true
	for _, x := range t.exports {
		if x != nil {
			t.live++
		}
	}
	first := (*Device)(nil)
	for _, p := range t.devices {
		if d := p.device; d != nil {
			if p.file != none {
				t.filed++
			}
			if first == nil {
				first = d
			}
			t.together = t.together && d.Freezes == first.Freezes
		}
	}
}

// find returns the export of an ID, or nil if it has gone.
func (t *table) find(id ID) *Export {
	if id.Place() >= len(t.exports) {
		return nil
	}
	if x := t.exports[id.place()]; x != nil && x.id == id {
		return x
	}
	return nil
}

// files returns what is to be registered with a ring: descriptors by their place, -1 where there is
// none.
func (t *table) files(places int) []int32 {
	fds := make([]int32, places)
	for i := range fds {
		fds[i] = -1
	}
	for _, p := range t.devices {
		if p.device != nil && p.file != none {
			fds[p.file] = int32(p.device.FD)
		}
	}
	return fds
}

// exportRow is what one loop keeps about one export: a cache line.
type exportRow struct {
	proto.Facts
	device     *Device
	base       uint64
	dev        uint32 // the device's place
	generation uint32 // of the export's place; 0: the place is free
	conns      uint32 // connections
	leaving    bool   // it is being removed: what comes in is refused
	since      int64  // when it began to leave, nanoseconds of the loop's clock
}

// exportTable is the exports of a loop.
type exportTable struct {
	exports  []exportRow // as in table.exports
	together bool        // as in the table
}

// grow makes room in all that a loop keeps by export and by device for as many as the table has.
// Letters may do that; the path of a request never does.
func (l *loop) grow(t *table) {
	for len(l.exports) < len(t.exports) {
		l.exports = append(l.exports, exportRow{})
		l.tally = append(l.tally, exportTally{})
	}
	for len(l.devices) < len(t.devices) {
		l.devices = append(l.devices, freeDeviceRow())
	}
	if cap(l.blocked) < len(l.devices) { // each device is there once at most
		l.blocked = append(make([]uint32, 0, cap(l.devices)), l.blocked...)
		l.stirred = append(make([]uint32, 0, cap(l.devices)), l.stirred...)
		l.shorts = append(make([]uint32, 0, cap(l.devices)), l.shorts...)
	}
	l.ledger.grow(len(t.exports))
	l.queue.grow(len(t.exports))
}

// showExport brings the row of an export up to date with a table.
func (l *loop) showExport(t *table, place uint32) {
	row, x := &l.exports[place], t.exports[place]
	if x == nil {
		must(row.conns == 0, "an export has gone, and a connection of it is left")
		*row = exportRow{}
		return
	}
	*row = exportRow{Facts: x.Facts, device: x.Device, base: x.Base, dev: x.dev,
		generation: x.id.generation(), conns: row.conns, since: row.since, leaving: x.leaving}
}

// showDevice brings the row of a device up to date with a table.
func (l *loop) showDevice(t *table, place uint32) {
	q, p := &l.devices[place], t.devices[place]
	if p.device == q.device && p.generation == q.generation {
		return
	}
	must(q.home(), "a device has gone, and something of it is left")
	*q = freeDeviceRow()
	q.device, q.file, q.generation = p.device, p.file, p.generation
}

// showAll makes a loop's rows from a table.
func (l *loop) showAll(t *table) {
	l.grow(t)
	for place := range t.devices {
		l.showDevice(t, uint32(place))
	}
	for place := range t.exports {
		l.showExport(t, uint32(place))
	}
	l.see(t)
}

// see makes a table the one that the loop's workers read.
func (l *loop) see(t *table) {
	l.together, l.ledger.several = t.together, t.live > 1
	l.table.Store(t)
}
