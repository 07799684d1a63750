// The file that all servers share.
//
// Invariant: it is fully allocated and holds random data before the first load (a hole or an
// unwritten extent would be measured instead of the disk), and it is removed at the end.

package measure

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"

	"ringnbd/engine/units"
)

// fillChunk is how much random data is made and written at a time.
const fillChunk = 4 << 20

// createDisk makes a file of random data in dir and returns its path. The data is seeded: two runs
// see the same bytes.
func createDisk(dir string, size int64) (path string, err error) {
	f, err := os.CreateTemp(dir, "ringnbd-bench-*.img")
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
		return "", fmt.Errorf("allocate %s in %s: %w", units.Exact(uint64(size)), dir, err)
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
	return f.Name(), f.Sync()
}

// writeBack waits until a file or block device is on the disk.
func writeBack(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// evict drops from the page cache what has been written back.
func evict(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
}
