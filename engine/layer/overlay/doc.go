// Package overlay is a plan that keeps writes away from an origin: reads come from the origin until
// a block was written, writes go to a sparse file, the top, which also holds a map of what was
// written. The origin is never written.
//
//	format.go   says how a top is laid out, and makes and reads its superblock
//	errors.go   are the reasons for which a top is refused
//	states.go   is the map: two bits for each block
//	rows.go     is sets of rows
//	overlay.go  is the plan: what it needs, rows that wait, what it tells
//	read.go     serves reads, from the runs of the map
//	write.go    serves writes and flushes
//	range.go    serves TRIM and WRITE_ZEROES
//	save.go     brings the map to the top, for the flushes that wait for it
//
// Device 0 is the origin, device 1 the top. A throw-away overlay is the same without a persistent
// map: nothing is saved, and a flush is answered at once.
//
// # The top
//
//	0         two superblocks of 4 KiB, written alternately; the valid one with the higher
//	          sequence counts. Each has a checksum (CRC-32C).
//	8 KiB     the map: two bits for each block, 0 origin, 1 data, 2 zeroes; block b is in byte
//	          b/4, from bit 2*(b%4) on. A hole of the file reads as zeroes: origin.
//	data      (the next multiple of 1 MiB): block b at data + b*block, so that what is contiguous
//	          on the export is contiguous in the top
//
// The block is the largest power of two up to 4096 that divides the origin's size. A superblock
// names the origin by its size and by an identity that the opener chose, so that a top is not
// opened over another origin. A top is emptied by a mark in the superblock: from then on its map
// does not count, and is cleared, however often that is cut.
//
// # Why a crash at any moment is safe
//
// The device of the top keeps what was written before a flush that succeeded. Of what was written
// after it, any sectors (512 bytes) may be there after a crash and any not, in any order.
//
// One rule carries everything: the map on the device never says data for a block whose data is not
// durable. Bits are set in memory when the write of the data is done (write.go). A round of saving
// (save.go) first copies the map's changed pages, then flushes the top, which makes durable the
// data of every bit in the copy, then writes the copy, then flushes again. A bit that is set later
// is not in the copy, and waits for the next round.
//
// A page of the map that is torn by a crash is a mixture of sectors of the old and the new page.
// The two bits of a block are in one byte, so each block has its old or its new state. Both are
// right, because what was not flushed may be there or not:
//
//   - origin to data, origin to zeroes, zeroes to data: in the old state the top's data of the
//     block is not looked at, and the block reads as before the write. The new state was saved
//     after the data was durable.
//   - data to zeroes: in the old state the block reads from the top, where its data still is, or,
//     as it was punched meanwhile, zeroes. Both are contents that a flush had not yet settled.
//   - data to data, by way of zeroes or not: the data is written in place. In the old state the
//     block reads as what is in place: a mixture, by sectors, of old and new data, as on every disk
//     whose write was cut. The map is not concerned.
//
// So the map needs no checksum for torn writes, and a checksum of a page would do harm: it would
// turn a page that is torn and right into a page that is lost. The first write into a block is even
// atomic: it is in place, as a whole, when the map says data, and not there before.
//
// A block goes to zeroes in memory before its data is punched: zeroes are right from the moment
// that the request is there, whatever becomes of the punch, which only frees space. The row is done
// after the punch is back: a write of the block that is admitted after it cannot be punched. For
// WRITE_ZEROES that is to keep space (NoHole) zeroes are written into the top, and the bits set to
// data when that is done.
//
// What fails: a write that fails on the top fails that request alone, and changes no state. A write
// of the map that found no space fails the flushes that waited for it; the pages stay changed, and
// the next round writes them again. Any other failed write of the map, and every failed flush, is
// final: no flush succeeds until the top is opened again, because what the device kept is unknown.
//
// # Memory
//
// The map is two bits for a block: 64 MiB of address space for 1 TiB. Memory is used where blocks
// were written only, 4 KiB for each 64 MiB of the disk: a page of the map that has no bit set is
// not even looked at. Beside it are three bits for each page: 6 KiB for 1 TiB.
package overlay
