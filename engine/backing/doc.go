// Package backing opens what stands behind an export and says the truth about it: a regular file, a
// block device, or one of the two synthetic devices (null:SIZE reads zeroes and drops writes,
// memory:SIZE is an anonymous mapping) that measure the engine without a disk.
//
// It is control plane: it runs before the first connection and never on the path of a request. It
// answers four questions once, so that the engine never asks them again: how the store is reached
// (descriptor, O_DIRECT, granularity), what it can do (punch, zero, discard), what clients may be
// told (transmission flags and block sizes, see flags.go), and whether it is ours alone (a flock
// and QEMU's locks on the very descriptor that does the I/O, and no mount, loop device or swap).
//
// Invariants:
//   - Looking changes nothing. Check is pure, Prepare only opens and locks, and what Create made is
//     removed by Abandon.
//   - A writable export is held exclusively: no other ringnbd, no other export of this one, no tool
//     of QEMU and no mount has the same file or device, unless the user said that it may.
//   - A capability is advertised only when it was seen to work, or when its file system is known to
//     have it.
//
// Errors are one line: the path and what is wrong. What to do about it depends on the program that
// opens the store: errors.go has the facts, and the program adds the advice.
package backing
