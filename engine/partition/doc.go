// Package partition reads partition tables: GPT, and MBR with logical partitions. It finds the same
// partitions, under the same numbers, as the Linux kernel finds on the same disk, with these
// differences: a GPT whose primary table is broken is read from its backup; an extended partition,
// of which the kernel shows 1 KiB, only tells where its logical partitions are; disk labels inside
// a partition (BSD, Solaris, Minix, UnixWare) are not looked for; and a table that makes no sense
// is refused, while the kernel shows what it can of it.
//
//	table.go  the table of a disk: its kind, its partitions, and which of them a selector names
//	gpt.go    GPT: headers, CRC32, entries, the backup
//	mbr.go    MBR: primary partitions, the chain of logical ones, what only looks like an MBR
//	error.go  why there is no table, or why it cannot be used
//
// Nothing here does I/O of its own, or knows where a disk comes from: tests and the fuzzer hand in
// bytes.
//
// Invariants:
//   - Every partition of a Table lies within the disk, has at least one sector, and shares no byte
//     with another, nor with the table itself.
//   - Reading ends, and reads a bounded amount, whatever is on the disk.
package partition
