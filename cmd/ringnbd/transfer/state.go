// --resume: what is done, on disk, for the run that goes on after this one was ended.
//
// Invariant: a range is in the file only if the destination was flushed after it was written; the file is replaced as a whole or not at all, and is not used for another
// copy than its own.

package transfer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// stateFormat tells our files from others, and their versions from each other.
const stateFormat = "ringnbd copy 1"

// stateMost bounds what is read of a state file, in bytes.
const stateMost = 64 << 20

// Identity is what must be the same when a copy goes on.
type Identity struct {
	Place    string `json:"place"`
	Size     uint64 `json:"size"` // bytes
	Inode    uint64 `json:"inode,omitempty"`
	Device   uint64 `json:"-"`
	Modified int64  `json:"modified,omitempty"` // nanoseconds since 1970; counts for the source alone
}

// State is the content of the file.
type State struct {
	Format      string   `json:"format"`
	Source      Identity `json:"source"`
	Destination Identity `json:"destination"`
	Done        []Range  `json:"done"`
}

// loadState reads the file; nil if there is none.
func loadState(path string) (*State, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() > stateMost) {
		return nil, fmt.Errorf("%s: is not the state of a copy; name another file for --resume", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, plain(path, err)
	}
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil || s.Format != stateFormat {
		return nil, fmt.Errorf("%s: is not the state of a copy; name another file for --resume", path)
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

// check refuses a state that is of something else.
func (s *State) check(path string, source, destination Identity) error {
	again := fmt.Sprintf("; to copy from the beginning, remove %s", path)
	switch {
	case s.Source.Place != source.Place:
		return fmt.Errorf("%s is the state of a copy from %s, not from %s%s", path, s.Source.Place, source.Place, again)
	case s.Destination.Place != destination.Place:
		return fmt.Errorf("%s is the state of a copy to %s, not to %s%s", path, s.Destination.Place, destination.Place, again)
	case s.Source.Size != source.Size:
		return fmt.Errorf("the source has %d bytes, and had %d when the copy began%s", source.Size, s.Source.Size, again)
	case s.Destination.Size != destination.Size:
		return fmt.Errorf("the destination has %d bytes, and had %d when the copy began%s", destination.Size, s.Destination.Size, again)
	case s.Source.Inode != source.Inode || s.Source.Modified != source.Modified:
		return fmt.Errorf("the source was changed since the copy began%s", again)
	case s.Destination.Inode != destination.Inode:
		return fmt.Errorf("the destination is another file than the one that the copy began%s", again)
	}
	return nil
}

// save replaces the file.
func (s *State) save(path string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*")
	if err != nil {
		return plain(path, err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return plain(path, err)
	}
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync() // without it a crash leaves the older state, which is right as well
		_ = d.Close()
	}
	return nil
}

// discard removes a file that has done its work, if it is there.
func discard(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return plain(path, err)
	}
	return nil
}
