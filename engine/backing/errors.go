// The errors of this package: facts about a store, with a text that says what is wrong.
//
// Invariant: no text names an option of a program. What to do about an error depends on the program
// that opens the store, so the program adds that, from the facts.

package backing

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ringnbd/engine/layer/overlay"
)

// AccessError is what the system answered when a path was looked at or opened.
type AccessError struct {
	Path     string
	ReadOnly bool // it was to be opened for reading only
	Part     bool // it is a part of a tree
	Err      error
}

func (e *AccessError) Error() string {
	text := ""
	switch {
	case errors.Is(e.Err, unix.ENOENT):
		text = "no such file"
	case e.Forbidden() && e.ReadOnly:
		text = "no permission to read it"
	case e.Forbidden():
		text = "no permission to write to it"
	case errors.Is(e.Err, unix.EROFS):
		text = "is on a read-only file system"
	case errors.Is(e.Err, unix.ETXTBSY):
		text = "is in use as swap space or as a running program; end that use first"
	case errors.Is(e.Err, unix.ENXIO), errors.Is(e.Err, unix.ENODEV),
		errors.Is(e.Err, unix.ENOMEDIUM):
		text = "no device is attached to it (" + e.Err.Error() + "); attach a device first"
	case errors.Is(e.Err, unix.ENOTDIR):
		text = "a part of the path is a file, not a directory; check the path"
	default:
		text = "cannot be opened: " + e.Err.Error()
	}
	return e.Path + ": " + text
}

func (e *AccessError) Unwrap() error { return e.Err }

// Forbidden reports whether a permission is missing.
func (e *AccessError) Forbidden() bool {
	return errors.Is(e.Err, unix.EACCES) || errors.Is(e.Err, unix.EPERM)
}

// Holder is a kind of user that a store can have.
type Holder uint8

// The kinds of users that are looked for.
const (
	HeldByServer Holder = iota // a ringnbd, or another program that takes a flock
	HeldByQEMU                 // QEMU, or another program that takes its locks
	HeldByKernel               // a mount, a loop device, swap, a volume
)

// HeldError is about a store that is in use in a way that does not go together with a Claim.
type HeldError struct {
	Path  string
	Use   string // how it is used, as it stands after the path: "is mounted at /mnt"
	By    Holder
	Write bool // the store was to be written
	Final bool // Claim.Force cannot help either
	Part  bool // a partition of a block device was asked for, which the kernel has as a device
}

func (e *HeldError) Error() string {
	text := e.Path + ": " + e.Use
	if e.Final {
		text += "; end that use first (swapoff): the kernel lets no program write to it"
	}
	return text
}

// FormatError is about a file that is not a raw disk.
type FormatError struct {
	Path   string
	Name   string // of the format, with its article: "a qcow2 image"
	QEMU   string // what qemu-img calls the format; "" if it is none of QEMU's
	Unpack string // the program that unpacks a compressed file, or ""
	Part   bool   // it is in a partition, so Path is not a file's
}

func (e *FormatError) Error() string { return e.Path + ": is " + e.Name + ", not a raw disk" }

// DirectError is about a store that was to be opened with O_DIRECT alone, and takes none.
type DirectError struct{ Path, Why string }

func (e *DirectError) Error() string { return e.Path + ": " + e.Why }

// SizeError is about a size that would leave a part of a block at the end.
type SizeError struct {
	Path       string
	Size, Next uint64 // bytes; Next is the next larger size that fits
	Block      uint32 // the logical block size, in bytes
	Image      bool   // an image was to be made with that size; else it is a device's
}

func (e *SizeError) Error() string {
	text := fmt.Sprintf("%s: its size, %d bytes, is not a multiple of the logical block size, %d "+
		"bytes", e.Path, e.Size, e.Block)
	if !e.Image {
		text += fmt.Sprintf("; make the device %d bytes large", e.Next)
	}
	return text
}

// sizeError fills in the next size that fits.
func sizeError(path string, size uint64, block uint32, image bool) error {
	next := (size + uint64(block) - 1) / uint64(block) * uint64(block)
	return &SizeError{Path: path, Size: size, Next: next, Block: block, Image: image}
}

// ExistsError is about an image that was to be made with another size than it has already.
type ExistsError struct {
	Path         string
	Size, Wanted uint64 // bytes
}

func (e *ExistsError) Error() string {
	return fmt.Sprintf("%s: exists and is %d bytes long, not the %d that a new image would have",
		e.Path, e.Size, e.Wanted)
}

// TopError is about the file of an overlay, or about what a file cannot be the top of.
type TopError struct {
	Path    string
	Missing bool  // it does not exist, and was not to be made
	NotFile bool  // it is not a regular file
	Dir     bool  // Path is the directory in which files without a name cannot be made
	Err     error // else: of package overlay, or of the system
}

func (e *TopError) Error() string {
	text := e.Path + ": "
	switch {
	case e.Missing:
		return text + "no such file; correct the path, or make a new overlay with " +
			"create=if-missing in the tree"
	case e.NotFile:
		return text + "what is written to an overlay goes to a regular file; name a file"
	case e.Dir:
		return text + "cannot hold what clients write: " + e.Err.Error() +
			"; name another directory with dir=DIRECTORY in the tree"
	}
	text += e.Err.Error()
	var (
		not   *overlay.NotOverlayError
		later *overlay.VersionError
		other *overlay.OriginError
		size  *overlay.SizeError
	)
	switch {
	case errors.As(e.Err, &not) && not.Blank:
		text += "; remove it if it is not needed, and make a new overlay with create=if-missing " +
			"in the tree"
	case errors.As(e.Err, &not):
		text += ", and is not overwritten; name another file"
	case errors.As(e.Err, &later):
		text += "; a newer ringnbd can open it"
	case errors.As(e.Err, &other) && other.Was.Size != other.Is.Size:
		text += "; name the origin that it was made over"
	case errors.As(e.Err, &other):
		text += "; name the origin that it was made over, as it was then: its blocks that are " +
			"not in the overlay would not fit those that are"
	case errors.As(e.Err, &size) && size.Size%sector != 0:
		text += "; make it a whole number of sectors"
	}
	return text
}

func (e *TopError) Unwrap() error { return e.Err }

// NameError is about the name of the export of a path.
type NameError struct {
	Path  string
	Name  string
	Other string // the path of another export with the same name; "" if the name itself is wrong
	Wrong string // what is wrong with the name, as it stands after "the export's name"
}

func (e *NameError) Error() string {
	if e.Other != "" {
		return fmt.Sprintf("two exports are named %q: %s and %s", e.Name, e.Other, e.Path)
	}
	return e.Path + ": the export's name " + e.Wrong
}

// SharedError is about an export that cannot have its store together with another export of the
// same server.
type SharedError struct {
	Path, Name string // of the new export
	Other      string // the name of the export that has the store
	Mode       string // how the store is open, as it stands after the path; "": they collide
	Within     bool   // both are parts of one tree
	Origin     bool   // one of them is an origin, which must not change
}

func (e *SharedError) Error() string {
	if e.Mode != "" {
		return fmt.Sprintf("%s: %s, by the export %q", e.Path, e.Mode, e.Other)
	}
	switch {
	case e.Within:
		return e.Path + ": stands in its tree twice, and is written to; use another file for each"
	case e.Origin:
		return fmt.Sprintf("%s: is an origin of one of the exports %q and %q, and writable in the "+
			"other; an origin must not change", e.Path, e.Other, e.Name)
	}
	return fmt.Sprintf("%s: exported twice (as %q and %q); that works only if both are read-only",
		e.Path, e.Other, e.Name)
}
