// Counters are plain words that one loop writes; a copy leaves the loop by mail.
//
// Invariant: nothing on the path of a request is atomic for their sake. What a connection has done
// is in its row until it ends, and in its export's tally afterwards.

package engine

import "ringnbd/proto"

// CloseReason says why a connection ended; every close is counted under exactly one.
type CloseReason uint8

const (
	CloseDisconnect CloseReason = iota // the client sent NBD_CMD_DISC
	CloseHangup                        // the client closed between two requests
	CloseTruncated                     // the client closed inside a request
	CloseReceive                       // receiving failed (reset by peer, timeout)
	CloseSend                          // sending failed
	// a request without NBD's magic: the stream cannot be trusted any more
	CloseMagic
	CloseOversize // a refused payload too long to be worth draining
	CloseStalled  // held memory without moving while others waited for it
	CloseShutdown // we are shutting down
	CloseForced   // the shutdown timeout ran out
	CloseRemoved  // the export was removed
	CloseRetired  // an administrator wanted it to end
	// the disk failed after the beginning of a READ's simple reply was sent, see parts.go
	CloseTorn
	closeReasons
)

var closeNames = [closeReasons]string{"disconnect", "hangup", "truncated", "receive", "send",
	"magic", "oversize", "stalled", "shutdown", "forced", "removed", "retired", "torn"}

func (r CloseReason) String() string { return closeNames[r] }

// ours reports whether a connection is ended in order and by our will, so that its client is to get
// all replies.
func (r CloseReason) ours() bool {
	return r == CloseShutdown || r == CloseRemoved || r == CloseRetired
}

// commandSlots covers the commands of the protocol, 0 to 8; unknown commands are counted in slot 9.
const commandSlots = 10

// Counters is what one loop has counted, or all of them. Bytes are payload bytes. Errors, bytes and
// Exports are added up from connections when they are asked for.
type Counters struct {
	Requests   [commandSlots]uint64 // by command
	Errors     uint64               // replies with an error
	BytesRead  uint64
	BytesWrite uint64
	Turns      uint64
	Paused     uint64 // times that a loop did not run although it was due, see patience.go
	Sends      uint64 // SENDMSG operations; replies per send is the batching
	Receives   uint64
	Unaligned  uint64 // writes that had to read their first or last block first
	Divided    uint64 // requests that were served in parts
	Overlaps   uint64 // writes that waited for an earlier one on the same blocks
	Starved    uint64 // times a connection waited for memory or a tag
	Stageless  uint64 // times a connection found no large stage
	Steps      uint64 // times a plan was asked what to do next
	RowsShort  uint64 // times a planned device, or one below it, found no row
	RowsLeft   uint64 // turns that left plans to be asked to the next turn
	StagesLent uint64 // large stages that connections hold now
	// Parts of the pools that were registered with io_uring when a disk operation first needed
	// them, and those that could not be.
	Registered    uint64
	NotRegistered uint64
	Opened        uint64
	Closed        [closeReasons]uint64
	Exports       []ExportCounters // of those that are served, in order of place
}

// newCounters makes counters with a row for each place of a table.
func newCounters(t *table) *Counters {
	return &Counters{Exports: make([]ExportCounters, len(t.exports))}
}

// ExportCounters is what was counted for one export.
type ExportCounters struct {
	ID   ID
	Name string
	Traffic
	Connections uint64 // now
	// requests that the disk failed, or could not be served because of such a failure
	DiskErrors  uint64
	FlushFailed bool // a flush has failed, and so do all others until the device is opened again
}

// counts is what one loop has counted.
type counts struct {
	counters Counters
	tally    []exportTally // by export: of connections that have ended
}

// exportTally is what a loop has counted of an export, without the connections that are there.
type exportTally struct {
	Traffic
	diskErrors uint64
}

// count counts a request that was taken in. It is on the path of every request, so a connection
// counts alone, in the row that is in use; when its numbers are wanted they are added up
// (countOut), and when it ends (part).
func (c *conn) count(r *proto.Request) {
	switch r.Command {
	case proto.CmdRead:
		c.traffic.Reads++
		c.traffic.BytesRead += r.Length
	case proto.CmdWrite:
		c.traffic.Writes++
		c.traffic.BytesWrite += r.Length
	default:
		c.traffic.Others++
	}
}

// countOut copies a loop's counters to a Counters whose Exports has a row for each place.
func (l *loop) countOut(to *Counters) {
	exports := to.Exports
	*to = l.counters
	to.Exports = exports
	to.StagesLent = uint64(l.layout.stages - len(l.freeStages))
	for i := range exports {
		exports[i].Traffic, exports[i].DiskErrors = l.tally[i].Traffic, l.tally[i].diskErrors
	}
	for i := range l.conns {
		if c := &l.conns[i]; c.state != connFree {
			exports[c.export].Connections++
			exports[c.export].Traffic.add(&c.traffic)
		}
	}
	for i := range exports {
		to.Errors += exports[i].Errors
		to.BytesRead += exports[i].BytesRead
		to.BytesWrite += exports[i].BytesWrite
	}
}

// add sums two loops.
func (c *Counters) add(o *Counters) {
	for i := range c.Requests {
		c.Requests[i] += o.Requests[i]
	}
	for i := range c.Closed {
		c.Closed[i] += o.Closed[i]
	}
	c.Errors += o.Errors
	c.BytesRead += o.BytesRead
	c.BytesWrite += o.BytesWrite
	c.Turns += o.Turns
	c.Paused += o.Paused
	c.Sends += o.Sends
	c.Receives += o.Receives
	c.Unaligned += o.Unaligned
	c.Divided += o.Divided
	c.Overlaps += o.Overlaps
	c.Starved += o.Starved
	c.Stageless += o.Stageless
	c.Steps += o.Steps
	c.RowsShort += o.RowsShort
	c.RowsLeft += o.RowsLeft
	c.StagesLent += o.StagesLent
	c.Registered += o.Registered
	c.NotRegistered += o.NotRegistered
	c.Opened += o.Opened
	for i := range o.Exports {
		e := &c.Exports[i]
		e.Traffic.add(&o.Exports[i].Traffic)
		e.Connections += o.Exports[i].Connections
		e.DiskErrors += o.Exports[i].DiskErrors
	}
}
