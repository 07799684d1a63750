// Package kernel boots a Linux kernel under QEMU's software emulation and lets it use ringnbd as
// real machines do: through nbd.ko, as the root disk of a virtual machine, and with ringnbd itself
// on a kernel that is older than the host's. The tests of this package are `make test-kernel`.
//
//	host                                       guest (Debian's kernel package, unpacked)
//	ringnbd  ◄── loopback ◄── qemu (slirp) ◄── nbd.ko ◄── ext4, xfs, swap, fio
//	the test ──► stdin of qemu ─► ttyS1 ─► init ─► a script of testdata/
//	the test ◄── stdout of qemu ◄ ttyS1 ◄─ one line with the result
//	console.log ◄──────────────── ttyS0 ◄─ all output of the kernel and the scripts
//
//	debian.go    the kernel package: found, downloaded, unpacked, kept
//	modules.go   which modules a guest needs, and in which order
//	archive.go   programs with their shared libraries, and the archive format of an initramfs
//	initramfs.go the files that a guest starts with
//	machine.go   a running guest: commands, answers, resets, its end
//
// Nothing here needs root, KVM, or a network except for what apt downloads once.
//
// Invariant: no qemu outlives the test that started it.
package kernel
