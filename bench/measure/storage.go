// What all servers share: the file, the loop device on it, further files to be exported.
//
// Invariant: each is made when it is first needed and gone after close.

package measure

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// storage is the files and devices that exist.
type storage struct {
	file   string
	device *loopDevice
	folder string // of the further files
	others []string
}

// disk is the path of the file.
func (s *storage) disk(dir string, size int64) (path string, err error) {
	if s.file == "" {
		if s.file, err = createDisk(dir, size); err != nil {
			return "", fmt.Errorf("the test file: %w", err)
		}
	}
	return s.file, nil
}

// alone is the path of the file without the loop device on it: servers refuse a file that the
// kernel uses otherwise.
func (s *storage) alone(dir string, size int64) (string, error) {
	if s.device != nil {
		err := s.device.vanish()
		s.device = nil
		if err != nil {
			return "", err
		}
	}
	return s.disk(dir, size)
}

// loop is the path of the loop device on the file.
func (s *storage) loop(dir string, size int64) (string, error) {
	file, err := s.disk(dir, size)
	if err != nil {
		return "", err
	}
	if s.device == nil {
		if s.device, err = attachLoop(file); err != nil {
			return "", err
		}
	}
	return s.device.path(), nil
}

// furtherSize is the size of a further file in bytes; it is sparse.
const furtherSize = 1 << 20

// further are the paths of n more files.
func (s *storage) further(dir string, n int) (paths []string, err error) {
	if s.folder == "" {
		if s.folder, err = os.MkdirTemp(dir, "ringnbd-bench-"); err != nil {
			return nil, err
		}
	}
	for i := len(s.others); i < n; i++ {
		path := filepath.Join(s.folder, fmt.Sprintf("%d.img", i+1))
		f, err := os.Create(path)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(f.Truncate(furtherSize), f.Close()); err != nil {
			return nil, err
		}
		s.others = append(s.others, path)
	}
	return s.others[:n], nil
}

// evict writes back and drops what the page cache holds of the file, through the file and through
// the loop device, and of the file over it if top is not empty, and returns how long the write-back
// took.
func (s *storage) evict(top string) (took time.Duration, err error) {
	var faces []string
	if top != "" {
		faces = append(faces, top)
	}
	if s.device != nil {
		faces = append(faces, s.device.path())
	}
	if s.file != "" {
		faces = append(faces, s.file)
	}
	start := time.Now()
	for _, path := range faces {
		err = errors.Join(err, writeBack(path))
	}
	took = time.Since(start)
	for _, path := range faces {
		err = errors.Join(err, evict(path))
	}
	return took, err
}

func (s *storage) close() error {
	var err error
	if s.device != nil {
		err = s.device.detach()
	}
	if s.file != "" {
		err = errors.Join(err, os.Remove(s.file))
	}
	if s.folder != "" {
		err = errors.Join(err, os.RemoveAll(s.folder))
	}
	*s = storage{}
	return err
}
