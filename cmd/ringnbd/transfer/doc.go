// Package transfer copies an export or a file to another, for ringnbd copy.
//
// A plan walks the source's map and cuts it into pieces, data and zeroes. Slots, each with a buffer
// and a request of its own, take pieces from the plan, read, look for zeroes, and write: there are
// as many requests in flight as slots, and the memory of a piece is used for the next as soon as
// the piece is written. If a server allows several connections, the slots share them.
//
//	end.go       what a copy needs of its two ends; places as users write them
//	plan.go      the source's map -> pieces, without the ranges that an earlier run has done
//	slot.go      a piece: read, split into data and zeroes, write
//	local.go     a file or block device; holes by SEEK_HOLE, zeroes by punching
//	writeback.go write-back of a file's written ranges while the copy goes on
//	remote.go    an NBD export; holes by base:allocation, zeroes by WRITE_ZEROES
//	inflow.go    standard input as a source
//	outflow.go   standard output as a destination
//	null.go      null:, a destination that discards
//	ledger.go    which ranges are done
//	state.go     --resume: the ledger on disk
//	identity.go  what identifies an end, and whether it is the same as before
//	verify.go    --verify: both ends read again, and compared
//	line.go      the progress line, and the report in one line
//	run.go       a copy from beginning to end
//
// Invariant: the destination is flushed before a range is reported or recorded as done; nothing is
// written outside the source's size; a piece that failed is not done.
package transfer
