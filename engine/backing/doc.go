// Package backing opens the store of an export and finds out what it can do: a regular file, a
// block device, or one of the two synthetic devices (null:SIZE reads zeroes and drops writes,
// memory:SIZE is an anonymous mapping) that measure the engine without a disk.
//
//	spec.go        says what is asked for, and checks its text
//	open.go        opens in two steps: what exists, then what is to be made
//	stores.go      keeps the stores that are open, each once, for all exports that show them
//	partition.go   reads partitions: how they are written, and the range that each shows
//	path.go        opens, locks and measures regular files and block devices
//	file.go        measures a regular file: O_DIRECT, fallocate
//	block.go       measures a block device by its request queue
//	layered.go     opens the parts of a tree, such as an overlay over its origin
//	top.go         is the file of an overlay: made, checked, its map loaded
//	fingerprint.go tells an origin from others
//	outline.go     tells what a tree promises and needs, without opening it for use
//	thrown.go      makes throw-away overlays, one for each client
//	commit.go      empties an overlay, into its origin or for good
//	depth.go       answers BLOCK_STATUS for an overlay
//	flags.go       decides what clients are told: flags and block sizes
//	alter.go       changes an export that stays open: size, read-only, description
//	allocation.go  answers BLOCK_STATUS: holes, zeroes, data
//	claim.go       locks a store, and checks who has it already
//	lock.go        keeps servers apart by a flock
//	imagelock.go   takes QEMU's locks, and sees them
//	occupant.go    finds what the kernel does with a store: mounts, swap, loop devices
//	format.go      recognises images that are not raw disks
//	making.go      refuses names for which no file is made
//	glance.go      looks at stores without a lock
//	reach.go       waits for storage in a child process
//	await.go       waits for a call that may never return
//	errors.go      has the errors, as facts
//
// It is control plane: it runs before the first connection and never on the path of a request. It
// answers four questions once, so that the engine never asks them again: how the store is reached
// (descriptor, O_DIRECT, granularity), what it can do (punch, zero, discard), what clients may be
// told (transmission flags and block sizes), and whether it has another user (a flock and QEMU's
// locks on the very descriptor that does the I/O, and no mount, loop device or swap).
//
// Invariants:
//   - Looking changes nothing. Check is pure, Prepare only opens and locks, and what Create made is
//     removed by Abandon.
//   - A writable export is held exclusively: no other ringnbd, no tool of QEMU and no mount has the
//     same file or device, unless the user allows it; and no other export of this one shows the
//     same bytes, but for a disk and its partitions, which share one descriptor.
//   - A capability is advertised only when it was seen to work, or when its file system is known to
//     have it.
//
// Errors are one line: the path and what is wrong. What to do about it depends on the program that
// opens the store: errors.go has the facts, and the program adds the advice.
package backing
