// The fingerprint of an origin: what a top remembers, so that it is not used over another image, or
// over an origin that was written to since.
//
// It is a hash of the size and of samples of the content. So it stays the same when the image is
// moved, copied to another machine, or found behind another name; it tells other images apart; and
// it sees most changes, because file systems and partition tables write to their first blocks
// whenever they are used. It does not see every change: an origin is kept from changing by locks,
// and this is for what happened while no server held them.
//
// Invariant: it reads a bounded number of bytes, whatever the size.

package backing

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/layer/overlay"
)

// What is read of an origin: its beginning, and samples spread evenly, the last of which is its
// end.
const (
	sampledHead = 256 << 10 // bytes
	samples     = 64
	sampleSize  = 4096 // bytes
)

// fingerprint returns that of what an open Backing shows.
func (b *Backing) fingerprint() (sum [32]byte, err error) {
	size := b.window.size
	h := sha256.New()
	var number [8]byte
	h.Write([]byte("ringnbd origin 1\n"))
	h.Write(binary.LittleEndian.AppendUint64(number[:0], size))
	at, done, err := b.reader()
	if err != nil {
		return sum, err
	}
	defer done()
	buffer := make([]byte, sampledHead)
	add := func(off, length uint64) error {
		p := buffer[:min(length, size-off)]
		clear(p)
		if err := at(p, off); err != nil {
			return fmt.Errorf("%s: cannot be read: %w", b.spec.Path, err)
		}
		h.Write(p)
		return nil
	}
	if err := add(0, sampledHead); err != nil {
		return sum, err
	}
	last := (size - min(size, sampleSize)) / sector * sector
	for i := uint64(1); i <= samples && size > sampledHead; i++ {
		// In two factors, for sizes up to 2^63.
		off := (last/samples*i + last%samples*i/samples) / sector * sector
		if err := add(off, sampleSize); err != nil {
			return sum, err
		}
	}
	return [32]byte(h.Sum(nil)), nil
}

// reader returns a function that reads what an open Backing shows, and another that ends its use.
func (b *Backing) reader() (at func(p []byte, off uint64) error, done func(), err error) {
	switch {
	case b.tree != nil:
		return b.layerReader()
	case b.Device.Kind == engine.Null || b.Device.Kind == engine.Memory:
		return func([]byte, uint64) error { return nil }, func() {}, nil
	}
	fd, err := reopen(b.Device.FD, false)
	if err != nil {
		return nil, nil, explain(&b.spec, err)
	}
	_ = unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM) // no reading ahead; a hint
	base, direct := b.window.base, b.Device.Direct
	at = func(p []byte, off uint64) error {
		_, err := readFull(fd, p, int64(base+off))
		if direct { // what the page cache holds is in the way of O_DIRECT, and of SEEK_DATA
			_ = unix.Fadvise(fd, int64(base+off), int64(len(p)), unix.FADV_DONTNEED)
		}
		return err
	}
	return at, func() { _ = unix.Close(fd) }, nil
}

// layerReader is the reader of an overlay: each run from where its data is.
func (b *Backing) layerReader() (at func(p []byte, off uint64) error, done func(), err error) {
	below, closeBelow, err := b.parts[0].reader()
	if err != nil {
		return nil, nil, err
	}
	top, closeTop, err := b.parts[1].reader()
	if err != nil {
		closeBelow()
		return nil, nil, err
	}
	at = func(p []byte, off uint64) error {
		var err error
		b.laid.plan.Extents(off, uint64(len(p)), func(at, n uint64, s overlay.State) bool {
			part := p[at-off:][:n]
			switch s {
			case overlay.FromOrigin:
				err = below(part, at)
			case overlay.Data:
				err = top(part, b.laid.layout.DataAt+at)
			}
			return err == nil
		})
		return err
	}
	return at, func() { closeTop(); closeBelow() }, nil
}
