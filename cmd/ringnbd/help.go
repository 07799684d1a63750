// The manual, as --help prints it.
//
// Invariant: every example works as it stands, given the file or device that it names.

package main

const rootHelp = `ringnbd serves disk images and block devices over NBD, the Network Block Device protocol, through io_uring.

Any NBD client can use them: qemu, libnbd (nbdinfo, nbdcopy, nbdsh), fio, nbdkit, and the kernel's own (nbd-client).`

const serveHelp = `Serve disk images and block devices over NBD.

PATH is a regular file, a block device, or a synthetic export for measuring: null:SIZE reads zeroes and drops writes, memory:SIZE is forgotten at
exit. A single PATH is the default export, which clients get who ask for no name; several are named after their files. Exports of other names, or
with a description, are given by --export. PORT before the first PATH is short for --listen localhost:PORT.

When connections are accepted, one line appears on standard output: "ready" and a URI for every address and export. Under systemd (Type=notify) the
manager is told as well. Log lines go to standard error.

Sizes are bytes, or have a unit: 10G, 512MiB, 1.5T. Units are powers of 1024 however they are spelled. Times have one as well: 10s, 2m.

A writable file or device is locked, so that no second ringnbd serves it; a device that is mounted is refused. Read-only exports may share.

The engine has one event loop per core. All memory for requests is set aside at start (--memory) and never grows: clients that ask for more wait.
The memory is locked for the disk; without the CAP_IPC_LOCK capability, RLIMIT_MEMLOCK (ulimit -l) must allow that much.

SIGTERM or SIGINT: no new connections, requests in flight are answered and new ones refused, everything is flushed to the disk; a second signal ends
the program at once.

Exit status: 0 after an orderly shutdown, 1 for an error or a shutdown that had to cut connections or could not flush, 2 for a wrong command line.`

const serveExamples = `  # an image on localhost:10809; qemu-img info nbd://localhost
  ringnbd serve disk.img

  # the same, made first: sparse, 10 GiB
  ringnbd serve --create 10G disk.img

  # a block device on port 1234
  ringnbd serve 1234 /dev/sdb1

  # on a Unix socket, and for other machines
  ringnbd serve --listen unix:/run/nbd.sock --listen 0.0.0.0:10809 disk.img

  # several exports, one of them read-only
  ringnbd serve --export boot=boot.img,ro,description=installer --export data=/dev/vg0/data

  # nothing but the engine, to measure it
  ringnbd serve --listen unix:/tmp/null.sock null:1T`
