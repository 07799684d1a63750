package bench

// The file that all servers share. Invariant: it is fully allocated and holds
// random data before the first load (a hole or an unwritten extent would be
// measured instead of the disk), and it is removed at the end.

import (
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// fillChunk is how much random data is made and written at a time.
const fillChunk = 4 << 20

// createDisk makes a file of random data in dir and returns its path. The data is
// seeded: two runs see the same bytes.
func createDisk(dir string, size int64) (path string, err error) {
	f, err := os.CreateTemp(dir, "sidebyside-*.img")
	if err != nil {
		return "", err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	// Servers may drop privileges; the content is noise.
	if err := f.Chmod(0o666); err != nil {
		return "", err
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil && err != unix.EOPNOTSUPP {
		return "", fmt.Errorf("allocate %s in %s: %w", sizeText(size), dir, err)
	}
	random := rand.NewChaCha8([32]byte{1})
	chunk := make([]byte, fillChunk)
	for done := int64(0); done < size; {
		n := min(int64(len(chunk)), size-done)
		random.Read(chunk[:n])
		if _, err := f.WriteAt(chunk[:n], done); err != nil {
			return "", err
		}
		done += n
	}
	return f.Name(), evict(f.Name(), nil)
}

// evict writes the file back and drops it from the page cache. If took is not
// nil, it gets the time that the write-back needed.
func evict(path string, took *time.Duration) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	start := time.Now()
	if err := f.Sync(); err != nil {
		return err
	}
	if took != nil {
		*took = time.Since(start)
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
