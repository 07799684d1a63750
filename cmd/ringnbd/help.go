// The manual, as --help prints it.
//
// Invariant: every example works as it stands, given the file or device that it names.

package main

const rootHelp = `ringnbd serves disk images and block devices over NBD, the Network Block Device protocol, through io_uring.

Any NBD client can use them: qemu, libnbd (nbdinfo, nbdcopy, nbdsh), fio, nbdkit, and the kernel's own (nbd-client).

The other commands work with every NBD server: info looks at its exports, copy moves disks to and from it, bench measures it, conform holds it to the protocol.
They take the URIs nbd://HOST[:PORT]/EXPORT and nbd+unix:///EXPORT?socket=PATH, and
QEMU's nbd:HOST:PORT[:exportname=NAME] and nbd:unix:PATH[:exportname=NAME].`

const rootExamples = `  ringnbd serve disk.img
  ringnbd info nbd://localhost
  ringnbd copy nbd://localhost back.img`

const serveHelp = `Serve disk images and block devices over NBD.

PATH is a regular file, a block device, or a synthetic export for measuring: null:SIZE reads zeroes and drops writes, memory:SIZE is forgotten at
exit. A single PATH is the default export, which clients get who ask for no name; several are named after their files. Exports of other names, or
with a description, are given by --export. PORT before the first PATH is short for --listen localhost:PORT.

Names and descriptions are UTF-8 in any language, of at most 4096 bytes, and names are compared byte by byte. In --export NAME=PATH, a = that belongs
to NAME is written twice and everything else in it as it is (commas and slashes too); a comma that belongs to PATH or TEXT is written twice; a PATH that begins with = is
written ./=PATH.

--listen takes a name, which is all its addresses that this machine has, an IPv4 address (0.0.0.0: all interfaces), an IPv6 address in brackets
([::]: all interfaces), or unix:PATH. The mode of a Unix socket's file follows the umask: with 077 the user alone can connect, with 0 everybody; with the
usual 022 only the user and root. The file is removed at the end, unless it is another server's by then.

Sockets that are handed to it (systemd's socket activation; nbdinfo [ ringnbd serve PATH ]) are served, and only those unless --listen is given; the line
that follows is not printed then.

When connections are accepted, one line appears on standard output: "ready" and a URI for every address and export. Under systemd (Type=notify) the
manager is told as well. Log lines go to standard error; when nobody reads them
they are dropped, counted, and the server goes on. If all sockets were handed to
it and standard error is a terminal, it says warnings and errors only (else -v).

--oldstyle is for clients from before 2011, such as nbd-client beside Linux 2.6: they are told the size and are in, and cannot say which export they want, so
each such address leads to one (without =EXPORT: to the default export). This handshake knows no TLS and no negotiation, and there is no access control but who can
reach the address: leave it off unless such a client is there, and keep it on a network you trust. When the server is full, such a client only sees its
connection closed. A path that holds a = is written with two. Addresses for other clients (--listen) are not affected. Its URI comes last in the ready line.

Sizes are bytes, or have a unit from K to E: 10G, 512MiB, 1.5T. Units are powers of 1024 however
they are spelled. Times are seconds, or have a unit: 500ms, 10s, 2m.

An image must be raw: its bytes are the disk's. One that looks like another format
(qcow2, QED, VMDK, VDI, VHD, VHDX, Parallels, DMG, or a compressed file) is refused,
read-only as well. --format raw, or format=raw in --export, says that it is raw all
the same. Say it for every disk that is made blank and written by others, such as a
VM's: a guest can write the header of any format to its own disk, and the next start
would be refused. The size may be any: what has no whole sectors, or is empty, is
served to the byte, through the page cache if O_DIRECT has coarser units.

A writable file or device is locked, so that nobody else serves it or copies to it:
another ringnbd by a flock, QEMU and its tools by their own locks on images. If one
of them has it already, or a mount, a loop device, device mapper, RAID or swap uses
it, it is refused. Read-only exports share with each other, and with mounts and
loop devices. --force serves all the same, and logs what it found.

The engine has one event loop per core that it may use, at most 8 unless --loops
says so. --memory bounds what all requests may hold, whatever clients do: those
that ask for more wait. It is taken when it is first used, and kept. The default,
160 MiB for each loop and 1 GiB at most, is half of what the machine, or the
limit of a container (its control groups), leaves beside the process; in a small
one there are fewer connections and smaller socket buffers, too. The least
is 6 MiB for each loop, 256 KiB for each of its first 8 connections and 8 KiB
for every connection: --loops 1 --max-connections 1 lives in 32 MiB altogether.
With less than some 82 MiB for each loop, requests of more than 1 MiB are served
piece by piece, which takes longer.

The memory is registered with io_uring, which locks it and makes disk requests
some 10 % cheaper. A user who is not root and may not lock that much (ulimit -l,
8 MiB by default) serves all the same, without it, and is told how to get the
right; --register off says that this is meant.

SIGTERM, SIGINT, SIGQUIT or SIGHUP (which stays ignored under nohup): no new
connections; requests are served for another second, and a connection is closed
when it falls silent, or when that is over and what was taken in is answered;
what comes then, or has not come to its end (a payload that drips in), is not
answered. No request fails for it: clients that reconnect send it again and
notice nothing. Every export that was written to is flushed, all at the same
time, in what is left of the timeout or 2 s; one whose storage hangs is named,
keeps no other from its flush, and does not keep the program. A second signal
ends the program at once, and the first ends a start. Only what a disk, or the
process behind a FUSE file system, was asked by a request and does not answer
keeps the process in the kernel until it does; not even SIGKILL ends that.

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
  ringnbd serve --export boot=boot.img,ro,description=installer \
      --export data=/dev/vg0/data

  # names in any language, and one with a = in it
  ringnbd serve --export 'ディスク=disk.img,description=世界,, 1' \
      --export 'a==b=boot.img,ro'

  # for Linux 2.6: nbd-client THIS-HOST 2000 /dev/nbd0
  ringnbd serve --oldstyle 192.168.1.5:2000 disk.img

  # nothing but the engine, to measure it
  ringnbd serve --listen unix:/tmp/null.sock null:1T`
