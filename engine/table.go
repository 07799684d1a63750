// The table says what is served: the exports, and the devices that hold their bytes.
//
// Invariant: a table never changes after it was made, and every loop reads the same one. An export
// has a name, facts and contexts, which clients are told of; it is what connections, counters and
// shares of memory belong to. A device is what the loops work on: its requests, flushes, slices and
// claims have its index, from whatever export they come, so that two exports of one device are
// ordered and flushed as one.
//
// Shares of memory (ledger.go) and lines (queue.go) are by export on purpose: they divide what a
// loop has between groups of clients, and a client knows the export that it asked for. If two
// exports have the same device, and it hangs, each can hold a share; two devices that hang could
// hold the same.

package engine

// table is what is served.
type table struct {
	exports []Export
	devices []*Device // each once
}

// newTable makes the table of some exports, which it copies.
func newTable(exports []Export) *table {
	t := &table{exports: append([]Export(nil), exports...)}
	places := make(map[*Device]uint32, len(exports))
	for i := range t.exports {
		x := &t.exports[i]
		place, known := places[x.Device]
		if !known {
			place = uint32(len(t.devices))
			places[x.Device] = place
			t.devices = append(t.devices, x.Device)
		}
		x.device = place
	}
	return t
}

// descriptors returns what is to be registered with every ring: deviceRow.file is an index of it.
func (t *table) descriptors() []int32 {
	var fds []int32
	for _, d := range t.devices {
		if d.FD >= 0 {
			fds = append(fds, int32(d.FD))
		}
	}
	return fds
}

// newDeviceTable makes what one loop keeps about the devices, with nothing in flight.
func (t *table) newDeviceTable() deviceTable {
	rows := make([]deviceRow, len(t.devices))
	file := uint32(0)
	for i, d := range t.devices {
		rows[i] = deviceRow{device: d, file: none, staff: staff{parked: empty},
			slicer:  slicer{slicing: empty},
			flusher: flusher{flushing: empty, waiting: empty}}
		if d.FD >= 0 {
			rows[i].file = file
			file++
		}
	}
	return deviceTable{devices: rows, blocked: make([]uint32, 0, len(rows))}
}
