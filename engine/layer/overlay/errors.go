// Why a file is not a usable top.
//
// Invariant: an error holds facts; what to do about it is said by the command.

package overlay

import "strconv"

// NotOverlayError says that a file does not begin as a top does.
type NotOverlayError struct {
	Blank bool // it is short, or begins with zeroes only: it was made, and never formatted
}

// Error says it.
func (e *NotOverlayError) Error() string {
	if e.Blank {
		return "it is blank, not an overlay"
	}
	return "it is not an overlay"
}

// VersionError says that a top has a later format.
type VersionError struct {
	Version  uint32
	Features uint32 // features of the known version that this program does not know
}

// Error says it.
func (e *VersionError) Error() string {
	if e.Version == version {
		return "it is an overlay with features that are not known here (" +
			strconv.FormatUint(uint64(e.Features), 2) + ")"
	}
	return "it is an overlay of format " + strconv.FormatUint(uint64(e.Version), 10) +
		"; known is " + strconv.Itoa(version)
}

// DamagedError says that a top contradicts itself.
type DamagedError struct {
	What string
	At   uint64 // the offset in the top where it was found
}

// Error says it.
func (e *DamagedError) Error() string {
	return "the overlay is damaged at byte " + number(e.At) + ": " + e.What
}

// OriginError says that a top belongs to another origin.
type OriginError struct {
	Was, Is Origin
}

// Error says it.
func (e *OriginError) Error() string {
	of := ""
	if e.Was.Name != "" {
		of = " (" + strconv.Quote(e.Was.Name) + ")"
	}
	if e.Was.Size != e.Is.Size {
		return "the overlay was made over an origin" + of + " of " + number(e.Was.Size) +
			" bytes, and this origin has " + number(e.Is.Size)
	}
	return "the overlay was made over another origin" + of + ", or the origin has changed since"
}

// SizeError says that there is no overlay over an origin of this size.
type SizeError struct {
	Size uint64
}

// Error says it.
func (e *SizeError) Error() string {
	switch {
	case e.Size == 0:
		return "the origin is empty"
	case e.Size > MaxSize:
		return "the origin has " + number(e.Size) + " bytes; an overlay has at most " +
			number(MaxSize)
	}
	return "the origin's size of " + number(e.Size) + " bytes is not a multiple of 512"
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
