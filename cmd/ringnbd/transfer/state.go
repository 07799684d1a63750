// --resume: the ledger on disk, for a run that continues after this one was ended.
//
// Invariant: a range is in the file only if the destination was flushed after the range was
// written. The file is replaced as a whole or not at all, and is not used for another copy.

package transfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// stateFormat marks the files of copies, and their version.
const stateFormat = "ringnbd copy 2"

// partSuffix is appended to the name of a state while it is being written.
const partSuffix = ".part"

// maxState is the largest state file that is read, in bytes.
const maxState = 64 << 20

// resumeState is the content of the file.
type resumeState struct {
	Format      string      `json:"format"`
	Source      identity    `json:"source"`
	Destination identity    `json:"destination"`
	Done        []byteRange `json:"done"`
	Sum         string      `json:"sum"` // SHA-256, hexadecimal, of the state with an empty sum
}

// sum computes the value of Sum.
func (s *resumeState) sum() (string, error) {
	unsummed := *s
	unsummed.Sum = ""
	b, err := json.Marshal(&unsummed)
	return fmt.Sprintf("%x", sha256.Sum256(b)), err
}

// loadState reads the file. It returns nil if there is no file.
func loadState(path string) (*resumeState, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxState) {
		return nil, fmt.Errorf("%s: is not the state of a copy; name another file for --resume",
			path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, pathError(path, err)
	}
	s := new(resumeState)
	if err := json.Unmarshal(b, s); err != nil || s.Format != stateFormat {
		return nil, fmt.Errorf("%s: is not the state of a copy; name another file for --resume",
			path)
	}
	if sum, err := s.sum(); err != nil || sum != s.Sum {
		return nil, fmt.Errorf("%s: is damaged; remove it to copy from the beginning", path)
	}
	last := uint64(0)
	for i, r := range s.Done {
		if r.Start >= r.End || r.End > s.Source.Size || i > 0 && r.Start <= last {
			return nil, fmt.Errorf("%s: is damaged; remove it to copy from the beginning", path)
		}
		last = r.End
	}
	return s, nil
}

// checkPlaces refuses the state of a copy between other places.
func (s *resumeState) checkPlaces(path string, source, destination *Place) error {
	again := fmt.Sprintf("; to copy from the beginning, remove %s", path)
	switch from, to := source.place(), destination.place(); {
	case s.Source.Place != from:
		return fmt.Errorf("%s is the state of a copy from %s, not from %s%s", path, s.Source.Place,
			from, again)
	case s.Destination.Place != to:
		return fmt.Errorf("%s is the state of a copy to %s, not to %s%s", path, s.Destination.Place,
			to, again)
	}
	return nil
}

// check refuses a state whose source or destination has been replaced since.
func (s *resumeState) check(path string, source, destination identity) error {
	again := fmt.Sprintf("; to copy from the beginning, remove %s", path)
	switch {
	case s.Source.Size != source.Size:
		return fmt.Errorf("the source has %d bytes, and had %d when the copy began%s", source.Size,
			s.Source.Size, again)
	case s.Destination.Size != destination.Size:
		return fmt.Errorf("the destination has %d bytes, and had %d when the copy began%s",
			destination.Size, s.Destination.Size, again)
	case s.Source.Inode != source.Inode || s.Source.Modified != source.Modified:
		return fmt.Errorf("the source was changed since the copy began%s", again)
	case s.Source.Born != source.Born:
		return fmt.Errorf("the source is another file than when the copy began%s", again)
	case s.Source.Serial != source.Serial:
		return fmt.Errorf("the source is another device than when the copy began%s", again)
	case s.Destination.Serial != destination.Serial:
		return fmt.Errorf("the destination is another device than when the copy began%s", again)
	case s.Destination.Inode != destination.Inode || s.Destination.Born != destination.Born:
		return fmt.Errorf("the destination is another file than when the copy began%s",
			again)
	}
	return nil
}

// save replaces the file.
func (s *resumeState) save(path string) error {
	var err error
	if s.Sum, err = s.sum(); err != nil {
		return err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	part := path + partSuffix
	if err := removePart(part); err != nil {
		return err
	}
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return pathError(part, err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		_ = os.Remove(part)
		return pathError(path, err)
	}
	dir := filepath.Dir(path)
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync() // otherwise a crash may leave the older state, which is correct as well
		_ = d.Close()
	}
	return nil
}

// discard removes a file that is no longer needed, if it exists.
func discard(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return pathError(path, err)
	}
	return nil
}

// removePart removes the file of a run that was killed while it wrote its state, and no other file.
func removePart(part string) error {
	info, err := os.Lstat(part)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return pathError(part, err)
	}
	ours := info.Mode().IsRegular()
	if ours && info.Size() > 0 {
		f, err := os.Open(part)
		if err != nil {
			return pathError(part, err)
		}
		mark := []byte(`{"format":"ringnbd copy `)
		b := make([]byte, len(mark))
		_, err = io.ReadFull(f, b)
		ours = err == nil && bytes.Equal(b, mark)
		_ = f.Close() // only read
	}
	if !ours {
		return fmt.Errorf("%s: exists and is not the state of a copy, which is written there "+
			"first; name another file for --resume", part)
	}
	return discard(part)
}
