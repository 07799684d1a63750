// Places: which places of the table are taken, and by which generation.
//
// Invariant: the register is read and written under the engine's lock. A device has as many refs as
// exports of it are in the table, and as many users as those of them that clients can still reach,
// or that still have connections.

package engine

import "golang.org/x/sys/unix"

const (
	// fewSpare is how many exports may be added to an engine that a test has made.
	fewSpare = 64
	// maxSpare is how many exports may be added to an engine: a registered place, empty, takes 8
	// bytes of the kernel's in every ring.
	maxSpare = 16384
)

// spareFiles is how many exports may be added to those that an engine starts with.
func spareFiles(exports []Export) int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return fewSpare
	}
	_, filed := devicesOf(exports)
	return spareWithin(limit.Cur, filed)
}

// spareWithin is spareFiles with a limit on descriptors: half of it, for the rest is for clients,
// and no more than it leaves, because a ring registers no more files than a process may have open.
func spareWithin(limit uint64, files int) int {
	left := limit - min(limit, uint64(files))
	return int(min(limit/2, left, maxSpare))
}

// places hands out indexes.
type places struct {
	generations []uint32 // by place, from 1
	free        []uint32 // places that were given back, the last one last
	room        int      // places at most
}

func (p *places) left() int { return len(p.free) + p.room - len(p.generations) }

// take gives a place away; there must be one left.
func (p *places) take() (place, generation uint32) {
	if n := len(p.free); n > 0 {
		place = p.free[n-1]
		p.free = p.free[:n-1]
	} else {
		must(len(p.generations) < p.room, "a place was taken where there was none")
		place = uint32(len(p.generations))
		p.generations = append(p.generations, 1)
	}
	return place, p.generations[place]
}

// give takes a place back. The next to have it is of another generation.
func (p *places) give(place uint32) {
	p.generations[place]++
	p.free = append(p.free, place)
}

// register is what the control plane knows of the newest table.
type register struct {
	exports, devices, files places
	placeOf                 map[*Device]uint32
	users                   []int // by place of a device
	refs                    []int
	leaving                 map[ID]*departure // exports that have not gone yet
	homes                   []int             // planned devices, by the loop that is their home
}

// newRegister makes an empty register with room for so many exports, each with a device, and for so
// many files.
func newRegister(room, files, loops int) register {
	return register{exports: places{room: room}, devices: places{room: room},
		files: places{room: files}, placeOf: map[*Device]uint32{}, leaving: map[ID]*departure{},
		homes: make([]int, loops)}
}

// newTable makes the table that an engine starts with.
func (r *register) newTable(g *guard, exports []Export) *table {
	t := &table{}
	for i := range exports {
		r.add(t, g, &exports[i])
	}
	t.settle()
	return t
}

// add puts an export, and those of its devices that are not there, into a table. There must be
// room.
func (r *register) add(t *table, g *guard, x *Export) (place uint32, fresh []uint32) {
	dev, known := r.placeOf[x.Device]
	if !known {
		dev, fresh = r.addDevice(t, g, x.Device, r.homeOf(t, x.Device), nil)
	}
	r.users[dev]++
	r.refs[dev]++
	place, generation := r.exports.take()
	entry := *x
	entry.id, entry.dev, entry.leaving = idOf(place, generation), dev, false
	if int(place) == len(t.exports) {
		t.exports = append(t.exports, nil)
	}
	t.exports[place] = &entry
	return place, fresh
}

// addDevice puts a device into a table, after the devices below it. fresh are the places of all
// that were not there before.
func (r *register) addDevice(t *table, g *guard, d *Device, home uint32, fresh []uint32) (
	dev uint32, all []uint32) {
	p := devicePlace{device: d, file: none, home: none}
	for _, below := range d.Below {
		at, known := r.placeOf[below]
		if !known {
			at, fresh = r.addDevice(t, g, below, home, fresh)
		}
		r.refs[at]++
		p.below = append(p.below, at)
	}
	if d.Kind == Planned {
		d.Direct = true // FUA is for the plan, and there is no page cache
		p.home = home
		r.homes[home]++
	}
	dev, generation := r.devices.take()
	p.generation = uint16(generation)
	if d.FD >= 0 {
		p.file, _ = r.files.take()
	}
	if int(dev) == len(t.devices) {
		t.devices = append(t.devices, devicePlace{home: none})
		r.users, r.refs = append(r.users, 0), append(r.refs, 0)
	}
	t.devices[dev], r.placeOf[d] = p, dev
	g.open(dev)
	return dev, append(fresh, dev)
}

// drop takes an export out of a table, and its device if no other export has it. The places are
// given back later, when the loops have let go of them (giveBack).
func (r *register) drop(t *table, d *departure) {
	t.exports[d.id.place()] = nil
	r.dropDevice(t, d, d.dev)
}

// dropDevice takes a device, of which there is one user less, out of a table if that was the last,
// and then the devices below it in the same way.
func (r *register) dropDevice(t *table, d *departure, dev uint32) {
	r.refs[dev]--
	if r.refs[dev] > 0 {
		return
	}
	p := t.devices[dev]
	d.devices = append(d.devices, goneDevice{dev, p.file})
	delete(r.placeOf, p.device)
	t.devices[dev] = devicePlace{home: none}
	if p.home != none {
		r.homes[p.home]--
	}
	for _, below := range p.below {
		r.dropDevice(t, d, below)
	}
}

// giveBack gives the places of an export that has gone back.
func (r *register) giveBack(d *departure) {
	r.exports.give(d.id.place())
	for _, p := range d.devices {
		r.devices.give(p.place)
		if p.file != none {
			r.files.give(p.file)
		}
	}
	delete(r.leaving, d.id)
}

// check reports why a change cannot be made.
func (r *register) check(t *table, c *Change) error {
	for _, id := range c.Remove {
		if t.find(id) == nil {
			return ErrGone
		}
	}
	for i := range c.Alter {
		a := &c.Alter[i]
		x := t.find(a.ID)
		if x == nil || x.leaving {
			return ErrGone
		}
		size := x.Device.Size
		if a.DeviceSize > 0 {
			size = a.DeviceSize
		}
		if err := x.within(a.Facts.Size, size); err != nil {
			return err
		}
	}
	if len(c.Add) > r.exports.left() {
		return &RoomError{Room: r.exports.room}
	}
	fresh := freshDevices{register: r, known: map[*Device]bool{}}
	for i := range c.Add {
		x := &c.Add[i]
		if err := x.within(x.Size, x.Device.Size); err != nil {
			return err
		}
		if err := fresh.look(t, x.Device); err != nil {
			return err
		}
	}
	if fresh.files > r.files.left() || fresh.n > r.devices.left() {
		return &RoomError{Devices: true, Room: r.files.room}
	}
	return nil
}

// within reports whether an export of so many bytes fits on a device of so many.
func (x *Export) within(size, device uint64) error {
	if x.Base > device || size > device-x.Base {
		return &BoundsError{Name: x.Name, Base: x.Base, Size: size, Device: device}
	}
	return nil
}
