// Package trial is a pure world for plans: it drives any tree of layer.Plan through the contract of
// the seam, over disks that forget, and knows what every sector may hold at every moment. No loop,
// no kernel and no clock is in it. Everything follows from a seed: a failure names its seed, and
// the same seed repeats the run.
//
//	world.go   the seed, the order in which things happen, crashes
//	disk.go    disks with a volatile cache that is lost by sectors
//	rows.go    rows and waves, and whether a plan keeps its side of the contract
//	client.go  random requests, of which overlapping writes never run together
//	model.go   what each sector may hold
//	enumerate.go  every order and every crash of a short history
//
// # Disks
//
// A write is done some time after it was asked for, or fails with any part of it written. A flush
// makes durable what was done before it was asked for. In a crash every sector of 512 bytes keeps
// its durable content or any later one, whatever the other sectors keep; how often it does is drawn
// for each crash, and apart for the front of a disk and the rest of it. A flush that failed fails
// for ever, as the engine's leaf does.
//
// # What is checked
//
// Of plans: that a wave has segments, inside their devices, aligned, in the row's own memory, not
// overlapping; that no two writes of one place are out at once; that nothing writes to a disk that
// is read-only; that memory which is being written to a disk is left alone; that Next names rows
// that wait, and all of them in the end; that a step follows a step only so often.
//
// Of contents: a sector reads as the last write that was done before the read began, or as one that
// was under way; after a crash as the last durable write, or a later one. What was a whole block
// when the plan was made, and not in a place of its own, stays whole.
package trial
