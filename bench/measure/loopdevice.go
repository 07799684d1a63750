// The loop device on the test file.
//
// Invariant: it exists as long as this program holds it open: the kernel detaches it on the last
// close (autoclear), also when this program is killed.

package measure

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// loopDevice is an attached loop device.
type loopDevice struct{ file *os.File }

// attachLoop makes a loop device of a file, with direct I/O: what is written to the device goes to
// the disk, not into the file's page cache. Needs root.
func attachLoop(path string) (*loopDevice, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop devices: %w", err)
	}
	defer control.Close()
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	for range 16 { // another program may take the free device first
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("a free loop device: %w", err)
		}
		f, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd())}
		config.Info.Flags = unix.LO_FLAGS_DIRECT_IO | unix.LO_FLAGS_AUTOCLEAR
		copy(config.Info.File_name[:len(config.Info.File_name)-1], path)
		err = unix.IoctlLoopConfigure(int(f.Fd()), &config)
		if err == nil {
			return checkedLoop(&loopDevice{f})
		}
		f.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach %s to /dev/loop%d: %w", path, n, err)
		}
	}
	return nil, errors.New("every free loop device was taken by another program")
}

// checkedLoop refuses a device that silently fell back to the page cache, which the kernel does on
// file systems without direct I/O.
func checkedLoop(d *loopDevice) (*loopDevice, error) {
	name := strings.TrimPrefix(d.path(), "/dev/")
	if direct := strings.TrimSpace(readText("/sys/block/" + name + "/loop/dio")); direct != "1" {
		d.detach()
		return nil,
			errors.New("the loop device cannot use direct I/O on this file system: choose " +
				"another --dir")
	}
	return d, nil
}

func (d *loopDevice) path() string { return d.file.Name() }

// detach lets the device go; the kernel clears it once no process has it open.
func (d *loopDevice) detach() error { return d.file.Close() }

// vanish detaches the device and waits until it is gone: udev may have it open for a moment.
func (d *loopDevice) vanish() error {
	attached := "/sys/block/" + strings.TrimPrefix(d.path(), "/dev/") + "/loop/backing_file"
	if err := d.detach(); err != nil {
		return err
	}
	for range 500 {
		if _, err := os.Stat(attached); err != nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s stays attached: another program has it open", d.path())
}
