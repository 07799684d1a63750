// What the user asked for, and the rules that depend on its text alone.
//
// Invariant: Check reads its argument and nothing else; a Spec that passes it can still fail to
// open, but never for its spelling.

package backing

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"ringnbd/engine/tree"
	"ringnbd/engine/units"
	"ringnbd/proto"
)

// sector is the unit in which disks are measured, in bytes.
const sector = 512

// DirectMode decides whether reads and writes bypass the page cache.
type DirectMode uint8

const (
	DirectAuto DirectMode = iota // O_DIRECT where the file system takes it, else a note
	DirectOn                     // O_DIRECT or an error
	DirectOff                    // always through the page cache
)

// Spec asks for an export.
type Spec struct {
	Name        string // "" is the default export
	Path        string // regular file, block device, null:SIZE or memory:SIZE
	Partition   string // "N", "label:NAME" or "uuid:UUID"; "" is the whole
	Partitions  bool   // each partition is to be an export as well, see PartitionName
	Description string // shown by INFO and LIST
	ReadOnly    bool
	Create      uint64 // bytes; a missing image is made with this size, 0 makes none
	Direct      DirectMode
	Force       bool // go on although others use it
	Raw         bool // it is a raw disk, whatever it looks like
	// Tree is what the export is made of, if that was not read from Path. A Path that is the text
	// of a tree needs no Tree.
	Tree *tree.Node

	still  bool // an origin: it must not change while it is open
	top    bool // it holds what is written over an origin
	cached bool // an origin of many clients: through the page cache, whatever others choose

	glance bool // it is only looked at (glance.go): no lock is taken
}

// Check applies every rule that can be decided from the text alone: names, descriptions, sizes of
// synthetic exports, duplicates.
func Check(specs []Spec) error {
	seen := make(map[string]string, len(specs))
	for i := range specs {
		s := &specs[i]
		if err := s.check(); err != nil {
			return err
		}
		if other, ok := seen[s.Name]; ok {
			return &NameError{Path: s.Text(), Name: s.Name, Other: other}
		}
		seen[s.Name] = s.Text()
	}
	return nil
}

func (s *Spec) check() error {
	if s.Path == "" {
		return fmt.Errorf("export %q has an empty path", s.Name)
	}
	if strings.ContainsRune(s.Path, 0) {
		return fmt.Errorf("path %q holds a NUL byte", s.Path)
	}
	if wrong := wrongString(s.Name); wrong != "" {
		return &NameError{Path: s.Path, Name: s.Name, Wrong: wrong}
	}
	if wrong := wrongString(s.Description); wrong != "" {
		return fmt.Errorf("%s: the description %s; choose another", s.Path, wrong)
	}
	n, err := s.layers()
	if err == nil && n != nil {
		return s.checkLayers(n)
	}
	if err == nil {
		_, _, err = s.synthetic()
	}
	if err != nil {
		return err
	}
	return s.checkPartition()
}

// wrongString returns why text cannot be a string of the protocol, or "".
func wrongString(text string) string {
	switch {
	case proto.ValidString(text):
		return ""
	case len(text) > proto.MaxString:
		return fmt.Sprintf("has %d bytes, and the protocol has room for %d", len(text),
			proto.MaxString)
	case !utf8.ValidString(text):
		at := 0
		for {
			r, n := utf8.DecodeRuneInString(text[at:])
			if r == utf8.RuneError && n <= 1 {
				break
			}
			at += n
		}
		return fmt.Sprintf("%q must be UTF-8: its byte %d, %#x, is not (what locale is that "+
			"terminal in?)", text, at+1, text[at])
	}
	return fmt.Sprintf("%q must not hold a NUL", text)
}

// Synthetic reports whether path names a device that exists only in this process. A file called
// null:1G is written ./null:1G.
func Synthetic(path string) bool {
	return strings.HasPrefix(path, "null:") || strings.HasPrefix(path, "memory:")
}

// synthetic returns the kind ("null", "memory" or "") and the size of a synthetic export.
func (s *Spec) synthetic() (kind string, size uint64, err error) {
	if !Synthetic(s.Path) {
		return "", 0, nil
	}
	kind, text, _ := strings.Cut(s.Path, ":")
	if size, err = units.ParseSize(text); err != nil {
		return "", 0, fmt.Errorf("%s: %w (a file of that name is written ./%s)", s.Path, err,
			s.Path)
	}
	return kind, size, nil
}
