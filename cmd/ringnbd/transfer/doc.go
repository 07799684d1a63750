// Package transfer copies an export or a file to another: what ringnbd copy does.
//
// A plan walks the source's map and cuts it into pieces, data and zeroes. Slots, each with a buffer
// and a request of its own, take pieces from the plan, read, look for zeroes, and write: so many
// requests are in flight as there are slots, and a piece's memory is used for the next as soon as
// it was written. Where a server allows several connections, the slots share them.
//
//	plan.go    the source's map -> pieces, without what an earlier run has done
//	slot.go    a piece: read, split into data and zeroes, write
//	local.go   a file or block device; holes by SEEK_HOLE, zeroes by punching
//	wake.go    the way of what was written to the disk, while the copy goes on
//	remote.go  an NBD export; holes by base:allocation, zeroes by WRITE_ZEROES
//	ledger.go  which ranges are done
//	state.go   --resume: the ledger on disk
//	identity.go what an end is, and whether it still is
//	verify.go  --verify: both read again, and compared
//	run.go     all of it in order
//
// Invariants: the destination was flushed before anything is told or noted as done; nothing is
// written outside the source's size; a piece that failed is not done.
package transfer
