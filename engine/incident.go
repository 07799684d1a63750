// Incidents: what a loop reports beside its counters, a disk that failed, and connections that have
// ended. A loop neither logs nor waits for the log: it fills a slot of a ring that was made before,
// or hands back the row that came with the connection, and a goroutine of the control plane reads
// them.
//
// Invariant: no end of a connection is lost, because the row that says so was made when the
// connection was adopted; incidents that find no free slot are counted. The loop writes head and
// the slots from it on, the control plane writes tail; neither writes the other's words.

package engine

import (
	"sync/atomic"
	"time"

	"ringnbd/proto"
)

// IncidentKind says what went wrong.
type IncidentKind uint8

const (
	// the kernel answered a request's disk operation with an error
	DiskFailed IncidentKind = iota
	DiskEnded               // the file has become shorter than the export
	// written data may be lost; no later flush of the device succeeds
	FlushFailed
	// a request that wanted a flush was refused, because an earlier flush has failed
	FlushRefused
	// a lookup failed; the client was told that all is data
	LookupFailed
	// a loop's memory could not all be registered; Export and Command mean nothing
	MemoryRefused
)

// Incident is one event that an administrator should hear of.
type Incident struct {
	Kind    IncidentKind
	Command uint16 // of the client
	Export  ID
	Errno   int32  // what the kernel said, positive; 0: nothing
	Offset  uint64 // bytes, of the client's request
	Length  uint64
	Client  *Client // nil: it concerns no client, or the caller of Adopt has given none
	// of a planned device: the device below that failed; else nil
	Leaf *Device
	Own  bool // a plan's own work failed: Command, Offset and Length mean nothing
}

// Traffic counts what went over one connection, or to one export. Bytes are payload bytes.
type Traffic struct {
	Reads      uint64 // requests
	Writes     uint64
	Others     uint64 // requests of all other kinds
	Errors     uint64 // replies with an error
	BytesRead  uint64
	BytesWrite uint64
}

func (t *Traffic) add(o *Traffic) {
	t.Reads += o.Reads
	t.Writes += o.Writes
	t.Others += o.Others
	t.Errors += o.Errors
	t.BytesRead += o.BytesRead
	t.BytesWrite += o.BytesWrite
}

// Requests adds up the requests of all kinds.
func (t *Traffic) Requests() uint64 { return t.Reads + t.Writes + t.Others }

// Client is one connection as the control plane knows it. It belongs to the loop from Adopt until
// Reports.Ended returns it.
type Client struct {
	Number uint64 // of the session, to find its lines in a log
	Peer   string
	Export ID
	Began  time.Time

	Traffic Traffic // of the whole connection, once it has ended
	Why     CloseReason

	next    *Client // in the stack of clients that have left
	loop    *loop   // that has adopted it
	retired *mail   // letters that want it to end, linked through also
}

// Reports receives incidents and ends of connections. The methods are called one at a time, by a
// goroutine of the engine, and may block. They own the Client that they are given.
type Reports interface {
	Incident(i Incident)
	Lost(incidents uint64) // that many more found no slot
	Ended(c *Client)
}

// incidentSlots is how many incidents wait for the control plane: a power of two. A disk that fails
// makes more than an administrator wants to read.
const incidentSlots = 64

// incidents is the ring of one loop.
type incidents struct {
	head  atomic.Uint32
	tail  atomic.Uint32
	lost  atomic.Uint64
	slots [incidentSlots]Incident
}

// reporter is a loop's side of its reports.
type reporter struct {
	incidents incidents
	ended     atomic.Pointer[Client] // stack of clients that have left
	clients   []*Client              // by connection; nil: its end is not reported
	ring      func()                 // wakes the control plane; nil: it wants no reports
	rung      atomic.Bool            // the control plane was woken and has not read yet
}

// put fills a slot, or counts the incident as lost.
func (r *incidents) put(i Incident) {
	head := r.head.Load()
	if head-r.tail.Load() == incidentSlots {
		r.lost.Add(1)
		return
	}
	r.slots[head&(incidentSlots-1)] = i
	r.head.Store(head + 1)
}

// take passes on what is in the ring.
func (r *incidents) take(to Reports) {
	for tail := r.tail.Load(); tail != r.head.Load(); tail++ {
		i := r.slots[tail&(incidentSlots-1)]
		r.tail.Store(tail + 1)
		to.Incident(i)
	}
	if n := r.lost.Swap(0); n > 0 {
		to.Lost(n)
	}
}

// incident reports what became of a request, once: it may have many segments, and the first that
// fails sets errno.
func (l *loop) incident(kind IncidentKind, row *tag, errno int32) {
	if row.errno != proto.Success && kind != FlushFailed {
		return
	}
	leaf := (*Device)(nil)
	if row.portion == portionRow {
		leaf = l.deviceOf(row)
		if row.line == none {
			l.incidentBelow(kind, leaf, errno)
			return
		}
		row = &l.tags[row.line]
	}
	c := &l.conns[row.conn]
	r := &row.Request
	if row.portion != portionWhole {
		r = &c.divided.Request
	}
	l.tally[c.export].diskErrors++
	l.incidents.put(Incident{Kind: kind, Command: r.Command, Export: l.idOf(c), Errno: errno,
		Offset: r.Offset, Length: r.Length,
		Client: l.clients[row.conn], Leaf: leaf})
	l.report()
}

// idOf is the ID of a connection's export.
func (l *loop) idOf(c *conn) ID { return idOf(c.export, l.exports[c.export].generation) }

// incidentBelow reports what became of a plan's own work.
func (l *loop) incidentBelow(kind IncidentKind, leaf *Device, errno int32) {
	for i := range l.exports {
		if x := &l.exports[i]; x.device != nil && x.device.stands(leaf) {
			l.tally[i].diskErrors++
			l.incidents.put(Incident{Kind: kind, Export: idOf(uint32(i), x.generation),
				Errno: errno, Leaf: leaf, Own: true})
			l.report()
			return
		}
	}
}

// stands reports whether a device is another, or stands on it.
func (d *Device) stands(on *Device) bool {
	for _, below := range d.Below {
		if below.stands(on) {
			return true
		}
	}
	return d == on
}

// report wakes the control plane, unless it was woken and has not read yet.
func (l *loop) report() {
	if l.ring != nil && !l.rung.Swap(true) {
		l.ring()
	}
}

// reportEnd hands back the row of a connection that has ended.
func (l *loop) reportEnd(i uint32) {
	c, client := &l.conns[i], l.clients[i]
	l.tally[c.export].add(&c.traffic)
	if client == nil {
		return
	}
	l.clients[i] = nil
	l.retired(client)
	client.Traffic, client.Why = c.traffic, c.reason
	for {
		client.next = l.ended.Load()
		if l.ended.CompareAndSwap(client.next, client) {
			break
		}
	}
	l.report()
}
