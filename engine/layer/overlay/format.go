// How a top is laid out, and its superblock.
//
// Invariant: what Parse accepts describes exactly the layout that its size asks for. Nothing here
// reads or writes a file; the caller does.

package overlay

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"
)

const (
	// Magic begins a top.
	Magic = "RINGOVL\n"
	// HeadLen is the bytes at the beginning of a top that Format makes and Parse reads.
	HeadLen = 2 * superLen
	// MaxSize is the largest origin, in bytes.
	MaxSize = 1 << 50
	// MaxName is the longest name of an origin, in bytes; a longer one is cut.
	MaxName = 1024

	superLen  = 4096
	pageLen   = 4096 // of the map: what is written at a time
	dataAlign = 1 << 20
	version   = 1
)

// Places in a superblock.
const (
	atMagic    = 0
	atVersion  = 8
	atFeatures = 12
	atUUID     = 16
	atSequence = 32
	atSize     = 40
	atBlock    = 48
	atNameLen  = 52
	atMap      = 56
	atData     = 64
	atIdentity = 72
	atName     = 128
	atSum      = superLen - 4

	// features
	committing = 1 << 0
	emptying   = 1 << 1
	known      = committing | emptying
)

var (
	magic = []byte(Magic)
	sums  = crc32.MakeTable(crc32.Castagnoli)
)

// Layout is where things are in a top.
type Layout struct {
	Size    uint64 // of the origin, and of the overlay
	Block   uint32
	MapAt   uint64
	MapLen  uint64 // a multiple of 4096
	DataAt  uint64
	FileLen uint64 // the length of the whole top
}

// Lay returns the layout of a top over an origin of this size, or a *SizeError.
func Lay(size uint64) (Layout, error) {
	if size == 0 || size%512 != 0 || size > MaxSize {
		return Layout{}, &SizeError{size}
	}
	block := min(size&-size, 4096)
	l := Layout{Size: size, Block: uint32(block), MapAt: HeadLen}
	l.MapLen = up(up(size/block, 4)/4, pageLen)
	l.DataAt = up(l.MapAt+l.MapLen, dataAlign)
	l.FileLen = l.DataAt + size
	return l, nil
}

// up rounds n up to a multiple of a power of two.
func up(n, to uint64) uint64 { return (n + to - 1) &^ (to - 1) }

// Words is how many words NewMap wants.
func (l Layout) Words() int { return int(l.MapLen / 8) }

// Origin is what a top says about its origin.
type Origin struct {
	Size     uint64
	Identity [32]byte // chosen by the opener, who compares it; the same for the same origin only
	Name     string   // for people
}

// Super is what a superblock says.
type Super struct {
	UUID     [16]byte
	Origin   Origin
	Sequence uint64 // grows with every superblock that is written
	// Committing says that the top is being written into its origin: if that was cut, it has to be
	// gone on with before anything else.
	Committing bool
	// Emptying says that the map is being emptied. Whatever it holds does not count any more: if
	// that was cut, the map reads as empty, and is emptied before anything is written to the top.
	Emptying bool
}

// Format returns what is to be written at the beginning of a new top: HeadLen bytes. All other
// bytes of the top have to read as zeroes up to Layout.DataAt.
func Format(uuid [16]byte, origin Origin) ([]byte, error) {
	if _, err := Lay(origin.Size); err != nil {
		return nil, err
	}
	s := Super{UUID: uuid, Origin: origin}
	head := make([]byte, 0, HeadLen)
	for s.Sequence = 0; s.Sequence < 2; s.Sequence++ {
		_, text := s.Encode()
		head = append(head, text...)
	}
	return head, nil
}

// Encode returns a superblock's bytes, and where in the top they belong: in the place that does not
// hold the superblock before it. The origin's size is one that Lay accepts.
func (s Super) Encode() (at uint64, text []byte) {
	l, err := Lay(s.Origin.Size)
	if err != nil {
		panic(err)
	}
	text = make([]byte, superLen)
	le := binary.LittleEndian
	copy(text[atMagic:], magic)
	le.PutUint32(text[atVersion:], version)
	features := uint32(0)
	if s.Committing {
		features |= committing
	}
	if s.Emptying {
		features |= emptying
	}
	le.PutUint32(text[atFeatures:], features)
	copy(text[atUUID:], s.UUID[:])
	le.PutUint64(text[atSequence:], s.Sequence)
	le.PutUint64(text[atSize:], s.Origin.Size)
	le.PutUint32(text[atBlock:], l.Block)
	le.PutUint64(text[atMap:], l.MapAt)
	le.PutUint64(text[atData:], l.DataAt)
	copy(text[atIdentity:], s.Origin.Identity[:])
	name := s.Origin.Name
	if len(name) > MaxName {
		name = strings.ToValidUTF8(name[:MaxName], "")
	}
	le.PutUint32(text[atNameLen:], uint32(len(name)))
	copy(text[atName:], name)
	le.PutUint32(text[atSum:], crc32.Checksum(text[:atSum], sums))
	return s.Sequence % 2 * superLen, text
}

// Next is the superblock to be written after s, with other facts if the caller changes them.
func (s Super) Next() Super {
	s.Sequence++
	return s
}

// Parse reads the first HeadLen bytes of a file, or all if it is shorter. Its errors are
// *NotOverlayError, *VersionError and *DamagedError.
func Parse(head []byte) (Super, error) {
	head = head[:min(len(head), HeadLen)]
	if len(bytes.TrimLeft(head, "\x00")) == 0 {
		return Super{}, &NotOverlayError{Blank: true}
	}
	var newest Super
	found := false
	var first error
	for at := 0; at < HeadLen; at += superLen {
		if len(head) < at+superLen {
			continue
		}
		s, err := parse(head[at:at+superLen], uint64(at))
		switch {
		case err == nil && (!found || s.Sequence > newest.Sequence):
			newest, found = s, true
		case err != nil && (first == nil || worse(err, first)):
			first = err
		}
	}
	_, later := first.(*VersionError)
	switch {
	case found && !later:
		return newest, nil
	case first == nil:
		return Super{}, &NotOverlayError{}
	}
	return Super{}, first
}

// worse reports whether an error about a place says more than one about the other place.
func worse(err, than error) bool {
	rank := func(err error) int {
		switch err.(type) {
		case *VersionError:
			return 2
		case *DamagedError:
			return 1
		}
		return 0
	}
	return rank(err) > rank(than)
}

// parse reads one superblock. The checksum is where it is in every version.
func parse(text []byte, at uint64) (Super, error) {
	le := binary.LittleEndian
	if !bytes.HasPrefix(text, magic) {
		return Super{}, &NotOverlayError{}
	}
	if le.Uint32(text[atSum:]) != crc32.Checksum(text[:atSum], sums) {
		return Super{}, &DamagedError{"the checksum of the superblock is wrong", at}
	}
	features := le.Uint32(text[atFeatures:])
	if v := le.Uint32(text[atVersion:]); v != version || features&^known != 0 {
		return Super{}, &VersionError{Version: v, Features: features &^ known}
	}
	s := Super{Sequence: le.Uint64(text[atSequence:]), Committing: features&committing != 0,
		Emptying: features&emptying != 0}
	copy(s.UUID[:], text[atUUID:])
	s.Origin.Size = le.Uint64(text[atSize:])
	copy(s.Origin.Identity[:], text[atIdentity:])
	n := le.Uint32(text[atNameLen:])
	l, err := Lay(s.Origin.Size)
	if err != nil || n > MaxName || le.Uint32(text[atBlock:]) != l.Block ||
		le.Uint64(text[atMap:]) != l.MapAt || le.Uint64(text[atData:]) != l.DataAt {
		return Super{}, &DamagedError{"the superblock contradicts itself", at}
	}
	s.Origin.Name = string(text[atName : atName+n])
	return s, nil
}

// Check returns an *OriginError if the top belongs to another origin. Names are not compared.
func (s Super) Check(is Origin) error {
	if s.Origin.Size != is.Size || s.Origin.Identity != is.Identity {
		return &OriginError{Was: s.Origin, Is: is}
	}
	return nil
}

// CheckLength returns a *DamagedError if a top of this length has lost its end.
func (s Super) CheckLength(length uint64) error {
	l, err := Lay(s.Origin.Size)
	if err == nil && length < l.FileLen {
		err = &DamagedError{"the file ends there, and should have " + number(l.FileLen) + " bytes",
			length}
	}
	return err
}
