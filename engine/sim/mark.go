// Marks count the situations that a set of seeds is supposed to reach. A simulation that never met
// an overlapping write proves nothing about overlapping writes, so the test that runs the seeds
// fails when a mark stays at zero.

package sim

import (
	"fmt"
	"strings"
)

// Mark is one situation worth meeting.
type Mark int

// The situations.
const (
	RecvShort          Mark = iota // a receive brought less than was there
	RecvWaitAllPartial             // a MSG_WAITALL receive ended early because the peer went away
	SendShort                      // a send moved less than all
	SendBlocked                    // a send met a full socket buffer
	SendToDead                     // a send met a connection that was gone
	ReadShort                      // a disk read was short
	WriteShort                     // a disk write was short
	DiskAgain                      // a disk operation said EAGAIN or EINTR
	DiskBusy                       // zeroing or discarding said EBUSY
	DiskError                      // a disk operation failed
	NoSpace                        // a write met a full disk
	FsyncFailed                    // fsync reported an error
	SyncFailed                     // the flush behind a write with RWF_DSYNC did
	StickyFlush                    // a flush failed because an earlier one had
	TruncatedFile                  // the file shrank under its export
	Unsupported                    // fallocate or discard said EOPNOTSUPP
	QueueFull                      // the submission queue was full
	QueueOverflow                  // completions did not fit into their queue
	EnterPartial                   // Enter took only a part of the queue
	EnterInterrupted               // Enter came back empty-handed
	Reordered                      // a completion overtook an older one of its kind
	HangupHeader                   // a client vanished inside a header
	HangupPayload                  // a client vanished inside a payload
	HangupReply                    // a client vanished with replies under way
	HalfClosed                     // a client ended its sending side and kept reading
	Disconnected                   // a client said DISC with requests in flight
	BadMagic                       // a client sent rubbish
	Oversize                       // a client announced a payload beyond the drain limit
	Stalled                        // a client stopped in the middle of a payload for a long time
	Lulled                         // a client was silent for long between two requests
	OverlapSame                    // overlapping writes in flight on one connection
	OverlapCross                   // overlapping writes in flight on two connections
	NeighbourWrites                // unaligned writes in flight that share a block but no byte
	ReadDuringWrite                // a read answered while a write to its range was in flight
	ReadMixed                      // a read that saw an in-flight write in some sectors only
	UnalignedWrite                 // an unaligned write succeeded on a disk with blocks
	LargeRequest                   // a request longer than one piece of the arena
	Refused                        // an invalid request was refused
	CrashChecked                   // a crash image was compared
	CrashLost                      // a crash lost something that it was allowed to lose
	FlushCovered                   // a flush made answered writes durable
	FuaCovered                     // a FUA write was durable when answered
	ErrorAnswered                  // an injected disk error became that request's error
	ConnectionStarved              // data waited at a socket on which nothing was armed
	Drained                        // the engine shut down under load
	DrainedRestless                // and ended a connection whose client went on sending
	DrainedDripping                // and gave up a request whose payload did not come to its end
	CutOff                         // and lost patience
	Divided                        // by the engine's own count: a request was served in parts
	NotRegistered                  // a part of the pool could not be registered
	PlainBuffer                    // a disk operation went without a registered buffer
	Crowded                        // more connections than a loop has receive buffers
	// by the engine's own count: a write waited for an earlier one on the same blocks
	OverlapWaited
	EdgesRead      // an unaligned write read its first or last block first
	MemoryStarved  // a connection waited for memory or a tag
	Evicted        // a connection that stalled was closed because others waited
	StageMissing   // a connection that sent much found no large stage left
	Chunked        // a reply in chunks of the structured form
	ChunkedExt     // and of the extended one
	HoleRead       // a READ that left something out
	HoleWhole      // a READ that was nothing but zeroes
	DataWhole      // a READ with DF
	ErrorText      // an error with a text
	StatusOne      // BLOCK_STATUS with REQ_ONE
	StatusMany     // of several contexts
	StatusWide     // a status of 64 bits
	StatusZero     // something was called zero
	StatusCut      // there was no room for all extents
	StatusFiltered // the payload chose contexts
	FilterRefused  // and was malformed
	PayloadMisused // a payload where none belongs
	// a WRITE with extended headers came without PAYLOAD_LEN, as QEMU sends it, and was done
	WriteUnflagged
	LongRange      // a request of 4 GiB or more succeeded
	LookupLate     // a lookup after its connection had died
	StatusUnlooked // nothing was looked up for a client that had said its last word
	LookupFailed   // a context did not know
	LookupDrained  // a lookup while the engine shut down
	Advised        // CACHE reached the disk
	DiskHung       // a disk did nothing for some seconds
	Paused         // the process was stopped for seconds
	Refusal        // a transfer that was tried could not be done without waiting
	marks
)

var markNames = [marks]string{
	"RecvShort", "RecvWaitAllPartial", "SendShort", "SendBlocked", "SendToDead", "ReadShort",
	"WriteShort", "DiskAgain", "DiskBusy", "DiskError", "NoSpace",
	"FsyncFailed", "SyncFailed", "StickyFlush", "TruncatedFile", "Unsupported", "QueueFull",
	"QueueOverflow", "EnterPartial", "EnterInterrupted", "Reordered",
	"HangupHeader", "HangupPayload", "HangupReply", "HalfClosed", "Disconnected", "BadMagic",
	"Oversize", "Stalled", "Lulled", "OverlapSame", "OverlapCross",
	"NeighbourWrites", "ReadDuringWrite", "ReadMixed", "UnalignedWrite", "LargeRequest", "Refused",
	"CrashChecked", "CrashLost", "FlushCovered",
	"FuaCovered", "ErrorAnswered", "ConnectionStarved", "Drained", "DrainedRestless",
	"DrainedDripping", "CutOff", "Divided", "NotRegistered", "PlainBuffer", "Crowded",
	"OverlapWaited", "EdgesRead", "MemoryStarved",
	"Evicted", "StageMissing", "Chunked", "ChunkedExt", "HoleRead", "HoleWhole", "DataWhole",
	"ErrorText", "StatusOne", "StatusMany", "StatusWide", "StatusZero",
	"StatusCut", "StatusFiltered", "FilterRefused", "PayloadMisused", "WriteUnflagged", "LongRange",
	"LookupLate", "StatusUnlooked", "LookupFailed", "LookupDrained", "Advised", "DiskHung",
	"Paused", "Refusal",
}

func (m Mark) String() string { return markNames[m] }

// Marks holds how often each situation was met.
type Marks [marks]uint64

// Add sums the marks of another run.
func (m *Marks) Add(o *Marks) {
	for i := range m {
		m[i] += o[i]
	}
}

// Missing lists the situations that were never met.
func (m *Marks) Missing() (missing []Mark) {
	for i, n := range m {
		if n == 0 {
			missing = append(missing, Mark(i))
		}
	}
	return missing
}

func (m *Marks) String() string {
	var b strings.Builder
	for i, n := range m {
		fmt.Fprintf(&b, "%s=%d ", Mark(i), n)
	}
	return strings.TrimSpace(b.String())
}

func (w *World) mark(m Mark) { w.Marks[m]++ }
