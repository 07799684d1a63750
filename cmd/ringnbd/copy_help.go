// The manual of copy, as --help prints it, and its defaults.
//
// Invariant: every example works as it stands, given the file or server that it names.

package main

// What copy does without being told, found by measuring (see README.md): larger requests only take
// more memory out of the processor's caches. How many are in flight, on all connections together,
// is transfer.DefaultSlots, which has its own measurement.
const (
	defaultConnections = 4
	defaultRequestSize = 256 << 10
)

const copyHelp = `Copy an export, a file or a block device to another.

SOURCE and DESTINATION are each a path, nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH. A destination file that is missing is made, with the size of the
source. A file that exists must have that size; an export or a device may be larger, and what is behind the source's end stays as it is. THE DESTINATION IS
OVERWRITTEN. A server of the oldstyle handshake, from before 2011, knows no names: its
URI must be without one.

[ COMMAND... ] starts an NBD server by socket activation (nbdkit, qemu-nbd, ringnbd
serve) and ends it afterwards: each bracket is a word of its own, and what is between
them is the command's. So images in other formats are copied, and ends that are no
files.

- is standard input or output. Of a stream nobody knows the size: a destination file
must be missing or empty, an export or device is large enough if all of it fits.
--verify and --resume need ends that can be read again. null: takes everything and
keeps nothing: it shows how fast a source is.

A source file must be a raw disk: one that looks like qcow2 or another format, or
is compressed, is refused, since a copy of its bytes is no disk (and to copy it as a
file, there is cp). --format raw copies the bytes. What a server has is not judged.

Refused are a destination that somebody else has, and a source that somebody else
may write to: another ringnbd (its lock, a flock), QEMU and its tools (their locks
on images), a mount, a loop device, device mapper or RAID, swap. --force goes on
all the same, and says what it found. No file is made below /dev (but for
/dev/shm), and none whose name looks like an address; ./ in front makes it a name.

Holes and zeroes of the source are found by the server's block status (base:allocation), by SEEK_HOLE in files, and in the data itself. In the destination they become
holes, where that can be had. The destination is flushed at the end, always: when the command ends with status 0, the copy is on the disk.

--verify reads both ends again after that and compares them. Files are read from the disk and not from the page cache; what a server reads from is its own affair.
Ranges that both ends call zeroes are not read.

--resume notes every few seconds what was copied, after a flush. The same command goes on from there after whatever ended it: Ctrl-C, kill -9, a loss of power.
It refuses if either end is another than before (a file by its inode and time of birth, a device by its serial number if the kernel knows one), has another size, is
gone or empty, or if a source file was changed. Of a server, and of the data on a device, it cannot know whether it changed meanwhile.
The file is removed when the copy is complete.

A source file must not change while it is copied: when its size or time of modification has moved, the command fails.

--timeout is about silence: a server that owes answers and sends nothing. Zeroes and FLUSH may take as long as a disk does, so for them it is up to an hour, and for what
has to wait behind them.

--connections is how many would be good. Of a server that does not take as many, those that it takes are used.

The first Ctrl-C finishes what is in flight, flushes, for at most the time of --timeout, and ends with status 1; the second one ends the program.

Exit status: 0 if all was copied (and, with --verify, is the same), 1 if not, 2 for a wrong command line.`

const copyExamples = `  # an image to a server, and back
  ringnbd copy disk.img nbd://server/disk
  ringnbd copy nbd://server/disk back.img

  # out of a qcow2 image
  ringnbd copy [ qemu-nbd -r -f qcow2 disk.qcow2 ] nbd://server/disk

  # out of a compressed image, and into one
  zstd -dc disk.img.zst | ringnbd copy - nbd://server/disk
  ringnbd copy nbd://server/disk - | zstd >disk.img.zst

  # from one server to another, to a disk that is fresh, and compared
  ringnbd copy --destination-is-zero --verify nbd://old/disk \
      'nbd+unix:///disk?socket=/run/nbd.sock'

  # a large one, over a line that breaks
  ringnbd copy --resume disk.state nbd://server/disk disk.img`
