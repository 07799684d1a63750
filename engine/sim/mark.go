// Marks count the situations that a set of seeds must reach. A simulation that never met an
// overlapping write proves nothing about overlapping writes, so the test that runs the seeds fails
// when a mark stays at zero.
//
// Invariant: a mark counts what happened in a run, and changes nothing of it.

package sim

import (
	"fmt"
	"strings"
)

// Mark is a situation that a set of seeds must meet.
type Mark int

// The situations.
const (
	markRecvShort          Mark = iota // a receive brought less than had arrived
	markRecvWaitAllPartial             // a MSG_WAITALL receive ended early with the connection
	markSendShort                      // a send moved less than all
	markSendBlocked                    // a send found a full socket buffer
	markSendToDead                     // a send on a connection that was gone
	markReadShort                      // a disk read was short
	markWriteShort                     // a disk write was short
	markDiskAgain                      // a disk operation said EAGAIN or EINTR
	markDiskBusy                       // zeroing or discarding said EBUSY
	markDiskError                      // a disk operation failed
	markNoSpace                        // a write found a full disk
	markFsyncFailed                    // fsync reported an error
	markSyncFailed                     // the flush of a write with RWF_DSYNC did
	markStickyFlush                    // a flush failed because an earlier one had
	markTruncatedFile                  // the file shrank under its export
	markUnsupported                    // fallocate or discard said EOPNOTSUPP
	markQueueFull                      // the submission queue was full
	markQueueOverflow                  // completions did not fit into their queue
	markEnterPartial                   // Enter took only part of the queue
	markEnterInterrupted               // Enter returned without a completion
	markReordered                      // a completion overtook an older one of its kind
	markHangupHeader                   // a client vanished inside a header
	markHangupPayload                  // a client vanished inside a payload
	markHangupReply                    // a client vanished while replies were being sent
	markHalfClosed                     // a client ended its sending side and kept reading
	markDisconnected                   // a client sent DISC with requests in flight
	markBadMagic                       // a client sent rubbish
	markOversize                       // a client announced a payload beyond the drain limit
	markStalled                        // a client stopped for long in the middle of a payload
	markLulled                         // a client was silent for long between two requests
	markOverlapSame                    // overlapping writes in flight on one connection
	markOverlapCross                   // overlapping writes in flight on two connections
	markNeighbourWrites                // unaligned writes in flight that share a block but no byte
	markReadDuringWrite                // a read answered while a write to its range was in flight
	markReadMixed                      // a read that saw an in-flight write in some sectors only
	markUnalignedWrite                 // an unaligned write succeeded on a disk with blocks
	markLargeRequest                   // a request longer than one piece of the arena
	markRefused                        // an invalid request was refused
	markCrashChecked                   // a crash image was compared
	markCrashLost                      // a crash lost something that it was allowed to lose
	markFlushCovered                   // a flush made answered writes durable
	markFuaCovered                     // a FUA write was durable when answered
	markErrorAnswered                  // an injected disk error became that request's error
	markConnectionStarved              // data waited at a socket on which nothing was armed
	markDrained                        // the engine shut down under load
	markDrainedRestless                // a shutdown ended a connection whose client went on sending
	markDrainedDripping                // a shutdown gave up a payload that came byte by byte
	markCutOff                         // a shutdown ran out of time
	markDivided                        // a request was served in parts
	markNotRegistered                  // a part of the pool could not be registered
	markPlainBuffer                    // a disk operation went without a registered buffer
	markCrowded                        // more connections than a loop has receive buffers
	// a write waited for an earlier write on the same blocks
	markOverlapWaited
	markEdgesRead      // an unaligned write had to read its first or last block
	markMemoryStarved  // a connection waited for memory or a tag
	markEvicted        // a connection that stalled was closed because others waited
	markStageMissing   // a connection that sent much found no large stage
	markChunked        // a reply in chunks of the structured form
	markChunkedExt     // a reply in chunks of the extended form
	markHoleRead       // a READ that was answered with a hole and data
	markHoleWhole      // a READ that was answered with a hole only
	markDataWhole      // a READ with DF
	markErrorText      // an error with a text
	markStatusOne      // BLOCK_STATUS with REQ_ONE
	markStatusMany     // BLOCK_STATUS of several contexts
	markStatusWide     // a status of 64 bits
	markStatusZero     // an extent of zeroes
	markStatusCut      // there was no room for all extents
	markStatusFiltered // BLOCK_STATUS with a payload that chose contexts
	markFilterRefused  // BLOCK_STATUS with a malformed payload
	markPayloadMisused // a payload where none belongs
	// a WRITE with extended headers came without PAYLOAD_LEN, as QEMU sends it, and was done
	markWriteUnflagged
	markLongRange      // a request of 4 GiB or more succeeded
	markLookupLate     // a lookup after its connection had gone
	markStatusUnlooked // nothing was looked up for a client that had parted
	markLookupFailed   // a context failed to tell a status
	markLookupDrained  // a lookup while the engine shut down
	markAdvised        // CACHE reached the disk
	markDiskHung       // a disk hung for some seconds
	markPaused         // the loops were paused for seconds
	markRefusal        // a transfer with RWF_NOWAIT would have blocked
	markOverlapViews   // overlapping writes in flight through two exports of one disk
	// changes of what is served
	markTableChanged      // the operator changed what is served
	markChangeRefused     // a change of an export that has gone was refused
	markPlaceReused       // an export was added in the place of another
	markRemovedInFlight   // an export was removed while requests were in flight
	markRemovedForced     // an export was removed at once
	markSharedStays       // an export was removed, and another of its disk stayed
	markAddedWhileLeaving // an export was added on a disk whose other export was leaving
	markAlteredInFlight   // facts changed while requests were in flight
	markSwitched          // a request was refused for an export that had become read-only
	markGrown             // an export became longer
	markShrunk            // an export became shorter
	markLeftRefused       // a request was refused because its export was leaving
	markAdoptedGone       // a client came for an export that had gone
	markRetired           // the operator ended a connection
	markUnflushed         // an export was removed whose data could not be flushed
	markLayeredCrash      // a layered disk was looked at as after a crash
	markFileLate          // the kernel let go of a file only after a while
	markFileRefused       // the kernel had no memory to change a file's place
	numMarks
)

// markNames has the names of the marks.
var markNames = [numMarks]string{
	"RecvShort", "RecvWaitAllPartial", "SendShort", "SendBlocked", "SendToDead", "ReadShort",
	"WriteShort", "DiskAgain", "DiskBusy", "DiskError", "NoSpace", "FsyncFailed", "SyncFailed",
	"StickyFlush", "TruncatedFile", "Unsupported", "QueueFull", "QueueOverflow", "EnterPartial",
	"EnterInterrupted", "Reordered", "HangupHeader", "HangupPayload", "HangupReply", "HalfClosed",
	"Disconnected", "BadMagic", "Oversize", "Stalled", "Lulled", "OverlapSame", "OverlapCross",
	"NeighbourWrites", "ReadDuringWrite", "ReadMixed", "UnalignedWrite", "LargeRequest", "Refused",
	"CrashChecked", "CrashLost", "FlushCovered", "FuaCovered", "ErrorAnswered", "ConnectionStarved",
	"Drained", "DrainedRestless", "DrainedDripping", "CutOff", "Divided", "NotRegistered",
	"PlainBuffer", "Crowded", "OverlapWaited", "EdgesRead", "MemoryStarved", "Evicted",
	"StageMissing", "Chunked", "ChunkedExt", "HoleRead", "HoleWhole", "DataWhole", "ErrorText",
	"StatusOne", "StatusMany", "StatusWide", "StatusZero", "StatusCut", "StatusFiltered",
	"FilterRefused", "PayloadMisused", "WriteUnflagged", "LongRange", "LookupLate",
	"StatusUnlooked", "LookupFailed", "LookupDrained", "Advised", "DiskHung", "Paused", "Refusal",
	"OverlapViews", "TableChanged", "ChangeRefused", "PlaceReused", "RemovedInFlight",
	"RemovedForced", "SharedStays", "AddedWhileLeaving", "AlteredInFlight", "Switched", "Grown",
	"Shrunk", "LeftRefused", "AdoptedGone", "Retired", "Unflushed", "LayeredCrash", "FileLate",
	"FileRefused",
}

func (m Mark) String() string { return markNames[m] }

// Marks has how often each situation was met.
type Marks [numMarks]uint64

// Add adds the marks of another run.
func (m *Marks) Add(o *Marks) {
	for i := range m {
		m[i] += o[i]
	}
}

// Missing returns the situations that were never met.
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

// mark counts a situation.
func (w *World) mark(m Mark) { w.Marks[m]++ }

// EngineCounts is how often a loop met situations that only the engine sees, by its own counters.
type EngineCounts struct {
	OverlapWaited, Divided, EdgesRead, MemoryStarved, StageMissing, Evicted uint64
}

// AddEngineCounts adds what a loop counted to the marks.
func (w *World) AddEngineCounts(c EngineCounts) {
	w.Marks[markOverlapWaited] += c.OverlapWaited
	w.Marks[markDivided] += c.Divided
	w.Marks[markEdgesRead] += c.EdgesRead
	w.Marks[markMemoryStarved] += c.MemoryStarved
	w.Marks[markStageMissing] += c.StageMissing
	w.Marks[markEvicted] += c.Evicted
}
